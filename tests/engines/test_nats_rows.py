"""The log's rows: what an owner writes is what the next one reads, whatever is cleaned away in between."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from manyhands.engines.nats.entries import FORMAT, Content, Entry, decode, encode
from manyhands.engines.nats.image import Group, Image
from manyhands.lifecycle import changes as c
from manyhands.lifecycle.changes import Snapshot
from manyhands.lifecycle.replay import Replay
from manyhands.lifecycle.rows import Rows
from manyhands.model import Attempt, Message

_HISTORY = [Attempt(1, "host/7", 10.0, 11.0, "nack", "why")]


class Space:
    """An owner's log in a list, given up and cleaned as an owner does."""

    def __init__(self) -> None:
        self.log: list[tuple[int, bytes]] = []
        self.image = Image()
        self._next = 1

    def write(self, entry: Entry) -> Group:
        data = encode(entry)
        self.log.append((self._next, data))
        group = self.image.add(entry, self._next, self._next, len(data))
        self._next += 1
        return group

    def commit(self, changes: list[Any]) -> None:
        self.write(self.image.fold(Rows(changes), "me", 1, 1000))

    def clean(self, n: int) -> None:
        """Copy what lives in the oldest n entries."""
        copy = Entry(FORMAT, "me", 1, 1000)
        by_number = dict(self.log)
        for group in list(self.image.groups)[:n]:
            self.image.living(decode(by_number[group.first]), group, copy)
        self.write(copy)

    def purge(self) -> None:
        last = self.image.dead_head()
        self.log = [(number, data) for number, data in self.log if number > last]

    def read(self) -> Snapshot:
        content = Content()
        for _, data in self.log:
            content.add(decode(data))
        return content.snapshot()


def told(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot without the order that says nothing."""
    return {
        "queues": sorted(map(repr, snapshot.queues)),
        "counters": sorted(repr(one) for one in snapshot.counters if one.put_total),
        "messages": [
            msgspec.structs.replace(
                one, produced=tuple(sorted(set(one.produced))), due_at=0.0 if one.token or one.died_at else one.due_at
            )
            for one in snapshot.messages
        ],
        "watermarks": sorted(map(repr, snapshot.watermarks)),
        "sessions": sorted(map(repr, snapshot.sessions)),
        "results": sorted(map(repr, snapshot.results)),
        "remembered": sorted(map(repr, snapshot.remembered)),
    }


class Store:
    """Makes changes that a core could report."""

    def __init__(self) -> None:
        self.n = 0
        self.number = 500
        self.here: list[int] = []
        self.dead: list[int] = []
        self.ended: list[c.ResultKept] = []
        self.results: set[str] = set()

    def change(self, kind: int, pick: int) -> list[Any]:
        n = self.here[pick % len(self.here)] if self.here else 0
        queue, session = f"q{pick % 2}", f"s{pick % 3}"
        if kind == 0 or (not n and kind < 6):
            self.n += 1
            self.here.append(self.n)
            return [
                c.QueueSet(queue, pick % 4),
                c.Stored(self.n, queue, Message(f"m{self.n}", b"body")),
                c.Counted(queue, self.n, self.n, 0, 0, 0),
                c.Marked(session, queue, self.n, (pick,)),
            ]
        if kind == 1:
            return [c.Leased(n, (1 << 40) + pick, session, pick % 3 + 1)]
        if kind == 2:
            return [c.Freed(n, pick % 3, pick % 2 == 0, float(pick), _HISTORY, "task:x" if pick % 5 == 0 else "")]
        if kind == 3:
            self.here.remove(n)
            return [c.Removed(n)]
        if kind == 4 and pick % 2 and self.dead:
            return [c.Removed(self.dead.pop())]
        if kind == 4:
            self.here.remove(n)
            self.dead.append(n)
            return [c.Buried(n, 50.0 + pick, "why", _HISTORY)]
        if kind == 5:
            return [c.Produced(n, f"p{pick}"), c.Cut(n, pick % 4, pick % 4 + 1)]
        if kind == 6:
            return [c.SessionSeen(session, "name", float(pick % 2))]
        if kind == 7:
            return [c.Remembered(f"i{pick}", 90.0 + pick)]
        if kind == 8:
            return [c.Forgotten(f"i{pick}")]
        if kind == 9:
            self.number += 1
            kept = c.ResultKept(f"m{pick}", queue, b"v", 100.0 * (pick % 2), self.number, session, pick, 1)
            self.ended.append(kept)
            return [kept]
        if kind == 10 and self.ended:
            kept = self.ended[pick % len(self.ended)]
            return [c.Acked(kept.stream, kept.number)]
        if kind == 11:
            self.results.add(f"r{pick}")
            return [c.ResultKept(f"r{pick}", queue, b"first" if pick % 2 else b"v", 0.0)]
        if kind == 12 and f"r{pick}" in self.results:
            self.results.remove(f"r{pick}")
            return [c.ResultDropped(f"r{pick}")]
        return []


_STEPS = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 9)), min_size=1, max_size=6), st.integers(0, 4)),
    min_size=1,
    max_size=25,
)


@given(_STEPS)
def test_what_the_log_says_is_what_the_changes_say(steps: list[tuple[list[tuple[int, int]], int]]) -> None:
    """After any changes in any batches, entries copied and the head given up at any time: the log's content is theirs."""
    space, plain, store = Space(), Replay(), Store()
    for batch, cleaned in steps:
        changes = [change for kind, pick in batch for change in store.change(kind, pick)]
        plain.apply(changes)
        space.commit(changes)
        if cleaned:
            space.clean(cleaned)
        space.purge()
        assert told(space.read()) == told(plain.snapshot())


def test_an_image_that_was_read_goes_on_as_the_one_that_wrote() -> None:
    """A new owner's index over the same log lets go of the same head."""
    space, store = Space(), Store()
    for pick in range(40):
        space.commit([change for kind in (0, 1, 9, 3, 10) for change in store.change(kind, pick)])
    again = Image()
    for number, data in space.log:
        again.add(decode(data), number, number, len(data))
    assert [group.live for group in again.groups] == [group.live for group in space.image.groups]
    assert again.dead_head() == space.image.dead_head() > 0


def test_the_log_is_littered_when_most_of_it_is_garbage() -> None:
    space, store = Space(), Store()
    body = b"x" * 100_000
    kept = c.Stored(10_000, "q", Message("kept", body))
    space.commit([kept])
    for n in range(1, 10):
        space.commit([c.Stored(n, "q", Message(f"m{n}", body))])
        assert not space.image.is_littered
    for n in range(1, 10):
        space.commit([c.Removed(n)])
    space.commit([c.Stored(store.n + 50, "q", Message("more", b"y" * 600_000))])
    space.commit([c.Removed(store.n + 50)])
    assert space.image.is_littered
    space.clean(5)
    space.purge()
    assert not space.image.is_littered
    assert [one.message.id for one in space.read().messages] == ["kept"]
