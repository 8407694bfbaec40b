"""Parking: messages that no consumer here can run (an unknown task, another Python) wait for one that says it can.

A need is a word between producers and workers ("task:mail.send", "python:3.12"); the engine only compares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands._text import is_text
from manyhands.clock import Now
from manyhands.events import Offer
from manyhands.lifecycle.changes import Freed
from manyhands.lifecycle.queue import Entry, Queue
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.streams import know

if TYPE_CHECKING:
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.state import State

MAX_NEED_CHARS = 255
MAX_OFFERS = 10_000


def check_need(need: str) -> None:
    """Refuse what cannot name a need.

    Raises:
        Refused: "usage".
    """
    if not isinstance(need, str) or not 0 < len(need) <= MAX_NEED_CHARS or not is_text(need):
        raise Refused(
            "usage", f"what is parked needs something with a name of 1 to {MAX_NEED_CHARS} characters, not {need!r:.40}"
        )


def park(state: State, queue: Queue, entry: Entry, need: str, now: Now) -> None:
    """Keep an entry, charged nothing, until somebody offers what it needs. The caller has taken it out of its lease."""
    entry.deliveries -= 1
    queue.park(entry, need)
    if entry.message.kind and state.changes is None:
        know(state, queue, entry.message, entry)
    if state.changes is not None:
        history = list(entry.past.history) if entry.past is not None else []
        state.note(Freed(entry.n, entry.deliveries, entry.is_suspect, 0.0, history, need))
    state.wake(queue)


def offer(state: State, session: Session, request: Offer, now: Now) -> None:
    """What a session can run beside what everybody can."""
    if len(request.needs) > MAX_OFFERS:
        raise Refused("usage", f"a session offers at most {MAX_OFFERS} things, not {len(request.needs)}")
    session.offers = frozenset(request.needs)
    for queue in state.queues.values():
        if queue.parked:
            queue.has_news = True
            state.wake(queue)


def take(queue: Queue, session: Session, max_n: int) -> list[Entry]:
    """Parked entries that this session can run, oldest first for each need; a suspect comes alone."""
    taken: list[Entry] = []
    for need in [need for need in queue.parked if need in session.offers]:
        waiting = queue.parked[need]
        while waiting:
            entry = next(iter(waiting.values()))
            if entry.is_suspect and taken:
                return taken
            queue.unpark(entry)
            taken.append(entry)
            if entry.is_suspect or len(taken) == max_n:
                return taken
    return taken


def is_for(queue: Queue, session: Session) -> bool:
    """Whether something is parked here that this session can run."""
    return bool(session.offers) and any(need in session.offers for need in queue.parked)
