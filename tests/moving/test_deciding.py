"""What a move decides, driven by hand: no engine, no thread, no time of its own."""

from __future__ import annotations

from typing import Any, TypeVar

import pytest

from manyhands.errors import EngineUnavailable
from manyhands.events import (
    Bury,
    Count,
    DeadDrop,
    DeadLetters,
    DeadList,
    Declare,
    Done,
    Failed,
    Granted,
    Lease,
    Put,
    QueueInfo,
    Recall,
    Recalled,
    Reply,
    Settle,
    Settled,
    Size,
    Stats,
    StatsReply,
)
from manyhands.model import DeadLetter, Delivery, Features, Kind, Options, QueueStats, SettleKind
from manyhands.moving.ends import End, Seqs
from manyhands.moving.line import AHEAD
from manyhands.moving.move import Move
from manyhands.moving.translating import Translator
from manyhands.testing.contract import message

from .conftest import KEYS

R = TypeVar("R")


def stats(ready: int = 0, *, leased: int = 0, dead: int = 0, maxsize: int = 0) -> QueueStats:
    return QueueStats("q", maxsize, ready, 0, leased, leased, dead, ready + leased, 0, 0, 0, 0, 0)


class Drive:
    """Answers what a move asks."""

    def __init__(self, *, is_following: bool = False, features: Features = Features(moves=True)) -> None:  # noqa: B008
        translator = Translator(KEYS, KEYS, "there")
        self.move = Move(
            translator, (), is_following=is_following, features=features, max_body_bytes=1000, sessions=("one", "two")
        )
        self.now = 0.0
        self.asked: dict[int, list[Any]] = {id(self.move.source): [], id(self.move.target): []}

    def look(self, numbers: QueueStats) -> None:
        """The source is asked for its numbers, and says them."""
        self.now += 10.0
        self.move.tick(self.now)
        asked = self.next(self.move.source, Stats)
        self.move.source.take([StatsReply(asked.rid, [numbers], [], 1.0)])

    def open(self, numbers: QueueStats) -> None:
        self.look(numbers)
        target = self.move.target
        target.take([Done(self.next(target, Declare).rid), QueueInfo(self.next(target, Size).rid, stats())])

    def next(self, end: End, kind: type[R]) -> Any:
        """The oldest request of that kind that was not looked at yet."""
        asked = self.asked[id(end)]
        asked += end.outbox
        end.outbox.clear()
        found = next((each for each in asked if type(each) is kind), None)
        assert found is not None, f"no {kind.__name__} in {asked}"
        asked.remove(found)
        return found

    def has(self, end: End, kind: type[Any]) -> int:
        return sum(type(each) is kind for each in (*self.asked[id(end)], *end.outbox))

    def source(self, reply: Reply) -> None:
        self.move.source.take([reply])

    def target(self, reply: Reply) -> None:
        self.move.target.take([reply])


def deliveries(*tokens: int) -> list[Delivery]:
    return [Delivery(token, 1, message(b"%d" % token)) for token in tokens]


def test_the_source_hears_of_nothing_that_the_target_has_not_acknowledged() -> None:
    drive = Drive()
    drive.open(stats(2))
    move = drive.move
    drive.source(Granted(drive.next(move.source, Lease).rid, deliveries(1, 2)))
    put = drive.next(move.target, Put)
    assert [m.body for m in put.messages] == [b"1", b"2"]
    assert not drive.has(move.source, Settle)
    drive.target(Done(put.rid))
    settle = drive.next(move.source, Settle)
    assert [(one.token, one.kind) for one in settle.settlements] == [(1, SettleKind.MOVED), (2, SettleKind.MOVED)]
    assert move.moved == 0
    drive.source(Settled(settle.rid))
    assert move.moved == 2


def test_a_lease_that_was_lost_meanwhile_is_counted_as_overtaken() -> None:
    drive = Drive()
    drive.open(stats(2))
    move = drive.move
    drive.source(Granted(drive.next(move.source, Lease).rid, deliveries(1, 2)))
    drive.target(Done(drive.next(move.target, Put).rid))
    drive.source(Settled(drive.next(move.source, Settle).rid, [2]))
    assert (move.progress().moved, move.progress().overtaken) == (1, 1)


