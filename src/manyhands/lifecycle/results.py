"""Results by message id: kept until their time or their receiver comes; the first one written stays."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.events import Outcome, Result
from manyhands.lifecycle import streams
from manyhands.lifecycle.changes import ResultKept
from manyhands.lifecycle.queue import Entry, calls_in
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import Stream
from manyhands.lifecycle.waiting import WaitingResult
from manyhands.model import Message, part_id


def result(state: State, session: Session, request: Result, now: Now) -> None:
    """Fetch a result, or wait for it."""
    kept = _find(state, request.id)
    if kept is not None:
        _hand_over(state, session, request.rid, kept, request.forget)
        return
    queue_name = queue_of(state, request.id)
    if queue_name is None:
        code, reason = state.buried.get(request.id) or _buried_pack(state, request.id) or ("", "")
        if code:
            raise Refused(code, f"message {request.id} became a dead letter: {reason}")
        raise Refused("unknown_id", f"no result and no unfinished call with id {request.id!r:.80} is here (any more)")
    if request.wait_s == 0:
        state.reply(session, Outcome(request.rid, request.id, queue_name))
        return
    check_wait(request.wait_s)
    waiting = WaitingResult(session, request.rid, request.id, request.forget)
    state.park(waiting)
    state.result_waits.setdefault(request.id, []).append(waiting)
    if request.wait_s > 0:
        waiting.has_timer = True
        state.timers.at_mono(now.mono + request.wait_s, lambda over, at: end_waiting(state, over), waiting)


def pack_of(message_id: str) -> tuple[str, int] | None:
    """What a call's id says if it is one of a pack: the pack's id, and which call."""
    pack, dot, part = message_id.rpartition(".")
    if not dot or not part.isdecimal() or not part.isascii() or len(part) > 9:
        return None
    return pack, int(part)


def queue_of(state: State, message_id: str) -> str | None:
    """The queue of the unfinished call with this id, which may be one of a pack; None: there is none."""
    found = streams.find(state, message_id)
    if found is not None:
        return found[0]
    named = pack_of(message_id)
    found = streams.find(state, named[0]) if named is not None else None
    if named is None or found is None:
        return None
    name, item = found
    # Reported calls have their results, so they are not asked for here; those given back are messages of their own.
    return name if named[1] < calls_in(item.message if isinstance(item, Entry) else item) else None


def _find(state: State, message_id: str) -> ResultKept | None:
    kept = state.results.get(message_id)
    if kept is None and state.pieces and (named := pack_of(message_id)) is not None:
        for piece in state.pieces.get(named[0], ()):
            if piece.first <= named[1] < piece.first + piece.n:
                return piece
    return kept


def _buried_pack(state: State, message_id: str) -> tuple[str, str] | None:
    named = pack_of(message_id)
    return state.buried.get(named[0]) if named is not None else None


def end_waiting(state: State, waiting: WaitingResult) -> None:
    """The wait is over without a result."""
    withdraw_waiting(state, waiting)
    state.reply(waiting.session, Outcome(waiting.rid, waiting.id, queue_of(state, waiting.id) or ""))


def withdraw_waiting(state: State, waiting: WaitingResult) -> None:
    """Nobody is there to hear it."""
    state.unpark(waiting)
    waits = state.result_waits.get(waiting.id, [])
    if waiting in waits:
        waits.remove(waiting)
    if not waits:
        state.result_waits.pop(waiting.id, None)


def store_result(
    state: State,
    queue_name: str,
    message: Message,
    value: bytes,
    stream: Stream | None,
    now: Now,
    first: int = 0,
    n: int = 0,
) -> None:
    """Keep a result, hand it to those who wait and to its stream; a second one for the same id changes nothing.

    Args:
        stream: who awaits it, as `streams.awaiting` says.
        first, n: which calls of a pack it covers; n 0 where the message is none.
    """
    if not n and message.id in state.results:
        return
    options = message.options
    keep_s = options.keep_result_s if options is not None else 0.0
    until = now.wall + keep_s if keep_s > 0 else 0.0
    number, name = 0, ""
    if stream is not None:
        number, name = state.token + 1, stream.id
        state.token = number
    elif n:
        number = state.token = state.token + 1
    kept = ResultKept(message.id, queue_name, value, until, number, name, first, n)
    if stream is not None or until or options is None or not options.reply_to:
        if n:
            state.pieces.setdefault(message.id, []).append(kept)
        else:
            state.results[message.id] = kept
        if state.changes is not None:
            state.note(kept)
        if until:
            watch_result(state, kept)
    if stream is not None:
        stream.ended.append(kept)
        stream.last = number
        if stream.waiting is not None:
            state.collected[stream] = None
    if state.result_waits:
        for message_id in _ids(message, first, n):
            for waiting in state.result_waits.pop(message_id, ()):
                state.unpark(waiting)
                _hand_over(state, waiting.session, waiting.rid, kept, waiting.forget)


def end_without(
    state: State, queue_name: str, message: Message, code: str, text: str, stream: Stream | None, first: int = 0, n: int = 0
) -> None:
    """A call ended without a result: its stream and those who wait for it hear why. See `store_result`."""
    if state.result_waits:
        for message_id in _ids(message, first, n):
            for waiting in state.result_waits.pop(message_id, ()):
                state.unpark(waiting)
                state.fail(waiting.session, waiting.rid, code, text)
    if stream is not None:
        number = state.token = state.token + 1
        kept = ResultKept(message.id, queue_name, None, 0.0, number, stream.id, first, n, code, text)
        state.note(kept)
        streams.append(state, stream, kept)


def _ids(message: Message, first: int, n: int) -> list[str]:
    return [part_id(message.id, part) for part in range(first, first + n)] if n else [message.id]


def watch_result(state: State, kept: ResultKept) -> None:
    """Drop it when its time is over."""
    state.timers.at_wall(kept.until, lambda over, at: _drop(state, over), kept)


def _hand_over(state: State, session: Session, rid: int, kept: ResultKept, forget: bool) -> None:
    state.reply(session, Outcome(rid, kept.id, kept.queue, kept.value, kept.first, kept.n))
    if kept.n > 1 or not streams.is_acked(state, kept):
        return  # others of its calls, or its stream, are still to be served
    if forget or not kept.until:
        _drop(state, kept)


def _drop(state: State, kept: ResultKept) -> None:
    is_acked = streams.is_acked(state, kept)
    if kept.n:
        is_here = kept in state.pieces.get(kept.id, ())
        streams.forget_piece(state, kept)
    else:
        is_here = state.results.get(kept.id) is kept
        if is_here:
            del state.results[kept.id]
    if is_here and is_acked:
        streams.note_dropped(state, kept)


def forget_result(state: State, message_id: str) -> None:
    """Its call runs again: what was stored of an earlier run must not stand in the way of the next result."""
    kept = _find(state, message_id)
    if kept is not None and kept.n < 2:
        _drop(state, kept)
