"""The ends of a message: done, dropped, or dead. Each is one step with everything that follows from it."""

from __future__ import annotations

from collections.abc import Sequence

from manyhands.clock import Now
from manyhands.lifecycle.changes import Buried, Forgotten, Remembered, Removed
from manyhands.lifecycle.queue import DEAD, GONE, LEASED, Entry, Queue, calls_in
from manyhands.lifecycle.results import end_without, store_result
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import unknow
from manyhands.model import Attempt, Message


def finish(state: State, queue: Queue, entry: Entry, result: bytes | None, now: Now) -> None:
    """An acked entry is gone, its result (if any) kept in the same step. The caller has taken it out of its lease.

    Not for packs, see packs.py.
    """
    message, options = entry.message, entry.message.options
    entry.place = GONE
    queue.done_total += 1
    if state.changes is not None:
        state.note(Removed(entry.n))
        state.count(queue)
    if options is not None and options.dedupe:
        remember(state, message, now)
    stream = unknow(state, queue.name, message) if message.kind else None
    if result is not None:
        store_result(state, queue.name, message, result, stream, now)
    elif message.kind:
        text = f"message {message.id} was finished without a result"
        end_without(state, queue.name, message, "unknown_id", text, stream)


def leave(state: State, queue: Queue, entry: Entry, reason: str) -> None:
    """A message is at another engine now: gone from here, and its id may be put here again. The caller has taken it out of
    its lease.

    Nothing is stored by its id, or the result that it comes to should it be moved back would find the place taken.

    Args:
        reason: for those who wait for its result here: where it is now.
    """
    message, options = entry.message, entry.message.options
    entry.place = GONE
    state.note(Removed(entry.n))
    less_unfinished(state, queue, 1)
    if options is not None and options.dedupe:
        forget(state, message.id)
    if message.kind:
        text = reason or f"message {message.id} was moved to another engine"
        end_without(state, queue.name, message, "task_moved", text, unknow(state, queue.name, message))


def death_code(history: Sequence[Attempt]) -> str:
    """What those who wait for a dead letter's result are told, as errors.from_code's."""
    return "worker_crashed" if history and history[-1].outcome == "lost" else "task"


def bury(
    state: State,
    queue: Queue,
    entry: Entry,
    reason: str,
    now: Now,
    result: bytes | None = None,
    *,
    is_heard: bool = False,
) -> None:
    """An entry becomes a dead letter, kept with its history.

    Args:
        result: its last attempt's error, for those who wait.
        is_heard: they were told otherwise.
    """
    message = entry.message
    n = calls_in(message)
    past = entry.the_past()
    past.died_at, past.reason = now.wall, reason
    entry.place = DEAD
    queue.dead[entry.n] = entry
    queue.dead_total += n
    less_unfinished(state, queue, n)
    state.note(Buried(entry.n, now.wall, reason, list(past.history)))
    if message.kind:
        stream = unknow(state, queue.name, message)
        code = death_code(past.history)
        state.buried[message.id] = code, reason
        n = n if n > 1 else 0
        if result is not None:
            store_result(state, queue.name, message, result, stream, now, 0, n)
        elif not is_heard:
            text = f"message {message.id} became a dead letter: {reason}"
            end_without(state, queue.name, message, code, text, stream, 0, n)
    elif result is not None:
        store_result(state, queue.name, message, result, None, now)


def drop(
    state: State, queue: Queue, dropped: Sequence[Message | Entry], why: str, now: Now, code: str = "unknown_id"
) -> None:
    """Forget messages that were purged, cancelled or expired; the caller has taken them out of the order."""
    n = 0
    text = f"the call was {why}"  # one for all of them: a stream may keep many for a day
    for item in dropped:
        message = item
        if isinstance(item, Entry):
            message = item.message
            item.place = GONE
            state.note(Removed(item.n))
        assert isinstance(message, Message)
        if message.options is not None and message.options.dedupe:
            forget(state, message.id)
        calls = calls_in(message)
        n += calls
        if message.kind:
            stream = unknow(state, queue.name, message)
            end_without(state, queue.name, message, code, text, stream, 0, calls if calls > 1 else 0)
    less_unfinished(state, queue, n)
    state.wake(queue)


def expire(state: State, entry: Entry, now: Now) -> None:
    """Drop an entry whose time is over, unless somebody works on it or it ended before."""
    if entry.place not in (DEAD, GONE, LEASED):
        queue = state.queues[entry.queue]
        queue.drop(entry)
        drop(state, queue, [entry], "dropped: it expired before anybody took it", now)


def less_unfinished(state: State, queue: Queue, n: int) -> None:
    """Count n entries as finished; join ends at 0."""
    queue.unfinished = max(0, queue.unfinished - n)
    if state.changes is not None:
        state.count(queue)
    if queue.joining and not queue.unfinished:
        state.dirty[queue] = None


def remember(state: State, message: Message, now: Now) -> None:
    """A message with a caller-given id is complete: drop further puts of it for dedupe_s."""
    until = now.wall + state.limits.dedupe_s
    state.known[message.id] = until
    state.remembered.append((until, message.id))
    if len(state.remembered) == 1:
        state.timers.at_wall(until, lambda _, at: forget_old(state, at), None)
    state.note(Remembered(message.id, until))


def forget_old(state: State, now: Now) -> None:
    """Forget the caller-given ids whose time is over."""
    remembered = state.remembered
    while remembered and remembered[0][0] <= now.wall:
        until, message_id = remembered.popleft()
        if state.known.get(message_id) == until:
            forget(state, message_id)
    if remembered:
        state.timers.at_wall(remembered[0][0], lambda _, at: forget_old(state, at), None)


def forget(state: State, message_id: str) -> None:
    """A caller-given id may be put again."""
    if state.known.pop(message_id, None) is not None:
        state.note(Forgotten(message_id))