def test_leases_are_asked_ahead_and_begin_nothing() -> None:
    drive = Drive()
    drive.open(stats(1000))
    leases = [drive.next(drive.move.source, Lease) for _ in range(AHEAD)]
    assert not drive.has(drive.move.source, Lease)
    assert {(lease.begin_n, lease.wait_s, lease.is_move) for lease in leases} == {(0, 0.0, True)}


def test_where_nothing_comes_it_waits_in_one_lease_and_asks_no_faster() -> None:
    drive = Drive(is_following=True)
    drive.open(stats(0))
    move = drive.move
    for _ in range(AHEAD):
        drive.source(Granted(drive.next(move.source, Lease).rid, []))
    drive.look(stats(0))
    waiting = drive.next(move.source, Lease)
    assert waiting.wait_s > 1.0
    for _ in range(5):
        drive.look(stats(0))
    assert not drive.has(move.source, Lease)
    assert move.progress().is_idle
    drive.source(Granted(waiting.rid, deliveries(1)))
    assert drive.has(move.source, Lease) == AHEAD
    assert not move.progress().is_idle


def test_it_is_over_only_by_numbers_that_are_newer_than_the_last_message() -> None:
    drive = Drive()
    drive.open(stats(1))
    move = drive.move
    drive.source(Granted(drive.next(move.source, Lease).rid, deliveries(1)))
    for _ in range(drive.has(move.source, Lease)):
        drive.source(Granted(drive.next(move.source, Lease).rid, []))
    drive.target(Done(drive.next(move.target, Put).rid))
    drive.source(Settled(drive.next(move.source, Settle).rid))
    while drive.has(move.source, Lease):
        drive.source(Granted(drive.next(move.source, Lease).rid, []))
    assert not move.is_over
    drive.look(stats(0))
    assert move.is_over


def test_who_waits_at_the_source_gets_what_stays_and_nothing_that_is_on_its_way() -> None:
    drive = Drive(is_following=True)
    drive.open(stats(3))
    move = drive.move
    stays = Delivery(7, 1, message(b"", kind=Kind.CALL, options=Options(reply_to="stream")))
    drive.source(Granted(drive.next(move.source, Lease).rid, [*deliveries(1), stays]))
    drive.source(Recall("q", 5))
    assert drive.next(move.source, Recalled).tokens == [7]
    drive.source(Recall("q", 5))
    assert drive.next(move.source, Recalled).tokens == []


def test_a_dead_letter_is_dropped_at_the_source_when_the_target_has_it() -> None:
    drive = Drive()
    drive.open(stats(0, dead=1))
    move = drive.move
    letter = DeadLetter("q", message(b"dead"), 1.0, "why", [])
    drive.source(DeadLetters(drive.next(move.source, DeadList).rid, [letter]))
    assert not drive.has(move.source, DeadDrop)
    bury = drive.next(move.target, Bury)
    assert bury.letters == [letter]
    drive.target(Count(bury.rid, 1))
    drop = drive.next(move.source, DeadDrop)
    assert drop.ids == [letter.message.id]
    drive.source(Count(drop.rid, 1))
    assert move.dead == 1


def test_dead_letters_stay_where_the_target_cannot_take_them_over() -> None:
    drive = Drive(features=Features())
    drive.open(stats(0, dead=1))
    move = drive.move
    assert not drive.has(move.source, DeadList)
    for _ in range(AHEAD):
        drive.source(Granted(drive.next(move.source, Lease).rid, []))
    drive.look(stats(0, dead=1))
    assert move.is_over
    assert (move.progress().staying, move.progress().dead_staying) == (0, 1)


def test_a_refusal_of_the_target_ends_the_move_with_its_own_error() -> None:
    drive = Drive()
    drive.open(stats(1))
    move = drive.move
    drive.source(Granted(drive.next(move.source, Lease).rid, deliveries(1)))
    drive.target(Failed(drive.next(move.target, Put).rid, EngineUnavailable.code, "no memory"))
    assert move.is_over
    with pytest.raises(EngineUnavailable, match="stay at the source: no memory"):
        raise move.failure or AssertionError
    assert not drive.has(move.source, Settle)


def test_the_floor_is_the_oldest_request_without_an_answer() -> None:
    seqs = Seqs()
    assert [seqs.next() for _ in range(3)] == [(1, 1), (2, 1), (3, 1)]
    seqs.answered(1)
    seqs.answered(3)
    assert seqs.next() == (4, 2)
