"""Looking at queues, stopping them, and the care of dead letters."""

from __future__ import annotations

from itertools import islice

import msgspec

from manyhands.clock import Now
from manyhands.events import (
    Count,
    Create,
    DeadDrop,
    DeadLetters,
    DeadList,
    DeadRetry,
    Done,
    Drop,
    Invoke,
    Leave,
    Peek,
    Peeked,
    Purge,
    QueueInfo,
    Refer,
    ShutDown,
    Size,
    Stats,
    StatsReply,
    Unrefer,
)
from manyhands.lifecycle.changes import Removed, Stored
from manyhands.lifecycle.finishing import drop, forget
from manyhands.lifecycle.placing import enqueue
from manyhands.lifecycle.queue import GONE, Entry, Queue, calls_in
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.results import forget_result
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import know
from manyhands.lifecycle.waiting import WaitingLease
from manyhands.model import DeadLetter, SessionStats, public_id


def shut_down(state: State, session: Session, request: ShutDown, now: Now) -> None:
    """The broadcast stop."""
    queue = state.queue(request.queue)
    queue.is_shut_down = True
    if request.immediate:
        drop(state, queue, queue.clear(), "dropped: its queue was shut down", now)
    state.wake(queue)
    if request.rid:
        state.reply(session, Done(request.rid))


def create(state: State, session: Session, request: Create, now: Now) -> None:
    """A manager in front of the engine answers this one; here is none."""
    raise Refused(
        "unsupported_feature",
        f"no manager is in front of this engine, so it offers nothing under the name {request.typeid!r:.80}; "
        "use a queue by its name",
    )


def invoke(state: State, session: Session, request: Invoke | Refer | Unrefer, now: Now) -> None:
    """A manager in front of the engine answers this one; here is none."""
    raise Refused(
        "unsupported_feature", "no manager is in front of this engine, so it serves no objects; it has queues only"
    )


def nothing(state: State, session: Session, request: Drop | Leave, now: Now) -> None:
    """What only a manager would do something about; here is none."""


def size(state: State, session: Session, request: Size, now: Now) -> None:
    """One queue's numbers."""
    state.reply(session, QueueInfo(request.rid, state.queue(request.queue).stats()))


def stats(state: State, session: Session, request: Stats, now: Now) -> None:
    """The numbers of queues, and who is connected."""
    names = request.queues or sorted(state.queues)
    sessions = [
        SessionStats(
            id=public_id(one.id),
            name=one.name,
            is_connected=one.is_connected,
            attached_at=one.attached_at,
            leases=len(one.leases),
            waiting=sum(isinstance(waiting, WaitingLease) for waiting in one.parked.values()),
            progress=[told for token, told in one.told.items() if token in one.leases],
        )
        for one in state.sessions.values()
        if one.is_connected or one.leases
    ]
    queues = [state.queues[name].stats() for name in names if name in state.queues]
    state.reply(session, StatsReply(request.rid, queues, sessions, now.mono - state.opened_mono))


def peek(state: State, session: Session, request: Peek, now: Now) -> None:
    """Look without leasing."""
    queue = state.queues.get(request.queue)
    limit = _limit(request.limit)
    state.reply(session, Peeked(request.rid, list(islice(queue.soonest(limit), limit)) if queue else []))


def purge(state: State, session: Session, request: Purge, now: Now) -> None:
    """Drop everything ready or delayed."""
    queue = state.queue(request.queue)
    dropped = queue.clear()
    drop(state, queue, dropped, "purged", now)
    state.reply(session, Count(request.rid, len(dropped)))


def dead_list(state: State, session: Session, request: DeadList, now: Now) -> None:
    """Dead letters, newest first."""
    if request.queue:
        found = [state.queues[request.queue]] if request.queue in state.queues else []
    else:
        found = list(state.queues.values())
    ids = frozenset(request.ids)
    entries = [entry for queue in found for entry in queue.dead.values() if not ids or entry.message.id in ids]
    entries.sort(key=lambda entry: (entry.the_past().died_at, entry.n), reverse=True)
    letters = [_letter(entry) for entry in entries[: _limit(request.limit)]]
    state.reply(session, DeadLetters(request.rid, letters))


def _letter(entry: Entry) -> DeadLetter:
    past = entry.the_past()
    return DeadLetter(entry.queue, entry.message, past.died_at, past.reason, list(past.history))


def dead_retry(state: State, session: Session, request: DeadRetry, now: Now) -> None:
    """Dead letters back to the tail of their queue, with a fresh count."""
    queue, entries = _exhume(state, request.queue, request.ids)
    for entry in entries:
        message = entry.message
        options = message.options
        if options is not None and 0 < options.expires_at <= now.wall:  # whoever retries it wants it to run
            message = msgspec.structs.replace(message, options=msgspec.structs.replace(options, expires_at=0.0))
        fresh = Entry(state.numbers.take(), queue.name, message)
        state.note(Stored(fresh.n, queue.name, message))
        if message.kind:
            forget_result(state, message.id)
            know(state, queue, message, fresh)
        queue.unfinished += calls_in(message)
        enqueue(state, queue, fresh, now, message.due_at)
    state.count(queue)
    state.wake(queue)
    state.reply(session, Count(request.rid, len(entries)))


def dead_drop(state: State, session: Session, request: DeadDrop, now: Now) -> None:
    """Delete dead letters."""
    _, entries = _exhume(state, request.queue, request.ids)
    for entry in entries:
        if entry.message.options is not None and entry.message.options.dedupe:
            forget(state, entry.message.id)
    state.reply(session, Count(request.rid, len(entries)))


def _exhume(state: State, queue_name: str, ids: list[str]) -> tuple[Queue, list[Entry]]:
    """Take dead letters out of their place."""
    queue = state.queue(queue_name)
    wanted = frozenset(ids)
    entries = [entry for entry in queue.dead.values() if not wanted or entry.message.id in wanted]
    for entry in entries:
        del queue.dead[entry.n]
        entry.place = GONE
        state.buried.pop(entry.message.id, None)
        state.note(Removed(entry.n))
    return queue, entries


def _limit(limit: int) -> int:
    if limit < 0:
        raise Refused("usage", f"limit must not be negative, but is {limit}")
    return limit
