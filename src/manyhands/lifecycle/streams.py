"""Streams: where the ends of calls go, in order, until who awaits them has acknowledged them.

```
 put ──> calls (unfinished) ──finish, bury, drop──> ended (numbered) ──Collected──> acked: forgotten, or kept by id
```

A stream is named by the `reply_to` of its messages. It lists their unfinished calls as well, so that a call is found by its
id without a look through a queue; those that want no stream are listed under the name "".

Numbers come from the engine's token counter, so those of an earlier life of the engine never fit a stream of this one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from manyhands._text import is_text
from manyhands.clock import Now
from manyhands.events import FOREVER, Collect, Collected
from manyhands.lifecycle.changes import Acked, ResultDropped, ResultKept
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.waiting import WaitingCollect
from manyhands.model import Ended, Message

if TYPE_CHECKING:
    from manyhands.lifecycle.queue import Entry, Queue
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.state import State

# At most so much in one Collected, so that the first of many results need not wait for the last.
_MAX_ENDED = 4096
_MAX_ENDED_BYTES = 4 * 1024 * 1024
MAX_STREAM_CHARS = 255


class Stream:
    """One stream of results, and the unfinished calls that will end in it."""

    __slots__ = ("calls", "ended", "id", "is_lost", "last", "orphan_at", "owner", "waiting")

    def __init__(self, stream_id: str, owner: str = "") -> None:
        self.id = stream_id
        self.owner = owner
        """The session that last collected it, or first put for it; "" after a restart, until somebody collects."""
        self.is_lost = False
        """Nobody will collect it: what ends is kept only if its message says for how long."""
        self.calls: dict[str, dict[str, Message | Entry]] = {}
        """Unfinished calls and tasks, by queue and id. A bare record is in a lane or leased; an Entry knows its place."""
        self.ended: deque[ResultKept] = deque()
        """What has not been acknowledged yet."""
        self.last = 0
        """The number of the newest end."""
        self.orphan_at = 0.0
        """Monotonic; when its unbegun calls are dropped, unless its owner is back by then."""
        self.waiting: WaitingCollect | None = None


def is_name(stream: object) -> bool:
    """Whether this can name a stream."""
    return isinstance(stream, str) and 0 < len(stream) <= MAX_STREAM_CHARS and is_text(stream)


def of(state: State, message: Message, owner: Session | None = None) -> Stream:
    """The stream of a message, made if it is new.

    Args:
        owner: who puts for it; None makes a new one lost, because nobody is known to await it.
    """
    name = message.options.reply_to if message.options is not None else ""
    stream = state.streams.get(name)
    if stream is None:
        stream = state.streams[name] = Stream(name, owner.id if owner is not None else "")
        stream.is_lost = owner is None
        if owner is not None:
            owner.streams.add(name)
    return stream


def know(state: State, queue: Queue, message: Message, item: Message | Entry, owner: Session | None = None) -> None:
    """List an unfinished call, so that it can be awaited and cancelled by its id."""
    options = message.options
    stream = state.streams.get(options.reply_to if options is not None else "") or of(state, message, owner)
    calls = stream.calls.get(queue.name)
    if calls is None:
        calls = stream.calls[queue.name] = {}
    calls[message.id] = item


def unknow(state: State, queue_name: str, message: Message) -> Stream | None:
    """A call is not unfinished any more; the stream that awaits its end."""
    options = message.options
    stream = state.streams.get(options.reply_to if options is not None else "")
    if stream is None:
        return None
    calls = stream.calls.get(queue_name)
    if calls is not None:
        calls.pop(message.id, None)
    if state.stopping:
        state.stopping.discard(message.id)
    if stream.is_lost:
        if not calls:
            drop_ended(state, stream)
        return None
    return stream if stream.id else None


def find(state: State, message_id: str) -> tuple[str, Message | Entry] | None:
    """(queue's name, message) of the unfinished call or pack with this id."""
    for stream in state.streams.values():
        for name, calls in stream.calls.items():
            item = calls.get(message_id)
            if item is not None:
                return name, item
    return None


def awaiting(state: State, message: Message) -> Stream | None:
    """The stream that awaits the end of this message, or of calls of it; None: nobody does."""
    name = message.options.reply_to if message.options is not None else ""
    stream = state.streams.get(name) if name else None
    return None if stream is None or stream.is_lost else stream


def append(state: State, stream: Stream, kept: ResultKept) -> None:
    """One more end, for who collects."""
    stream.ended.append(kept)
    stream.last = kept.number
    if stream.waiting is not None:
        state.collected[stream] = None


def collect(state: State, session: Session, request: Collect, now: Now) -> None:
    """Take note of what has arrived, and send what is there or comes next."""
    stream = state.streams.get(request.stream) if request.stream else None
    if request.wait_s != FOREVER:
        check_wait(request.wait_s)
    if request.rid < 1 or (stream is None and not is_name(request.stream)):
        raise Refused(
            "usage",
            f"a Collect needs a rid, and a stream's name is a text of 1 to {MAX_STREAM_CHARS} characters, "
            f"not {request.stream!r:.80}",
        )
    if stream is None:
        stream = state.streams[request.stream] = Stream(request.stream)
    if stream.owner != session.id:
        if (before := state.sessions.get(stream.owner)) is not None:
            before.streams.discard(stream.id)
        stream.owner = session.id
        session.streams.add(stream.id)
    stream.is_lost = False
    _acknowledge(state, stream, request.ack)
    if stream.waiting is not None:
        # Only a client that asks twice, or comes back before its old connection was seen to end, has another one.
        answer(state, stream.waiting)
    if stream.ended or request.wait_s == 0:
        state.effects.append((session.id, _collected(stream, request.rid, request.ack)))
        return
    waiting = WaitingCollect(session, request.rid, stream, request.ack)
    state.park(waiting)
    stream.waiting = waiting
    if request.wait_s > 0:
        waiting.has_timer = True
        state.timers.at_mono(now.mono + request.wait_s, lambda over, at: answer(state, over), waiting)


def serve(state: State, stream: Stream, now: Now) -> None:
    """Answer who waits for this stream, if something has ended."""
    if stream.waiting is not None and stream.ended:
        stream.waiting.session.last_heard = now.mono
        answer(state, stream.waiting)


def answer(state: State, waiting: WaitingCollect) -> None:
    """End the wait of a Collect, with what there is."""
    withdraw(state, waiting)
    state.effects.append((waiting.session.id, _collected(waiting.stream, waiting.rid, waiting.ack)))


def withdraw(state: State, waiting: WaitingCollect) -> None:
    """Nobody is there to hear it."""
    state.unpark(waiting)
    waiting.stream.waiting = None


def _collected(stream: Stream, rid: int, ack: int) -> Collected:
    ended: list[Ended] = []
    size_bytes, number = 0, ack
    for kept in stream.ended:
        value = kept.value
        if value is not None:
            size_bytes += len(value)
            if size_bytes > _MAX_ENDED_BYTES and ended:
                break
        ended.append(Ended(kept.id, value, kept.first, kept.n or 1, kept.code, kept.text))
        number = kept.number
        if len(ended) == _MAX_ENDED:
            break
    return Collected(rid, number, ended)


def _acknowledge(state: State, stream: Stream, ack: int) -> None:
    ended = stream.ended
    if not ended or not ended[0].number <= ack <= stream.last:
        return  # nothing, or a number of an earlier life of this engine
    results = state.results
    while ended and ended[0].number <= ack:
        kept = ended.popleft()
        if not kept.until:
            if kept.n:
                forget_piece(state, kept)
            elif results.get(kept.id) is kept:
                del results[kept.id]
    state.note(Acked(stream.id, ack))


def is_acked(state: State, kept: ResultKept) -> bool:
    """Whether no stream will send this (again)."""
    stream = state.streams.get(kept.stream) if kept.stream else None
    return stream is None or not stream.ended or kept.number < stream.ended[0].number


def forget_piece(state: State, kept: ResultKept) -> None:
    """A result of a pack's calls is not kept by id any more."""
    pieces = state.pieces.get(kept.id)
    if pieces is not None and kept in pieces:
        pieces.remove(kept)
        if not pieces:
            del state.pieces[kept.id]


def drop_ended(state: State, stream: Stream) -> None:
    """Nobody will collect this stream: forget it, but for what is kept by id."""
    stream.is_lost = True
    _acknowledge(state, stream, stream.last)
    if not any(stream.calls.values()) and stream.waiting is None and stream.id:
        state.streams.pop(stream.id, None)


def note_dropped(state: State, kept: ResultKept) -> None:
    """A kept result is gone from every place."""
    state.note(ResultDropped(kept.id, kept.number))
