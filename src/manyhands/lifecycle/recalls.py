"""Asking busy holders for what they have not begun, so that nobody is idle or told `Empty` while work lies prefetched."""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands.clock import Now
from manyhands.events import Recall
from manyhands.lifecycle.queue import Queue, is_divisible

if TYPE_CHECKING:
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.state import State

_AGAIN_S = 0.05
"""A call that runs longer is a long one: what waits behind it in its pack goes to others."""


def arm(state: State, queue: Queue, now: Now) -> None:
    """See to it that holders are asked once somebody has waited recall_after_s."""
    if queue.waiting and (queue.unbegun or queue.children) and not queue.is_recall_armed:
        _arm(state, queue, now, state.limits.recall_after_s)


def arm_again(state: State, queue: Queue, now: Now) -> None:
    """A parent had nothing to give back; ask again a little later, when its child may be in the middle of a long call."""
    if queue.waiting and (queue.unbegun or queue.children) and not queue.is_recall_armed:
        _arm(state, queue, now, max(_AGAIN_S, state.limits.recall_after_s))


def _arm(state: State, queue: Queue, now: Now, after_s: float) -> None:
    queue.is_recall_armed = True
    state.timers.at_mono(now.mono + after_s, lambda over, at: _due(state, over, at), queue)


def ask(state: State, queue: Queue, now: Now) -> None:
    """Ask each holder for its fair share of what it has not begun; one question at a time for each.

    A child is asked through its parent, and for whatever may lie behind the call that it runs: the parent sees how far the
    child has come.
    """
    if not queue.unbegun and not queue.children:
        return
    # One with begin_n 0 only asks for what lies ready: nobody waits behind it.
    waits = [waiting for waiting in queue.waiting if waiting.begin_n]
    waiting_n = len(waits)
    holders: list[tuple[Session, int, Session | None]] = []
    for session_id in {**queue.unbegun_by, **queue.children} if queue.children else queue.unbegun_by:
        session = state.sessions.get(session_id)
        if session is None or not session.is_connected:
            queue.children.pop(session_id, None)
            continue
        if queue.recalls.get(session_id, 0.0) > now.mono:
            continue
        parent = state.sessions.get(session.parent) if session.parent else None
        held = queue.unbegun_by.get(session_id, 0)
        if parent is not None and parent.is_connected:
            held = max(held, _behind_the_first(session, queue))
        else:
            parent = None
        if held and any(waiting.session is not session for waiting in waits):
            holders.append((session, held, parent))
    for session, held, parent in holders:
        session.recalled.add(queue.name)
        queue.recalls[session.id] = now.mono + state.limits.recall_answer_s
        share = -(-held * waiting_n // (waiting_n + len(holders)))
        if parent is None:
            state.effects.append((session.id, Recall(queue.name, share)))
        else:
            state.effects.append((parent.id, Recall(queue.name, share, session.id)))


def _behind_the_first(session: Session, queue: Queue) -> int:
    """How many of a child's leases its parent may give something back of: all but the one that runs, and packs."""
    leases = session.leases
    if len(leases) > 1:
        return sum(entry.queue == queue.name for entry in leases.values())
    return sum(entry.queue == queue.name and is_divisible(entry) for entry in leases.values())


def is_pending(queue: Queue, session: Session, now: Now) -> bool:
    """Whether an answer from somebody else is still to come."""
    return any(asked != session.id and due > now.mono for asked, due in queue.recalls.items())


def _due(state: State, queue: Queue, now: Now) -> None:
    queue.is_recall_armed = False
    ask(state, queue, now)
