"""Which entry of the log has the last word on what, so that the log's head can be given up. Pure.

```
   log:   [3 of 40 rows live] [0 live] [12 of 12 live] … [tail]
           └ copied to the tail when the log is more than twice what lives in it, then purged with the dead one behind it
```
The owner folds what a batch left behind (`lifecycle.rows.Rows`) into entries here, before they are appended; if the
append is refused, the owner is none any more and this is thrown away.
"""

from __future__ import annotations

from collections import deque
from typing import Any, TypeVar

import msgspec

from manyhands.engines.nats.entries import FORMAT, Condition, Entry, Expired, QueueRow
from manyhands.lifecycle.changes import Acked, ResultKept
from manyhands.lifecycle.rows import Rows

SLACK_BYTES = 1024 * 1024
"""So much garbage costs nothing worth cleaning for."""
_OVERHEAD_BYTES = 160  # what JetStream keeps of a message beside its body: record, subject, headers
_PLAIN = Condition(0)
_NO_QUEUE = QueueRow("")

K = TypeVar("K")


class Group:
    """The appends that carry one entry."""

    __slots__ = ("first", "last", "live", "row_bytes", "rows", "size_bytes")

    def __init__(self) -> None:
        self.first = self.last = 0
        self.rows = 0
        self.live = 0
        self.size_bytes = 0
        self.row_bytes = 0.0


