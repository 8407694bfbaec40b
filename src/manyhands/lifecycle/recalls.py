"""Asking busy holders for what they have not begun, so that nobody is idle or told `Empty` while work lies prefetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands.clock import Now
from manyhands.events import Recall
from manyhands.lifecycle.queue import Queue

if TYPE_CHECKING:
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.state import State


def arm(state: State, queue: Queue, now: Now) -> None:
    """See to it that holders are asked once somebody has waited recall_after_s."""
    if queue.waiting and queue.unbegun and not queue.is_recall_armed:
        queue.is_recall_armed = True
        state.timers.at_mono(now.mono + state.limits.recall_after_s, lambda over, at: _due(state, over, at), queue)


def ask(state: State, queue: Queue, now: Now) -> None:
    """Ask each holder for its fair share of what it has not begun; one question at a time for each."""
    if not queue.unbegun:
        return
    # One with begin_n 0 only asks for what lies ready: nobody waits behind it.
    waits = [waiting for waiting in queue.waiting if waiting.begin_n]
    waiting_n = len(waits)
    holders = [
        (session, held)
        for session_id, held in queue.unbegun_by.items()
        if queue.recalls.get(session_id, 0.0) <= now.mono
        and (session := state.sessions.get(session_id)) is not None
        and session.is_connected
        and any(waiting.session is not session for waiting in waits)
    ]
    for session, held in holders:
        session.recalled.add(queue.name)
        queue.recalls[session.id] = now.mono + state.limits.recall_answer_s
        share = -(-held * waiting_n // (waiting_n + len(holders)))
        state.effects.append((session.id, Recall(queue.name, share)))


def is_pending(queue: Queue, session: Session, now: Now) -> bool:
    """Whether an answer from somebody else is still to come."""
    return any(asked != session.id and due > now.mono for asked, due in queue.recalls.items())


def _due(state: State, queue: Queue, now: Now) -> None:
    queue.is_recall_armed = False
    ask(state, queue, now)
