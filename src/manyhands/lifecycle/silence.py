"""When a session counts as lost, and what becomes of its leases then."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.lifecycle.packs import give_back
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State


def watch(state: State, session: Session, now: Now) -> None:
    """Look after a session that holds leases: they return when nothing was heard of it for lease_s."""
    if session.is_here and session.is_connected:
        return  # it lives as long as the engine does, and computes without a word
    session.is_watched = True
    due = session.last_heard + state.limits.lease_s if session.is_connected else session.away_until
    # Never in the past: what was just handed out has its whole time.
    state.timers.at_mono(max(due, now.mono), lambda over, at: _look(state, over, at), session)


def watch_away(state: State, session: Session, now: Now, away_s: float) -> None:
    """Its connection ended: its leases return when it has not come back within away_s."""
    session.away_until = now.mono + away_s
    if session.leases:
        # A timer of its own: the one for silence is due later.
        state.timers.at_mono(session.away_until, lambda over, at: _look(state, over, at), session)
        session.is_watched = True


def _look(state: State, session: Session, now: Now) -> None:
    session.is_watched = False
    if not session.leases or state.sessions.get(session.id) is not session:
        return
    due = session.last_heard + state.limits.lease_s if session.is_connected else session.away_until
    if now.mono < due:
        watch(state, session, now)
    elif session.is_connected:
        silent_s = now.mono - session.last_heard
        lose_leases(state, session, now, f"nothing was heard of it for {silent_s:.1f} s")
    else:
        lose_leases(state, session, now, "its connection ended and it did not come back")


def credit_stall(state: State, now: Now) -> None:
    """The engine itself did not run for a while: nobody could be heard, so everybody's time starts anew."""
    for session in state.sessions.values():
        session.last_heard = now.mono
        if not session.is_connected:
            session.away_until = max(session.away_until, now.mono + state.limits.resume_s)


def lose_leases(state: State, session: Session, now: Now, reason: str) -> None:
    """A consumer is lost: what it had begun is charged; all of it goes to the head and travels alone from now."""
    leases, session.leases = session.leases, {}
    if state.is_unfenced:
        state.expired.update(leases)
    for entry in leases.values():
        queue = state.queues[entry.queue]
        outcome = "lost" if entry.is_begun else ""
        queue.release(entry, session.id)
        give_back(state, queue, entry, now, consumer=session.name, outcome=outcome, reason=reason, is_suspect=True)


def return_leases(state: State, session: Session, now: Now) -> None:
    """A consumer ends on purpose: what it had begun is charged, the rest is not; no neighbour is suspected."""
    leases, session.leases = session.leases, {}
    for entry in leases.values():
        queue = state.queues[entry.queue]
        outcome, is_suspect = ("released", False) if entry.is_begun else ("", entry.is_suspect)
        queue.release(entry, session.id)
        give_back(state, queue, entry, now, consumer=session.name, outcome=outcome, reason="goodbye", is_suspect=is_suspect)