class Image:
    """The index over the log of one space, and what is needed to write whole rows."""

    def __init__(self) -> None:
        self.groups: deque[Group] = deque()
        self.log_bytes = 0
        self.live_bytes = 0.0
        self.dead_bytes = 0
        """Given up by `dead_head` since somebody last set this to zero."""
        self._messages: dict[int, Group] = {}
        self._condition_at: dict[int, Group] = {}
        self._produced: dict[int, dict[str, Group]] = {}
        self._queue_at: dict[str, Group] = {}
        self._marks: dict[str, dict[str, Group]] = {}
        self._sessions: dict[str, Group] = {}
        self._results: dict[str, Group] = {}
        self._ended: dict[int, Group] = {}
        self._remembered: dict[str, Group] = {}
        self._single: dict[str, Group] = {}
        """Rows of which there is one: "limits", "shut"."""
        # The rows themselves where a later change tells only a part of them.
        self._conditions: dict[int, Condition] = {}
        self._queues: dict[str, QueueRow] = {}
        self._ended_at: dict[str, float] = {}
        self._streams: dict[str, dict[int, float]] = {}
        """Of each stream the numbers that it awaits, with how long they are kept in any case."""
        self._received: set[int] = set()
        """Of those that are kept by id: received by their stream, which their row still names."""

    # -- from a batch to an entry

    def fold(self, rows: Rows, owner: str, term: int, next_n: int) -> Entry:
        """The entry for what a batch left behind."""
        entry = Entry(
            FORMAT,
            owner,
            term,
            next_n,
            dropped_results=list(rows.dropped_results),
            dropped_ended=list(rows.dropped_ended),
            forgotten=list(rows.forgotten),
            messages=list(rows.stored.values()),
            marks=list(rows.marked.values()),
            sessions=list(rows.sessions.values()),
            remembered=list(rows.remembered.values()),
            removed=rows.removed,
        )
        if rows.acked:
            entry.acked = [Acked(stream, number) for stream, number in rows.acked.items()]
        if rows.freed or rows.leased or rows.buried or rows.cut:
            entry.conditions = self._fold_conditions(rows)
        if rows.produced:
            entry.produced = list(rows.produced.items())
        if rows.queues or rows.counted:
            entry.queues = self._fold_queues(rows)
        if rows.kept_results or rows.ended:
            new = [k for k in rows.kept_results.values() if k.id not in self._results or k.id in rows.dropped_results]
            entry.results = [*new, *rows.ended.values()]
        return entry

    def _fold_conditions(self, rows: Rows) -> list[Condition]:
        known, folded = self._conditions, dict[int, Condition]()

        def now(n: int) -> Condition:
            return folded.get(n) or known.get(n) or _PLAIN

        for freed in rows.freed.values():
            was = now(freed.n)
            folded[freed.n] = Condition(
                freed.n,
                freed.deliveries,
                freed.is_suspect,
                freed.due_at,
                need=freed.need,
                first=was.first,
                end=was.end,
                history=freed.history,
            )
        for leased in rows.leased.values():
            was = now(leased.n)
            folded[leased.n] = Condition(
                leased.n,
                leased.deliveries,
                was.is_suspect,
                token=leased.token,
                session=leased.session,
                first=was.first,
                end=was.end,
                history=was.history,
            )
        replace = msgspec.structs.replace
        for buried in rows.buried.values():
            folded[buried.n] = replace(
                now(buried.n),
                n=buried.n,
                died_at=buried.died_at,
                reason=buried.reason,
                history=buried.history,
                token=0,
                session="",
            )
        for cut in rows.cut.values():
            folded[cut.n] = replace(now(cut.n), n=cut.n, first=cut.first, end=cut.end)
        return list(folded.values())

    def _fold_queues(self, rows: Rows) -> list[QueueRow]:
        folded: dict[str, QueueRow] = {}
        for change in rows.queues.values():
            was = self._queues.get(change.queue, _NO_QUEUE)
            folded[change.queue] = msgspec.structs.replace(was, name=change.queue, maxsize=change.maxsize)
        for c in rows.counted.values():
            maxsize = (folded.get(c.queue) or self._queues.get(c.queue, _NO_QUEUE)).maxsize
            folded[c.queue] = QueueRow(
                c.queue, maxsize, c.unfinished, c.put_total, c.done_total, c.redelivered_total, c.dead_total
            )
        return list(folded.values())

    def expire(self, entry: Entry, expired: Expired) -> None:
        """Note in an entry what was dropped as a log was read."""
        entry.dropped_sessions = expired.sessions
        entry.forgotten = expired.remembered
        entry.dropped_results = expired.results
        entry.dropped_ended = expired.ended

    def over(self, wall: float, *, watermark_kept_s: float) -> list[str]:
        """The ended sessions whose watermarks nobody needs any more."""
        return [session for session, ended_at in self._ended_at.items() if 0 < ended_at < wall - watermark_kept_s]

    # -- from an entry to what lives where

    def add(self, entry: Entry, first: int, last: int, size_bytes: int) -> Group:
        """An entry is in the log (or, of one being written: will be, or this image is thrown away).

        Args:
            first, last: the appends that carry it; of one being written not known yet, see `placed`.
        """
        group = Group()
        self._take_back(entry)
        for stored in entry.messages:
            self._put(self._messages, stored.n, group)
        for condition in entry.conditions:
            self._conditions[condition.n] = condition
            self._put(self._condition_at, condition.n, group)
        for n, ids in entry.produced:
            mine = self._produced.setdefault(n, {})
            for id_ in ids:
                self._put(mine, id_, group)
        for queue in entry.queues:
            self._queues[queue.name] = queue
            self._put(self._queue_at, queue.name, group)
        for marked in entry.marks:
            self._put(self._marks.setdefault(marked.session, {}), marked.stream, group)
        for seen in entry.sessions:
            self._ended_at[seen.session] = seen.ended_at
            self._put(self._sessions, seen.session, group)
        for result in entry.results:
            self._keep(result, group)
        for remembered in entry.remembered:
            self._put(self._remembered, remembered.id, group)
        if entry.limits is not None:
            self._put(self._single, "limits", group)
        if entry.shut is not None:
            self._put(self._single, "shut", group)
        for n in entry.removed:
            self._drop(self._messages, n)
            self._drop(self._condition_at, n)
            self._conditions.pop(n, None)
            self._drop_all(self._produced.pop(n, None))
        group.size_bytes = size_bytes + _OVERHEAD_BYTES
        group.row_bytes = group.size_bytes / max(1, group.rows)
        self.log_bytes += group.size_bytes
        self.live_bytes += group.row_bytes * group.live
        self.groups.append(group)
        self.placed(group, first, last)
        return group

    def placed(self, group: Group, first: int, last: int) -> None:
        """The log has it at these numbers."""
        group.first, group.last = first, last

    def _keep(self, result: ResultKept, group: Group) -> None:
        if not result.number:
            self._put(self._results, result.id, group)
            return
        self._put(self._ended, result.number, group)
        self._received.discard(result.number)
        if result.stream:
            self._streams.setdefault(result.stream, {})[result.number] = result.until

    def _take_back(self, entry: Entry) -> None:
        for id_ in entry.dropped_results:
            self._drop(self._results, id_)
        for acked in entry.acked:
            awaited = self._streams.get(acked.stream, {})
            for number in [number for number in awaited if number <= acked.number]:
                if awaited.pop(number):
                    self._received.add(number)
                else:
                    self._drop(self._ended, number)
            if not awaited:
                self._streams.pop(acked.stream, None)
        for number in entry.dropped_ended:
            self._drop(self._ended, number)
            self._received.discard(number)
        for id_ in entry.forgotten:
            self._drop(self._remembered, id_)
        for session in entry.dropped_sessions:
            self._drop(self._sessions, session)
            self._ended_at.pop(session, None)
            self._drop_all(self._marks.pop(session, None))

    def _put(self, table: dict[K, Group], key: K, group: Group) -> None:
        before = table.get(key)
        if before is not None:
            self._lose(before)
        table[key] = group
        group.rows += 1
        group.live += 1

    def _drop(self, table: dict[K, Group], key: K) -> None:
        before = table.pop(key, None)
        if before is not None:
            self._lose(before)

    def _drop_all(self, table: dict[Any, Group] | None) -> None:
        for group in (table or {}).values():
            self._lose(group)

    def _lose(self, group: Group) -> None:
        group.live -= 1
        self.live_bytes -= group.row_bytes

    # -- keeping the log small

    def dead_head(self) -> int:
        """The number up to which nothing in the log counts any more, so that it may be purged; those groups are forgotten.

        Only to be asked when all that was added is in the log for certain. The newest entry always stays.
        """
        groups, last = self.groups, 0
        while len(groups) > 1 and not groups[0].live:
            gone = groups.popleft()
            last = gone.last
            self.log_bytes -= gone.size_bytes
            self.dead_bytes += gone.size_bytes
        return last

    @property
    def is_littered(self) -> bool:
        """Whether the log has grown to more than twice what lives in it: then the head is copied to the tail."""
        return self.log_bytes > 2 * self.live_bytes + SLACK_BYTES

    def living(self, entry: Entry, group: Group, copy: Entry) -> None:
        """Add the rows of an entry that are still the last word to a copy that will be appended."""
        copy.messages += [one for one in entry.messages if self._messages.get(one.n) is group]
        copy.conditions += [one for one in entry.conditions if self._condition_at.get(one.n) is group]
        for n, ids in entry.produced:
            mine = self._produced.get(n, {})
            if left := [id_ for id_ in ids if mine.get(id_) is group]:
                copy.produced.append((n, left))
        copy.queues += [one for one in entry.queues if self._queue_at.get(one.name) is group]
        copy.marks += [one for one in entry.marks if self._marks.get(one.session, {}).get(one.stream) is group]
        copy.sessions += [one for one in entry.sessions if self._sessions.get(one.session) is group]
        for result in entry.results:
            at = self._ended.get(result.number) if result.number else self._results.get(result.id)
            if at is group:
                is_received = result.number in self._received
                copy.results.append(msgspec.structs.replace(result, stream="") if is_received else result)
        copy.remembered += [one for one in entry.remembered if self._remembered.get(one.id) is group]
        if entry.limits is not None and self._single.get("limits") is group:
            copy.limits = entry.limits
        if entry.shut is not None and self._single.get("shut") is group:
            copy.shut = entry.shut
