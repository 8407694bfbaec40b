"""Rows: what a batch leaves on the disk, and that reading it back gives the same store however it was batched."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.engines.sqlite.store import Store
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
    Snapshot,
    Stored,
)
from manyhands.lifecycle.rows import Rows
from manyhands.model import Attempt, Message, Options

HISTORY = [Attempt(1, "host/7", 10.0, 11.0, "nack", "why")]
KEPT_S = 100.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


def message(n: int) -> Message:
    return Message(f"id-{n}", b"body of %d" % n, b"seal", 1, -3, 5.0, 2, Options(dedupe=True))


def load(store: Store, wall: float = 0.0) -> Snapshot:
    return store.load(wall, watermark_kept_s=KEPT_S)


def reopened(path: Path, *batches: list[Change], wall: float = 0.0) -> Snapshot:
    """The store after these batches, a close and an opening."""
    store = Store.open(path)
    load(store)
    for batch in batches:
        store.write(Rows(batch))
    store.close()
    store = Store.open(path)
    try:
        return load(store, wall)
    finally:
        store.close()


def n_of_rows(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        tables = ("message", "state", "produced", "result", "ended", "remembered")
        return sum(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
    finally:
        connection.close()


def test_everything_that_is_written_is_read_back(path: Path) -> None:
    changes: list[Change] = [
        QueueSet("mail", 7),
        *(Stored(n, "mail", message(n)) for n in range(1, 6)),
        Freed(1, 1, True, 99.0, HISTORY),
        Leased(2, 77, "session", 1),
        Cut(2, 1, 3),
        Produced(2, "put-a"),
        Produced(2, "put-b"),
        Leased(3, 78, "session", 2),
        Buried(3, 12.0, "poison", HISTORY),
        Removed(4),
        Leased(5, 79, "session", 1),
        Freed(5, 0, False, 0.0, [], "task:rare"),
        Counted("mail", 4, 5, 1, 2, 3),
        Marked("session", "mail", 9, (4, 6)),
        SessionSeen("session", "host/1 prog", 0.0),
        ResultKept("id-4", "mail", b"result", 50.0),
        ResultKept("acked", "mail", b"result", 0.0, 1, "stream"),
        ResultKept("kept", "mail", b"result", 50.0, 2, "stream"),
        Acked("stream", 2),
        ResultKept("pack", "mail", b"result", 0.0, 3, "stream", 4, 2),
        ResultKept("lost", "mail", None, 0.0, 4, "stream", code="worker_crashed", text="why"),
        ResultKept("read", "mail", b"result", 50.0, 5, "", 0, 1),
        ResultDropped("read", 5),
        Remembered("id-9", 600.0),
    ]

    one_by_one = reopened(path, *[[change] for change in changes])

    one, two, three, five = one_by_one.messages
    assert (one.n, one.deliveries, one.is_suspect, one.due_at, one.history) == (1, 1, True, 99.0, HISTORY)
    assert (two.n, two.token, two.session, set(two.produced)) == (2, 77, "session", {"put-a", "put-b"})
    assert (three.n, three.deliveries, three.token, three.died_at, three.reason) == (3, 2, 0, 12.0, "poison")
    assert (two.first, two.end) == (1, 3)
    assert (five.n, five.queue, five.message) == (5, "mail", message(5))
    assert (five.token, five.deliveries, five.need) == (0, 0, "task:rare")
    assert one_by_one.queues == [QueueSet("mail", 7)]
    assert one_by_one.counters == [Counted("mail", 4, 5, 1, 2, 3)]
    assert one_by_one.watermarks == [Marked("session", "mail", 9, (4, 6))]
    assert one_by_one.sessions == [SessionSeen("session", "host/1 prog", 0.0)]
    assert one_by_one.results == [
        ResultKept("id-4", "mail", b"result", 50.0),
        ResultKept("kept", "mail", b"result", 50.0, 2, ""),
        ResultKept("pack", "mail", b"result", 0.0, 3, "stream", 4, 2),
        ResultKept("lost", "mail", None, 0.0, 4, "stream", code="worker_crashed", text="why"),
    ]
    assert one_by_one.remembered == [Remembered("id-9", 600.0)]


def test_what_a_batch_makes_and_unmakes_never_reaches_the_disk(path: Path) -> None:
    rows = Rows(
        [
            Stored(1, "mail", message(1)),
            Leased(1, 5, "session", 1),
            Produced(1, "put"),
            Freed(1, 1, False, 0.0, []),
            Leased(1, 6, "session", 2),
            Cut(1, 2, 4),
            ResultKept("id-1", "mail", b"result", 0.0),
            Removed(1),
            ResultDropped("id-1"),
            ResultKept("id-2", "mail", b"result", 0.0, 7, "stream"),
            Acked("stream", 7),
        ]
    )

    written = [rows.stored, rows.leased, rows.freed, rows.cut, rows.produced, rows.removed, rows.kept_results, rows.ended]
    assert not any(written)


def test_removing_a_message_leaves_no_row_of_it(path: Path) -> None:
    reopened(
        path,
        [Stored(n, "mail", message(n)) for n in range(1, 1000)],
        [Leased(n, n, "session", 1) for n in range(1, 1000)],
        [Produced(n, "put") for n in range(1, 1000)],
        [Removed(n) for n in range(1, 1000)],
    )

    assert n_of_rows(path) == 0


def test_the_first_result_wins_within_a_batch_and_across_batches(path: Path) -> None:
    first, second = ResultKept("a", "mail", b"first", 0.0), ResultKept("a", "mail", b"second", 0.0)
    other = [ResultKept("b", "mail", b"first", 0.0), ResultKept("b", "mail", b"second", 0.0)]

    found = reopened(path, [first], [second], list(other))

    assert {result.id: result.value for result in found.results} == {"a": b"first", "b": b"first"}


def test_a_number_is_never_used_twice_although_its_message_is_gone(path: Path) -> None:
    before = reopened(path, [Stored(5, "mail", message(5))], [Removed(5)]).next_n

    after = reopened(path, [Stored(before + 3_000_000, "mail", message(9))], [Removed(before + 3_000_000)]).next_n

    assert before > 5
    assert after > before + 3_000_000


def test_each_opening_has_an_epoch_of_its_own(path: Path) -> None:
    epochs = []
    for _ in range(3):
        store = Store.open(path)
        load(store)
        epochs.append(store.epoch)
        store.close()

    assert len(set(epochs)) == 3
    assert epochs == sorted(epochs)


def test_what_has_run_out_is_not_read_back(path: Path) -> None:
    found = reopened(
        path,
        [
            SessionSeen("gone", "", 10.0),
            Marked("gone", "q", 3, ()),
            SessionSeen("late", "", 60.0),
            Marked("late", "q", 3, ()),
        ],
        [Remembered("old", 20.0), Remembered("new", 200.0)],
        [ResultKept("old", "q", b"", 20.0), ResultKept("kept", "q", b"", 0.0), ResultKept("new", "q", b"", 200.0)],
        wall=150.0,
    )

    assert [mark.session for mark in found.watermarks] == ["late"]
    assert [seen.session for seen in found.sessions] == ["late"]
    assert [remembered.id for remembered in found.remembered] == ["new"]
    assert {result.id for result in found.results} == {"kept", "new"}


@pytest.mark.parametrize("length", [0, 100, 70_000, 3_000_000])
def test_bodies_of_every_size_come_back(path: Path, length: int) -> None:
    body = bytes(range(256)) * (length // 256 + 1)

    found = reopened(path, [Stored(n, "q", Message(str(n), body[:length])) for n in range(1, 4)])

    assert [stored.message.body for stored in found.messages] == [body[:length]] * 3


# -- however it is batched, the same store ---------------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Changes as a core could report them: a life for each of a few messages, and the rest around it."""
    n = 0
    live: dict[int, str] = {}
    kept: set[str] = set()
    changes: list[Change] = []
    for token in range(1, 1 + draw(st.integers(1, 40))):
        of = draw(st.sampled_from(sorted(live))) if live else 0
        what = draw(st.integers(0, 15))
        if what <= 3 or not of:
            n += 1
            live[n] = "ready"
            changes.append(Stored(n, draw(st.sampled_from(["a", "b"])), message(n)))
        elif what == 4 and live[of] == "ready":
            live[of] = "leased"
            changes.append(Leased(of, token, "s", token))
        elif what == 5 and live[of] == "leased":
            live[of] = "ready"
            need = draw(st.sampled_from(["", "", "task:rare"]))
            changes.append(Freed(of, token, draw(st.booleans()), float(token), HISTORY * draw(st.integers(0, 2)), need))
        elif what == 6 and live[of] == "leased":
            live[of] = "dead"
            changes.append(Buried(of, float(token), "reason", HISTORY))
        elif what == 7:
            del live[of]
            changes.append(Removed(of))
        elif what == 8 and live[of] == "leased":
            changes.append(Produced(of, f"put-{draw(st.integers(0, 3))}"))
        elif what == 9:
            changes.append(Marked("s", draw(st.sampled_from(["", "a"])), token, (1,) * draw(st.integers(0, 1))))
        elif what == 10:
            id_ = draw(st.sampled_from(["x", "y"]))
            drop = id_ in kept and draw(st.booleans())
            kept ^= {id_} if drop or id_ not in kept else set()
            changes.append(ResultDropped(id_) if drop else ResultKept(id_, "a", b"%d" % token, 0.0))
        elif what == 11:
            id_ = draw(st.sampled_from(["x", "y"]))
            changes.append(Forgotten(id_) if draw(st.booleans()) else Remembered(id_, 1e9 + token))
        elif what == 12 and live[of] == "leased":
            changes.append(Cut(of, token, token + 1))
        elif what == 13:
            until, value = draw(st.sampled_from([0.0, 1e9])), draw(st.sampled_from([b"r", None]))
            streams = draw(st.sampled_from(["s", "t"]))
            changes.append(ResultKept("z", "a", value, until, token, streams, token, draw(st.integers(0, 2))))
        elif what == 14:
            changes.append(Acked(draw(st.sampled_from(["s", "t"])), token - draw(st.integers(0, 5))))
        else:
            changes.append(Counted("a", token, 1, 2, 3, 4))
    return changes


def batched(changes: list[Change], cuts: set[int]) -> Iterator[list[Change]]:
    batch: list[Change] = []
    for i, change in enumerate(changes):
        if i in cuts and batch:
            yield batch
            batch = []
        batch.append(change)
    yield batch


@settings(max_examples=40, deadline=None)
@given(changes=histories(), cuts=st.sets(st.integers(0, 40), max_size=6))
def test_batching_changes_nothing_of_what_is_left(
    tmp_path_factory: pytest.TempPathFactory, changes: list[Change], cuts: set[int]
) -> None:
    """Invariant: one transaction for each change, or for any runs of changes, leave the same store."""
    folder = tmp_path_factory.mktemp("rows")

    one_by_one = reopened(folder / "single.db", [QueueSet("a", 0), QueueSet("b", 0)], *[[change] for change in changes])
    in_batches = reopened(folder / "batched.db", [QueueSet("a", 0), QueueSet("b", 0)], *batched(changes, cuts))

    assert comparable(in_batches) == comparable(one_by_one)


def comparable(snapshot: Snapshot) -> object:
    found = msgspec.to_builtins(snapshot)
    for stored in found["messages"]:
        stored["produced"] = sorted(stored["produced"])
    return found
