"""What the log holds: entries of rows, each the whole last word on its key. Pure.

The log is all there is: no table lies beside it. So an entry never says what changed in a row, but what the row is now;
then the newest entry that names a key is the only one that counts, older ones are garbage, and the log may lose its head
as soon as nothing in it is anybody's last word (`image.py` counts that).

A removal is no row and keeps nothing alive: the log loses entries only from its head, so what a removal takes back is gone
before the removal is.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from manyhands.lifecycle.changes import (
    Acked,
    Counted,
    Marked,
    QueueSet,
    Remembered,
    ResultKept,
    SessionSeen,
    Snapshot,
    Stored,
    StoredMessage,
)
from manyhands.model import Attempt, Limits

FORMAT = 1


class Condition(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """How a message stands that is not simply waiting. The fields are those of `changes.StoredMessage`."""

    n: int
    deliveries: int = 0
    is_suspect: bool = False
    due_at: float = 0.0
    token: int = 0
    session: str = ""
    need: str = ""
    first: int = 0
    end: int = 0
    died_at: float = 0.0
    reason: str = ""
    history: list[Attempt] = []


class QueueRow(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A queue: its bound and its counters."""

    name: str
    maxsize: int = 0
    unfinished: int = 0
    put_total: int = 0
    done_total: int = 0
    redelivered_total: int = 0
    dead_total: int = 0


class Entry(msgspec.Struct, array_like=True):
    """One append: who wrote it, and rows. Fields are only ever added at the end, with a default."""

    format: int
    owner: str
    """Of the program that wrote it, in that term."""
    term: int
    """Counts the owners of the space: the first entry of each is its claim."""
    next_n: int
    """No message or result is numbered so high yet."""
    # Taken back first, …
    dropped_results: list[str] = []
    acked: list[Acked] = []
    dropped_ended: list[int] = []
    forgotten: list[str] = []
    dropped_sessions: list[str] = []
    """With their watermarks."""
    # … then written, …
    messages: list[Stored] = []
    conditions: list[Condition] = []
    produced: list[tuple[int, list[str]]] = []
    queues: list[QueueRow] = []
    marks: list[Marked] = []
    sessions: list[SessionSeen] = []
    results: list[ResultKept] = []
    remembered: list[Remembered] = []
    limits: Limits | None = None
    # … and last of all:
    removed: list[int] = []
    """Messages, with their conditions and what was produced under them."""
    shut: list[str] | None = None
    """The queues that are shut down, for as long as one owner follows another; None: as before."""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Entry).decode


class Expired(NamedTuple):
    """What is dropped when a log is read, because its time ran out while nobody looked."""

    sessions: list[str]
    remembered: list[str]
    results: list[str]
    ended: list[int]


class Content:
    """All rows of a log, while it is read."""

    def __init__(self) -> None:
        self.term = 0
        self.next_n = 1
        self.limits: Limits | None = None
        self.shut: list[str] = []
        self._messages: dict[int, Stored] = {}
        self._conditions: dict[int, Condition] = {}
        self._produced: dict[int, list[str]] = {}
        self._queues: dict[str, QueueRow] = {}
        self._marks: dict[tuple[str, str], Marked] = {}
        self._sessions: dict[str, SessionSeen] = {}
        self._results: dict[str, ResultKept] = {}
        self._ended: dict[int, ResultKept] = {}
        self._remembered: dict[str, Remembered] = {}

    def add(self, entry: Entry) -> None:
        """Take the next entry in."""
        self.term, self.next_n = entry.term, entry.next_n
        self.limits = entry.limits or self.limits
        self.shut = self.shut if entry.shut is None else entry.shut
        for id_ in entry.dropped_results:
            self._results.pop(id_, None)
        for acked in entry.acked:
            self._acknowledge(acked)
        for number in entry.dropped_ended:
            self._ended.pop(number, None)
        for id_ in entry.forgotten:
            self._remembered.pop(id_, None)
        self._forget_sessions(entry.dropped_sessions)
        for stored in entry.messages:
            self._messages[stored.n] = stored
        for condition in entry.conditions:
            self._conditions[condition.n] = condition
        for n, ids in entry.produced:
            self._produced.setdefault(n, []).extend(ids)
        for queue in entry.queues:
            self._queues[queue.name] = queue
        for marked in entry.marks:
            self._marks[marked.session, marked.stream] = marked
        for seen in entry.sessions:
            self._sessions[seen.session] = seen
        for result in entry.results:
            if result.number:
                self._ended[result.number] = result
            else:
                self._results[result.id] = result
        for remembered in entry.remembered:
            self._remembered[remembered.id] = remembered
        for n in entry.removed:
            self._messages.pop(n, None)
            self._conditions.pop(n, None)
            self._produced.pop(n, None)

    def _acknowledge(self, acked: Acked) -> None:
        for number, kept in [(n, kept) for n, kept in self._ended.items() if kept.stream == acked.stream]:
            if number <= acked.number:
                if kept.until:
                    self._ended[number] = msgspec.structs.replace(kept, stream="")
                else:
                    del self._ended[number]

    def _forget_sessions(self, sessions: list[str]) -> None:
        over = set(sessions)
        for session in over:
            self._sessions.pop(session, None)
        if over:
            for key in [key for key in self._marks if key[0] in over]:
                del self._marks[key]

    def drop_expired(self, wall: float, *, watermark_kept_s: float) -> Expired:
        """Drop what has run out by now (UTC seconds)."""
        expired = Expired(
            [one.session for one in self._sessions.values() if 0 < one.ended_at < wall - watermark_kept_s],
            [one.id for one in self._remembered.values() if one.until < wall],
            [one.id for one in self._results.values() if 0 < one.until < wall],
            [one.number for one in self._ended.values() if not one.stream and 0 < one.until < wall],
        )
        self._forget_sessions(expired.sessions)
        for id_ in expired.remembered:
            del self._remembered[id_]
        for id_ in expired.results:
            del self._results[id_]
        for number in expired.ended:
            del self._ended[number]
        return expired

    def snapshot(self) -> Snapshot:
        """The same for a new core."""
        untouched = Condition(0)
        messages = []
        for n in sorted(self._messages):
            stored, c = self._messages[n], self._conditions.get(n, untouched)
            messages.append(
                StoredMessage(
                    n=n,
                    queue=stored.queue,
                    message=stored.message,
                    deliveries=c.deliveries,
                    is_suspect=c.is_suspect,
                    due_at=c.due_at,
                    token=c.token,
                    session=c.session,
                    produced=tuple(self._produced.get(n, ())),
                    history=c.history,
                    died_at=c.died_at,
                    reason=c.reason,
                    need=c.need,
                    first=c.first,
                    end=c.end,
                )
            )
        queues = list(self._queues.values())
        return Snapshot(
            queues=[QueueSet(q.name, q.maxsize) for q in queues],
            counters=[
                Counted(q.name, q.unfinished, q.put_total, q.done_total, q.redelivered_total, q.dead_total) for q in queues
            ],
            messages=messages,
            watermarks=list(self._marks.values()),
            sessions=list(self._sessions.values()),
            results=[*self._results.values(), *(self._ended[number] for number in sorted(self._ended))],
            remembered=list(self._remembered.values()),
            next_n=self.next_n,
        )
