"""From a request to the arguments of a step; what is wrong with it by itself is answered here and never sent."""

from __future__ import annotations

import logging
from typing import Any

from manyhands.engines.redis import script
from manyhands.engines.redis.port import RedisPort
from manyhands.engines.redis.refuse import checked
from manyhands.events import Failed, Put, Report, Request, Settle, TaskDone
from manyhands.lifecycle.refusal import Refused
from manyhands.model import Limits

_log = logging.getLogger(__name__)


def encoded(port: RedisPort, request: Request, limits: Limits) -> list[bytes]:
    """The request's arguments; nothing when it is answered here."""
    try:
        good = checked(request, limits)
    except Refused as refused:
        return _refused(port, request, refused)
    except Exception as error:
        text = f"{type(request).__name__} has wrong values: {error!r:.200}"
        return _refused(port, request, Refused("usage", text))
    if good is None:
        return []
    port.note_sent(good)
    return script.request(good, port.session, port.gen)


def _refused(port: RedisPort, request: Request, refused: Refused) -> list[bytes]:
    """Say no, and let the script note what a refusal leaves behind: a hole, and leases that are given back."""
    rid: Any = getattr(request, "rid", 0)
    if rid:
        port.hand([Failed(rid, refused.code, refused.text, refused.facts)])
    try:
        if isinstance(request, Put) and 0 < request.seq < 2**53:
            what = ("refuse_put", 0, request.queue, request.seq, request.floor, request.causes, "", refused.text)
            return script.operation(what, port.session, port.gen)
        if isinstance(request, Settle | TaskDone | Report) and 0 < request.seq < 2**53:
            return script.operation(("refuse_seq", request.seq, request.floor), port.session, port.gen)
    except Exception:
        _log.debug("a request with wrong values left no trace", exc_info=True)
    return []
