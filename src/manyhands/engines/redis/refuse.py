"""What is wrong with a request by itself, said before it is sent: the script then never meets a value it cannot use."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from manyhands import events
from manyhands._text import REASON_CHARS, is_text, readable
from manyhands.events import Request
from manyhands.lifecycle.parking import MAX_OFFERS, check_need
from manyhands.lifecycle.puts import MAX_CALLS
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.streams import MAX_STREAM_CHARS, is_name
from manyhands.model import MAX_PRIORITY, MIN_PRIORITY, Kind, Limits, Message, Options, SettleKind, Settlement

MAX_NUMBER = 2**53
"""Lua counts in doubles; a larger seq or bound would be another number there."""

MAX_MESSAGES = 500_000
"""Redis takes about a million arguments in a call, and does nothing else while it stores them."""

_KINDS = frozenset(int(kind) for kind in Kind)
_SETTLES = frozenset(int(kind) for kind in SettleKind)
_OF_MANAGERS = (events.Create, events.Invoke, events.Refer, events.Unrefer)
_NOTHING = (events.Drop, events.Leave)


def checked(request: Request, limits: Limits) -> Request | None:
    """The request as it may be sent (reasons made fit to be stored); None: nothing is to be done about it.

    Raises:
        Refused: it is answered so.
    """
    if isinstance(request, _OF_MANAGERS):
        raise Refused(
            "unsupported_feature", "no manager is in front of this engine, so it serves no objects; it has queues only"
        )
    if isinstance(request, _NOTHING):
        return None
    queue = getattr(request, "queue", None)
    if queue is not None and not (queue == "" and isinstance(request, events.DeadList)):
        _check_name(queue)
    for number in (getattr(request, "seq", 0), getattr(request, "floor", 0), getattr(request, "maxsize", 0)):
        if number >= MAX_NUMBER:
            raise Refused("usage", f"{number} is more than this engine can count; count by ones from 1")
    check_wait(getattr(request, "wait_s", 0.0))
    if isinstance(request, events.Put):
        _check_put(request, limits)
    elif isinstance(request, events.Settle):
        return _checked_settle(request, limits)
    elif isinstance(request, events.Lease):
        _check_lease(request)
    elif isinstance(request, events.TaskDone) and request.n < 1:
        raise Refused("usage", f"task_done counts at least one, not {request.n}")
    elif isinstance(request, events.Peek | events.DeadList) and request.limit < 0:
        raise Refused("usage", f"limit must not be negative, but is {request.limit}")
    elif isinstance(request, events.ReportDead):
        if request.settlement is not None:
            _check_settlement(request.settlement, limits)
        return msgspec.structs.replace(request, reason=readable(request.reason, REASON_CHARS))
    elif isinstance(request, events.Bury):
        return _checked_bury(request, limits)
    elif isinstance(request, events.Report):
        _check_size(request.result, limits, "result")
    elif isinstance(request, events.Progress):
        return msgspec.structs.replace(request, note=readable(request.note, REASON_CHARS))
    elif isinstance(request, events.Offer) and len(request.needs) > MAX_OFFERS:
        raise Refused("usage", f"a session offers at most {MAX_OFFERS} things, not {len(request.needs)}")
    elif isinstance(request, events.Collect) and (request.rid < 1 or not is_name(request.stream)):
        raise Refused(
            "usage",
            f"a Collect needs a rid, and a stream's name is a text of 1 to {MAX_STREAM_CHARS} characters, "
            f"not {request.stream!r:.80}",
        )
    return request


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not 0 < len(name) <= 255 or not is_text(name):
        raise Refused("usage", f"a queue's name is a text of 1 to 255 characters, not {name!r:.80}")


def _check_lease(request: events.Lease) -> None:
    for name in request.also:
        _check_name(name)
    if type(request.max_n) is not int or request.max_n < 1 or request.begin_n < 0 or request.rid < 1:
        raise Refused(
            "usage",
            f"a lease asks for at least one message and needs a rid, not max_n={request.max_n!r:.40}, "
            f"begin_n={request.begin_n!r:.40}, rid={request.rid}",
        )


def _check_put(request: events.Put, limits: Limits) -> None:
    if request.causes and len(request.causes) != len(request.messages):
        raise Refused(
            "usage",
            f"{len(request.causes)} causes for {len(request.messages)} messages; each has one, or none has",
        )
    if len(request.messages) > MAX_MESSAGES:
        raise Refused(
            "usage", f"{len(request.messages):,} messages in one put are more than {MAX_MESSAGES:,}; put fewer at a time"
        )
    for message in request.messages:
        _check_size(message.body, limits, "body")
        _check_message(message)


def _check_message(message: Message) -> None:
    if not isinstance(message.id, str) or not isinstance(message.body, bytes) or not is_text(message.id):
        raise Refused("usage", f"a message has a text as id and bytes as body, not {message!r:.80}")
    if type(message.priority) is not int or not MIN_PRIORITY <= message.priority <= MAX_PRIORITY:
        raise Refused("usage", f"priority {message.priority!r:.40} is not an integer from {MIN_PRIORITY} to {MAX_PRIORITY}")
    if message.kind not in _KINDS:
        raise Refused("usage", f"message kind {message.kind!r:.40} is unknown to this engine")
    if type(message.max_deliveries) is not int or message.max_deliveries < 1:
        raise Refused("usage", f"max_deliveries {message.max_deliveries!r:.40} must be at least 1")
    if not math.isfinite(message.due_at):
        raise Refused("usage", f"due_at {message.due_at!r} is not a time")
    options = message.options
    if options is None:
        return
    if not isinstance(options, Options) or not math.isfinite(options.expires_at + options.keep_result_s):
        raise Refused("usage", f"options {options!r:.120} are not valid times")
    if options.reply_to and not is_name(options.reply_to):
        raise Refused(
            "usage", f"reply_to must be a text of up to {MAX_STREAM_CHARS} characters, not {options.reply_to!r:.80}"
        )
    if type(options.calls) is not int or not 0 <= options.calls <= MAX_CALLS or (options.calls and not message.kind):
        raise Refused("usage", f"a pack has up to {MAX_CALLS:,} calls, which are no items; not {options.calls!r:.40}")
    if options.part != -1:
        raise Refused("usage", "only the engine makes a message of one call of a pack; put the call with an id of its own")


def _checked_bury(request: events.Bury, limits: Limits) -> events.Bury:
    for letter in request.letters:
        _check_name(letter.queue)
        _check_size(letter.message.body, limits, "body")
        _check_message(letter.message)
        if not math.isfinite(letter.died_at) or letter.died_at <= 0:
            raise Refused("usage", f"died_at {letter.died_at!r} is not a time")
    said = [msgspec.structs.replace(one, reason=readable(one.reason, REASON_CHARS)) for one in request.letters]
    return events.Bury(request.rid, said)


def _checked_settle(request: events.Settle, limits: Limits) -> events.Settle:
    settlements: Sequence[Settlement] = request.settlements
    if all(not one.kind and one.result is None for one in settlements):
        return request
    for one in settlements:
        _check_settlement(one, limits)
    said = [
        Settlement(
            one.token, one.kind, one.is_task_done, one.delay_s, readable(one.reason, REASON_CHARS), one.result, one.calls
        )
        for one in settlements
    ]
    return events.Settle(request.rid, request.seq, request.floor, said)


def _check_settlement(one: Settlement, limits: Limits) -> None:
    if one.kind not in _SETTLES:
        raise Refused("usage", f"settlement kind {one.kind!r:.40} is unknown to this engine")
    if not math.isfinite(one.delay_s):
        raise Refused("usage", f"delay_s {one.delay_s!r} is not a time")
    if one.kind == SettleKind.PARK:
        check_need(one.reason)
    if one.calls < 0:
        raise Refused("usage", f"{one.calls} calls cannot be settled")
    if one.result is not None:
        _check_size(one.result, limits, "result")


def _check_size(body: bytes, limits: Limits, what: str) -> None:
    limit = limits.max_body_bytes
    if len(body) > limit:
        raise Refused(
            "payload_too_large",
            f"the encoded {what} has {len(body):,} bytes, over max_body_bytes ({limit:,}); "
            "put the data in a file or object store and send its path",
            size_bytes=len(body),
            limit_bytes=limit,
        )
