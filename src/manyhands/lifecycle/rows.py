"""From the changes of one batch to the rows that its transaction must touch: pure, no database here.

What a batch both makes and unmakes never reaches the disk: a message that was put, leased and acked between two commits
costs three dictionary look-ups and no row. What is left may then be written kind by kind (`store.Store.write`), because
for each row only the last word of its kind survives and the kinds are written in this order:

    queues → messages → freed → leased → buried → cut → produced → removed → the rest

A later change of one row that must win over an earlier one of another kind removes it here, so the order above and the
order in which the core reported the changes leave the same rows behind (held by a test against a row-by-row oracle).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from manyhands.lifecycle.changes import (
    Acked,
    Buried,
    Change,
    Counted,
    Cut,
    Forgotten,
    Freed,
    Leased,
    Marked,
    Produced,
    QueueSet,
    Remembered,
    Removed,
    ResultDropped,
    ResultKept,
    SessionSeen,
    Stored,
)


class Rows:
    """What is left of a batch's changes, one dictionary for each kind of row, keyed by the row's key."""

    __slots__ = (
        "acked",
        "buried",
        "counted",
        "cut",
        "dropped_ended",
        "dropped_results",
        "ended",
        "forgotten",
        "freed",
        "kept_results",
        "leased",
        "marked",
        "produced",
        "queues",
        "remembered",
        "removed",
        "sessions",
        "stored",
    )

    def __init__(self, changes: Iterable[Change] = ()) -> None:
        self.stored: dict[int, Stored] = {}
        self.freed: dict[int, Freed] = {}
        self.leased: dict[int, Leased] = {}
        self.buried: dict[int, Buried] = {}
        self.cut: dict[int, Cut] = {}
        self.produced: dict[int, list[str]] = {}
        self.removed: list[int] = []
        self.queues: dict[str, QueueSet] = {}
        self.counted: dict[str, Counted] = {}
        self.marked: dict[tuple[str, str], Marked] = {}
        self.sessions: dict[str, SessionSeen] = {}
        self.kept_results: dict[str, ResultKept] = {}
        self.dropped_results: set[str] = set()
        self.ended: dict[int, ResultKept] = {}
        self.dropped_ended: set[int] = set()
        self.acked: dict[str, int] = {}
        self.remembered: dict[str, Remembered] = {}
        self.forgotten: set[str] = set()
        self.add(changes)

    def __bool__(self) -> bool:
        return bool(self.stored) or any(getattr(self, name) for name in self.__slots__)

    def add(self, changes: Iterable[Change]) -> None:
        """Take more changes of the same batch in, in the order in which the core reported them."""
        stored, marked = self.stored, self.marked
        for change in changes:
            kind = type(change)
            if kind is Stored:  # what a batch of puts consists of
                stored[change.n] = change  # type: ignore[union-attr, assignment]
            elif kind is Marked:
                marked[change.session, change.stream] = change  # type: ignore[union-attr, assignment]
            else:
                _TAKE[kind](self, change)

    def _lease(self, change: Leased) -> None:
        self.leased[change.n] = change

    def _free(self, change: Freed) -> None:
        self.leased.pop(change.n, None)
        self.freed[change.n] = change

    def _bury(self, change: Buried) -> None:
        # A lease of the same batch stays: it carries the count. Burying is written after it and ends it.
        self.buried[change.n] = change

    def _produce(self, change: Produced) -> None:
        self.produced.setdefault(change.n, []).append(change.put_id)

    def _remove(self, change: Removed) -> None:
        n = change.n
        self.leased.pop(n, None)
        self.freed.pop(n, None)
        self.buried.pop(n, None)
        self.cut.pop(n, None)
        self.produced.pop(n, None)
        if self.stored.pop(n, None) is None:
            self.removed.append(n)

    def _set_queue(self, change: QueueSet) -> None:
        self.queues[change.queue] = change

    def _count(self, change: Counted) -> None:
        self.counted[change.queue] = change

    def _see(self, change: SessionSeen) -> None:
        self.sessions[change.session] = change

    def _cut_down(self, change: Cut) -> None:
        self.cut[change.n] = change

    def _acknowledge(self, change: Acked) -> None:
        # What ended in this same batch and was received already needs no row.
        for number in [number for number, kept in self.ended.items() if kept.stream == change.stream]:
            if number <= change.number:
                kept = self.ended.pop(number)
                if kept.until:
                    self.ended[number] = msgspec.structs.replace(kept, stream="")
        self.acked[change.stream] = change.number

    def _keep(self, change: ResultKept) -> None:
        if change.number:
            self.ended[change.number] = change
            return
        self.kept_results.setdefault(change.id, change)  # the first write wins, within a batch as across batches

    def _drop(self, change: ResultDropped) -> None:
        if change.number:
            if self.ended.pop(change.number, None) is None:
                self.dropped_ended.add(change.number)
            return
        self.kept_results.pop(change.id, None)
        self.dropped_results.add(change.id)  # written before the kept ones: a result kept after this stays

    def _remember(self, change: Remembered) -> None:
        self.remembered[change.id] = change

    def _forget(self, change: Forgotten) -> None:
        self.remembered.pop(change.id, None)
        self.forgotten.add(change.id)  # written before the remembered ones


_TAKE: dict[type[Any], Callable[[Rows, Any], None]] = {
    Leased: Rows._lease,
    Freed: Rows._free,
    Removed: Rows._remove,
    Buried: Rows._bury,
    Produced: Rows._produce,
    SessionSeen: Rows._see,
    ResultKept: Rows._keep,
    ResultDropped: Rows._drop,
    Remembered: Rows._remember,
    Forgotten: Rows._forget,
    QueueSet: Rows._set_queue,
    Counted: Rows._count,
    Cut: Rows._cut_down,
    Acked: Rows._acknowledge,
}
