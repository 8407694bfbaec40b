"""Sessions come, go, come back and end."""

from __future__ import annotations

from collections.abc import Sequence

from manyhands._text import NAME_CHARS, REASON_CHARS, readable
from manyhands.clock import Now
from manyhands.events import Attach, Done, Goodbye, Ping, Pong, ReportDead, Withdraw
from manyhands.lifecycle import cancelling, leases, parents, puts, recalls, results, settling, streams
from manyhands.lifecycle.changes import SessionSeen
from manyhands.lifecycle.packs import give_back
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.silence import lose_leases, return_leases, watch, watch_away
from manyhands.lifecycle.state import State
from manyhands.lifecycle.waiting import Waiting, WaitingCollect, WaitingJoin, WaitingLease, WaitingPut, WaitingResult


def attach(state: State, request: Attach, now: Now) -> tuple[bool, list[int]]:
    """Open or resume a session; whether it was still known, and which of the tokens it holds are lost."""
    session = state.sessions.get(request.session)
    is_known = session is not None
    name = readable(request.name, NAME_CHARS)
    if session is None:
        session = state.sessions[request.session] = Session(request.session, name)
    elif session.is_connected:
        # It comes back before its old connection was seen to end.
        _withdraw_all(state, session)
    session.name = name or session.name
    session.is_connected = True
    session.is_here = request.is_here
    session.parent = parents.check_parent(request.session, request.parent)
    session.attached_at = now.wall
    session.last_heard = now.mono
    state.note(SessionSeen(session.id, session.name, 0.0))
    held = request.held or ()
    lost = [token for token in held if token not in session.leases]
    _release_unheld(state, session, held, now)
    if session.leases:
        watch(state, session, now)
        for name in {entry.queue for entry in session.leases.values() if session.parent or not entry.is_begun}:
            if session.parent:
                state.queues[name].children[session.id] = None
            recalls.arm(state, state.queues[name], now)
    return is_known and request.held is not None, lost


def _release_unheld(state: State, session: Session, held: Sequence[int], now: Now) -> None:
    """What was granted to it and never arrived goes back, charged nothing."""
    kept = frozenset(held)
    for token in [token for token in session.leases if token not in kept]:
        entry = session.leases.pop(token)
        queue = state.queues[entry.queue]
        queue.release(entry, session.id)
        give_back(state, queue, entry, now, is_suspect=entry.is_suspect)


def detach(state: State, session: Session, now: Now, *, is_dead: bool, reason: str = "its process died") -> None:
    """Its connection ended. What it waited for is withdrawn: a message must never be handed to nobody."""
    _withdraw_all(state, session)
    session.is_connected = False
    state.note(SessionSeen(session.id, session.name, now.wall))
    _answer_nothing(state, session)
    if is_dead:
        lose_leases(state, session, now, reason)
    else:
        watch_away(state, session, now, state.limits.resume_s)
    cancelling.watch_streams(state, session, now)
    watch_ended(state, session, now.wall)


def watch_ended(state: State, session: Session, ended_at: float) -> None:
    """Forget a session that has not come back for watermark_kept_s."""
    session.ended_at = ended_at
    state.timers.at_wall(ended_at + state.limits.watermark_kept_s, lambda over, at: _forget(state, over, at), session)


def _forget(state: State, session: Session, now: Now) -> None:
    is_over = session.ended_at + state.limits.watermark_kept_s <= now.wall
    if is_over and not session.is_connected and not session.leases and state.sessions.get(session.id) is session:
        del state.sessions[session.id]
        for name in list(session.streams):
            if (stream := state.streams.get(name)) is not None:
                streams.drop_ended(state, stream)


def goodbye(state: State, session: Session, request: Goodbye, now: Now) -> None:
    """It ends for good."""
    _withdraw_all(state, session)
    return_leases(state, session, now)
    session.is_connected = False
    del state.sessions[session.id]
    for name in list(session.streams):
        if (stream := state.streams.get(name)) is not None:
            streams.drop_ended(state, stream)
    cancelling.watch_streams(state, session, now)
    _answer_nothing(state, session)
    state.note(SessionSeen(session.id, session.name, now.wall))


def report_dead(state: State, session: Session, request: ReportDead, now: Now) -> None:
    """A parent saw its child die."""
    dead = state.sessions.get(request.session)
    if dead is session:
        raise Refused("usage", "a session cannot report itself dead; say goodbye")
    if dead is not None:
        reason = readable(request.reason, REASON_CHARS) or "its parent reported it dead"
        if request.token or request.is_idle:
            parents.end_running(state, dead, request, reason, now)
        detach(state, dead, now, is_dead=True, reason=reason)
    if request.rid:
        state.reply(session, Done(request.rid))


def ping(state: State, session: Session, request: Ping, now: Now) -> None:
    """Having been heard is all that a heartbeat is for."""
    if request.rid:
        state.reply(session, Pong(request.rid))


def withdraw(state: State, session: Session, request: Withdraw, now: Now) -> None:
    """End the wait of a parked request now."""
    waiting = session.parked.get(request.target)
    if isinstance(waiting, WaitingLease):
        leases.answer_empty(state, waiting)
    elif isinstance(waiting, WaitingPut):
        puts.refuse_waiting(state, waiting, now)
    elif isinstance(waiting, WaitingJoin):
        settling.answer_join(state, waiting)
    elif isinstance(waiting, WaitingResult):
        results.end_waiting(state, waiting)
    elif isinstance(waiting, WaitingCollect):
        streams.answer(state, waiting)


def _answer_nothing(state: State, session: Session) -> None:
    """It will not answer its recalls; nobody shall wait for that."""
    for name in session.recalled:
        queue = state.queues[name]
        queue.recalls.pop(session.id, None)
        state.wake(queue)
    session.recalled.clear()


def _withdraw_all(state: State, session: Session) -> None:
    waiting: Waiting
    for waiting in list(session.parked.values()):
        if isinstance(waiting, WaitingLease):
            leases.leave(state, waiting)
        elif isinstance(waiting, WaitingPut):
            puts.withdraw_waiting(state, waiting)
        elif isinstance(waiting, WaitingJoin):
            settling.withdraw_join(state, waiting)
        elif isinstance(waiting, WaitingResult):
            results.withdraw_waiting(state, waiting)
        elif isinstance(waiting, WaitingCollect):
            streams.withdraw(state, waiting)
