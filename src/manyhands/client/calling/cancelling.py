"""Taking calls back that were sent. The engine knows whether somebody has begun them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from manyhands.client.calling.state import Group, Sent
from manyhands.errors import ServerGone, ServerUnavailable
from manyhands.events import Cancel, Cancelled

if TYPE_CHECKING:
    from manyhands.client.calling.futures import CallFuture
    from manyhands.client.calling.session import CallSession

_KILLED_S = 10.0
"""How long a cancel of a running call waits for its end."""


def cancel(session: CallSession, future: CallFuture[Any], *, is_running_too: bool) -> bool:
    """Cancel one call; whether it was."""
    if cancel_all(session, [future], is_running_too=is_running_too):
        return True
    if is_running_too and not future.done():
        # Its worker is being stopped, or it ends just now.
        with contextlib.suppress(TimeoutError):
            session.wait(future, _KILLED_S)
    return future.cancelled()


def cancel_all(session: CallSession, futures: Sequence[CallFuture[Any]], *, is_running_too: bool = False) -> int:
    """Cancel calls that nobody has begun; how many were."""
    n = 0
    session.settle_sending()
    for group, by_id in _by_group(futures).items():
        reply = session.ask(partial(_request, queue=group.queue, ids=list(by_id), is_running_too=is_running_too))
        if isinstance(reply, Cancelled):
            for call_id in reply.ids:
                if call_id in by_id:
                    n += _is_cancelled(session, by_id.pop(call_id))
        if not is_running_too:
            for future in by_id.values():
                future.began()
    return n


def stop_all(session: CallSession, futures: Sequence[CallFuture[Any]]) -> None:
    """Have calls cancelled, running ones too, of which nobody will take the results; waits for nothing."""
    for group, by_id in _by_group(futures).items():
        with session.lock:
            request = _request(session.state.next_rid(), group.queue, list(by_id), is_running_too=True)
        with contextlib.suppress(ServerUnavailable, ServerGone):
            session.send(request)


def cancel_messages(session: CallSession, group: Group, messages: Sequence[Sent]) -> None:
    """Take messages out of the queue of which nobody will have the results; waits for nothing."""
    with session.lock:
        request = Cancel(session.state.next_rid(), group.queue, [sent.id for sent in messages])
    with contextlib.suppress(ServerUnavailable):
        session.send(request)


def _by_group(futures: Sequence[CallFuture[Any]]) -> dict[Group, dict[str, CallFuture[Any]]]:
    """Those that were sent, by group and by the ids that the engine knows them by."""
    found: dict[Group, dict[str, CallFuture[Any]]] = {}
    for future in futures:
        sent = future._sent
        if sent is not None:
            found.setdefault(sent.group, {})[sent.call_id(future._index)] = future
    return found


def _is_cancelled(session: CallSession, future: CallFuture[Any]) -> bool:
    sent = future._sent
    assert sent is not None
    with session.lock:
        session.state.over(sent, future._index, 1)
    return future.cancel_quietly() or future.cancelled()


def _request(rid: int, queue: str, ids: list[str], is_running_too: bool) -> Cancel:
    return Cancel(rid, queue, ids, is_running_too)
