"""Results by message id: kept until their time or their receiver comes; the first one written stays."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.events import Outcome, Result
from manyhands.lifecycle.changes import ResultDropped, ResultKept
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.waiting import WaitingResult
from manyhands.model import Message


def result(state: State, session: Session, request: Result, now: Now) -> None:
    """Fetch a result, or wait for it."""
    kept = state.results.get(request.id)
    if kept is not None:
        _hand_over(state, session, request.rid, kept, request.forget)
        return
    queue_name = state.calls.get(request.id)
    if queue_name is None:
        reason = state.buried.get(request.id)
        if reason is not None:
            raise Refused("task", f"message {request.id} became a dead letter: {reason}")
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


def end_waiting(state: State, waiting: WaitingResult) -> None:
    """The wait is over without a result."""
    withdraw_waiting(state, waiting)
    state.reply(waiting.session, Outcome(waiting.rid, waiting.id, state.calls.get(waiting.id, "")))


def withdraw_waiting(state: State, waiting: WaitingResult) -> None:
    """Nobody is there to hear it."""
    state.unpark(waiting)
    waits = state.result_waits.get(waiting.id, [])
    if waiting in waits:
        waits.remove(waiting)
    if not waits:
        state.result_waits.pop(waiting.id, None)


def store_result(state: State, queue_name: str, message: Message, value: bytes, now: Now) -> None:
    """Keep a result and hand it to those who wait; a second one for the same id changes nothing."""
    if message.id in state.results:
        return
    keep_s = message.options.keep_result_s if message.options is not None else 0.0
    kept = ResultKept(message.id, queue_name, value, now.wall + keep_s if keep_s > 0 else 0.0)
    state.results[message.id] = kept
    state.note(kept)
    if kept.until:
        watch_result(state, kept)
    for waiting in state.result_waits.pop(message.id, ()):
        state.unpark(waiting)
        _hand_over(state, waiting.session, waiting.rid, kept, waiting.forget)


def watch_result(state: State, kept: ResultKept) -> None:
    """Drop it when its time is over."""
    state.timers.at_wall(kept.until, lambda over, at: _drop(state, over), kept)


def refuse_waiting_results(state: State, message_id: str, code: str, text: str) -> None:
    """Those who wait for this result wait in vain."""
    for waiting in state.result_waits.pop(message_id, ()):
        state.unpark(waiting)
        state.fail(waiting.session, waiting.rid, code, text)


def _hand_over(state: State, session: Session, rid: int, kept: ResultKept, forget: bool) -> None:
    state.reply(session, Outcome(rid, kept.id, kept.queue, kept.value))
    if forget or not kept.until:
        _drop(state, kept)


def _drop(state: State, kept: ResultKept) -> None:
    if state.results.get(kept.id) is kept:
        del state.results[kept.id]
        state.note(ResultDropped(kept.id))
