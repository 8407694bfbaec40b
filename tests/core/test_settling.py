"""How deliveries end, what is unfinished, results, the stop, dead letters, and what an administrator sees."""

from __future__ import annotations

import math
from typing import Any

import pytest

from manyhands.events import (
    Attach,
    Count,
    DeadDrop,
    DeadLetters,
    DeadList,
    DeadRetry,
    Declare,
    Done,
    Join,
    Lease,
    Outcome,
    Peek,
    Peeked,
    Purge,
    Put,
    Report,
    Result,
    Settle,
    ShutDown,
    Stats,
    TaskDone,
    Withdraw,
)
from manyhands.model import Kind, Limits, Options, SettleKind, Settlement, public_id

from .driver import Driver, code_of, ids


@pytest.fixture
def driver() -> Driver:
    driver = Driver(limits=Limits(max_body_bytes=100))
    driver.attach("ann")
    driver.attach("bob")
    return driver


def call(driver: Driver, name: str, **headers: Any) -> None:
    driver.put("ann", "q", driver.message(id=name, kind=int(Kind.CALL), **headers))


# -- unfinished and join


def test_join_waits_until_nothing_is_unfinished(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    join = Join(driver.rid(), "q")
    assert driver.ask("ann", join) is None
    driver.settle("bob", driver.one("bob", "q").token, is_task_done=True)
    assert driver.reply("ann", join.rid) is None
    driver.settle("bob", driver.one("bob", "q").token)
    assert driver.reply("ann", join.rid) is None, "an implicit settlement does not count"
    assert isinstance(driver.ask("bob", TaskDone(driver.rid(), driver.seq("bob", ""), 1, "q")), Done)
    assert driver.reply("ann", join.rid) == Count(join.rid, 0)


def test_join_gives_up_in_time_and_says_what_is_left(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    join = Join(driver.rid(), "q", 1.0)
    driver.send("ann", join)
    driver.advance(1.1)
    assert driver.reply("ann", join.rid) == Count(join.rid, 2)


def test_dead_letters_purged_and_expired_messages_are_not_waited_for(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    driver.put("ann", "q", driver.message(options=Options(expires_at=driver.clock.wall + 1)))
    join = Join(driver.rid(), "q")
    driver.send("ann", join)
    driver.settle("bob", driver.one("bob", "q").token, kind=SettleKind.REJECT)
    assert driver.ask("bob", Purge(driver.rid(), "q")).n == 2
    assert driver.reply("ann", join.rid) == Count(join.rid, 0)


def test_too_many_task_done_is_refused_and_may_not_be_counted_twice(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    done = TaskDone(driver.rid(), 1, 1, "q")
    driver.ask("ann", done)
    driver.ask("ann", done)
    assert driver.stats("q").unfinished == 1
    assert code_of(driver.ask("ann", TaskDone(driver.rid(), 2, 1, "q", 2))) == "too_many_task_done"
    assert code_of(driver.ask("ann", TaskDone(driver.rid(), 3, 1, "q", -1))) == "usage"
    assert driver.stats("q").unfinished == 1


@pytest.mark.parametrize("kind", [TaskDone, Report])
def test_a_seq_far_beyond_the_last_one_is_refused_and_fills_no_memory(driver: Driver, kind: type) -> None:
    far = 5_000_000
    request = TaskDone(driver.rid(), far, 1, "q") if kind is TaskDone else Report(driver.rid(), far, 1, 7, 1, b"")
    assert code_of(driver.ask("ann", request)) == "usage"
    assert "" not in driver.core._state.sessions["ann"].marks


@pytest.mark.parametrize("how", [{"kind": 9}, {"kind": -1}, {"kind": 1, "delay_s": math.nan}, {"result": b"x" * 101}])
def test_a_bad_settlement_is_refused_whole_and_can_be_tried_again(driver: Driver, how: dict[str, Any]) -> None:
    driver.fill("ann", "q", 2)
    first, second = driver.lease("ann", "q", 2)
    bad = [Settlement(first.token), Settlement(second.token, **how)]
    assert code_of(driver.ask("ann", Settle(driver.rid(), 1, 1, bad))) in ("usage", "payload_too_large")
    assert driver.stats("q").leased == 2
    assert driver.settle("ann", first.token, second.token, seq=1) == []
    assert driver.stats("q").leased == 0


# -- results


def test_result_and_ack_are_one_step(driver: Driver) -> None:
    call(driver, "c1", options=Options(keep_result_s=60))
    ask = Result(driver.rid(), "c1")
    assert driver.ask("ann", ask) is None
    driver.settle("bob", driver.one("bob", "q").token, result=b"42")
    assert driver.reply("ann", ask.rid) == Outcome(ask.rid, "c1", "q", b"42")
    assert driver.stats("q").done_total == 1


def test_a_stale_consumers_result_is_not_stored(driver: Driver) -> None:
    call(driver, "c1", options=Options(keep_result_s=60))
    late = driver.one("bob", "q")
    driver.advance(31)
    current = driver.one("ann", "q")
    assert driver.settle("bob", late.token, result=b"late") == [late.token]
    driver.settle("ann", current.token, result=b"good")
    assert driver.ask("ann", Result(driver.rid(), "c1")).value == b"good"


def test_the_first_result_of_an_id_stays(driver: Driver) -> None:
    for value in b"first", b"second":
        call(driver, "c1", options=Options(keep_result_s=60))
        driver.settle("bob", driver.one("bob", "q").token, result=value)
    assert driver.ask("ann", Result(driver.rid(), "c1")).value == b"first"


def test_a_result_is_kept_for_its_time(driver: Driver) -> None:
    call(driver, "c1", options=Options(keep_result_s=60))
    driver.settle("bob", driver.one("bob", "q").token, result=b"42")
    driver.advance(59)
    assert driver.ask("ann", Result(driver.rid(), "c1")).value == b"42"
    driver.advance(2)
    assert code_of(driver.ask("ann", Result(driver.rid(), "c1"))) == "unknown_id"


def test_a_result_without_a_time_is_kept_until_it_was_fetched(driver: Driver) -> None:
    call(driver, "c1")
    driver.settle("bob", driver.one("bob", "q").token, result=b"42")
    driver.advance(1e6)
    assert driver.ask("ann", Result(driver.rid(), "c1")).value == b"42"
    assert code_of(driver.ask("ann", Result(driver.rid(), "c1"))) == "unknown_id"


def test_a_result_can_be_forgotten_by_who_fetches_it(driver: Driver) -> None:
    call(driver, "c1", options=Options(keep_result_s=60))
    driver.settle("bob", driver.one("bob", "q").token, result=b"42")
    assert driver.ask("ann", Result(driver.rid(), "c1", forget=True)).value == b"42"
    assert code_of(driver.ask("ann", Result(driver.rid(), "c1"))) == "unknown_id"


def test_waiting_for_a_result_ends_in_time_or_when_withdrawn(driver: Driver) -> None:
    call(driver, "c1")
    in_time, withdrawn = Result(driver.rid(), "c1", 1.0), Result(driver.rid(), "c1")
    driver.send("ann", in_time, withdrawn, Withdraw(withdrawn.rid))
    assert driver.reply("ann", withdrawn.rid) == Outcome(withdrawn.rid, "c1", "q")
    driver.advance(1.1)
    assert driver.reply("ann", in_time.rid) == Outcome(in_time.rid, "c1", "q")


@pytest.mark.parametrize(
    ("kind", "code"), [(SettleKind.ACK, "unknown_id"), (SettleKind.REJECT, "task")], ids=["no-result", "dead"]
)
def test_who_waits_in_vain_for_a_result_is_told(driver: Driver, kind: SettleKind, code: str) -> None:
    call(driver, "c1")
    ask = Result(driver.rid(), "c1")
    driver.send("ann", ask)
    driver.settle("bob", driver.one("bob", "q").token, kind=kind)
    assert code_of(driver.reply("ann", ask.rid)) == code
    assert code_of(driver.ask("ann", Result(driver.rid(), "c1"))) == code


def test_results_survive_a_restart() -> None:
    driver = Driver(is_journaled=True)
    driver.attach("ann")
    call(driver, "c1", options=Options(keep_result_s=60))
    call(driver, "c2")
    driver.settle("ann", driver.one("ann", "q").token, result=b"42")
    driver.restart()
    driver.attach("ann", held=[])
    assert driver.ask("ann", Result(driver.rid(), "c1")).value == b"42"
    assert driver.ask("ann", Result(driver.rid(), "c2", 0.0)).value is None


# -- the stop


def test_after_a_shutdown_gets_drain_and_then_fail(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    driver.ask("ann", ShutDown(driver.rid(), "q"))
    assert len(driver.lease("bob", "q")) == 1
    assert code_of(driver.ask("bob", Lease(driver.rid(), "q"))) == "shut_down"


def test_a_shutdown_reaches_everybody_who_waits(driver: Driver) -> None:
    gets = [(who, driver.wait_lease(who, "q")) for who in ("ann", "bob")]
    driver.ask("ann", ShutDown(driver.rid(), "q"))
    assert [code_of(driver.reply(who, rid)) for who, rid in gets] == ["shut_down", "shut_down"]
    assert code_of(driver.put("ann", "q", driver.message(), wait_s=-1)) == "shut_down"


def test_a_shutdown_fails_the_puts_that_wait_for_room(driver: Driver) -> None:
    driver.send("ann", Declare(0, "q", 1))
    driver.fill("ann", "q", 1)
    put = Put(driver.rid(), "q", driver.seq("ann", "q"), 1, [driver.message()])
    driver.send("ann", put)
    driver.ask("bob", ShutDown(driver.rid(), "q"))
    assert code_of(driver.reply("ann", put.rid)) == "shut_down"


def test_an_immediate_shutdown_drops_what_is_not_handed_out_and_ends_join(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    driver.put("ann", "q", driver.message(due_at=driver.clock.wall + 60))
    join = Join(driver.rid(), "q")
    driver.send("ann", join)
    driver.ask("bob", ShutDown(driver.rid(), "q", True))
    assert driver.reply("ann", join.rid) == Count(join.rid, 0)
    assert driver.stats("q").is_shut_down


# -- administration


def test_a_dead_letter_keeps_its_history(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(id="poison", max_deliveries=2))
    driver.settle("bob", driver.one("bob", "q").token, kind=SettleKind.NACK, reason="boom")
    driver.one("ann", "q")
    driver.detach("ann", is_dead=True)
    (letter,) = driver.ask("bob", DeadList(driver.rid(), "q")).letters
    assert (letter.queue, letter.message.id) == ("q", "poison")
    assert [(a.attempt, a.consumer, a.outcome) for a in letter.history] == [(1, "bob@host", "nack"), (2, "ann@host", "lost")]
    assert letter.history[0].reason == "boom"
    assert "2 of 2" in letter.reason


def test_dead_letters_can_be_retried_with_a_fresh_count_or_dropped(driver: Driver) -> None:
    for message in driver.fill("ann", "q", 3):
        driver.settle("bob", driver.one("bob", "q").token, kind=SettleKind.REJECT, reason=f"no {message.id}")
    newest, middle, oldest = driver.ask("ann", DeadList(driver.rid())).letters
    assert [newest.reason, oldest.reason] == [f"no {newest.message.id}", f"no {oldest.message.id}"]
    assert newest.message.id > middle.message.id > oldest.message.id
    narrowed = DeadList(driver.rid(), "q", [middle.message.id])
    assert driver.ask("ann", narrowed) == DeadLetters(narrowed.rid, [middle])
    assert driver.ask("ann", DeadRetry(driver.rid(), "q", [oldest.message.id])).n == 1
    delivery = driver.one("bob", "q")
    assert (delivery.message.id, delivery.attempt) == (oldest.message.id, 1)
    assert driver.ask("ann", DeadDrop(driver.rid(), "q")).n == 2
    stats = driver.stats("q")
    assert (stats.dead, stats.dead_total, stats.unfinished) == (0, 3, 1)


def test_peek_shows_what_comes_next_without_leasing_it(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(id="late", due_at=driver.clock.wall + 60))
    driver.put("ann", "q", driver.message(id="low", priority=-1))
    driver.put("ann", "q", driver.message(id="back"))
    driver.settle("bob", driver.one("bob", "q").token, kind=SettleKind.NACK)
    driver.put("ann", "q", driver.message(id="high", priority=1))
    peeked = driver.ask("ann", Peek(driver.rid(), "q"))
    assert isinstance(peeked, Peeked)
    assert [message.id for message in peeked.messages] == ["back", "high", "low", "late"]
    assert ids(driver.lease("bob", "q", 9)) == ["back", "high", "low"]
    assert len(driver.ask("ann", Peek(driver.rid(), "q", 1)).messages) == 1
    assert code_of(driver.ask("ann", Peek(driver.rid(), "q", -1))) == "usage"


def test_a_purge_leaves_what_is_leased(driver: Driver) -> None:
    driver.fill("ann", "q", 3)
    delivery = driver.one("bob", "q")
    assert driver.ask("ann", Purge(driver.rid(), "q")).n == 2
    assert driver.settle("bob", delivery.token) == []


def test_statistics_show_queues_and_who_is_connected(driver: Driver) -> None:
    driver.fill("ann", "q", 3)
    driver.one("bob", "q")
    driver.wait_lease("ann", "empty")
    driver.clock.advance(7)
    reply = driver.ask("ann", Stats(driver.rid()))
    seen = [(stats.name, stats.ready, stats.leased, stats.waiting) for stats in reply.queues]
    assert seen == [("empty", 0, 0, 1), ("q", 2, 1, 0)]
    assert [(one.id, one.leases, one.waiting, one.is_connected) for one in reply.sessions] == [
        (public_id("ann"), 0, 1, True),
        (public_id("bob"), 1, 0, True),
    ]
    assert reply.uptime_s == 7


def test_dead_letters_and_counters_survive_a_restart() -> None:
    driver = Driver(is_journaled=True)
    driver.attach("ann")
    driver.fill("ann", "q", 2)
    driver.settle("ann", driver.one("ann", "q").token, kind=SettleKind.REJECT, reason="no")
    before = driver.stats("q", "ann")
    driver.restart()
    driver.attach("ann", held=[])
    assert driver.stats("q", "ann") == before
    assert driver.ask("ann", DeadRetry(driver.rid(), "q")).n == 1
    driver.restart()
    driver.attach("ann", held=[])
    assert len(driver.lease("ann", "q", 5)) == 2


def test_names_and_reasons_are_cut_and_carry_no_control_characters(driver: Driver) -> None:
    driver.core.attach(Attach("eve", "\x1b[2J" + "x" * 1000), driver.clock.now())
    driver.fill("ann", "q", 1)
    driver.settle("eve", driver.one("eve", "q").token, kind=SettleKind.REJECT, reason="bad \udc80 file\x07" + "!" * 10_000)
    (letter,) = driver.ask("ann", DeadList(driver.rid())).letters
    assert letter.reason.startswith("bad \\udc80 file\\x07!")
    assert len(letter.reason) < 600
    assert letter.history[0].consumer.startswith("\\x1b[2Jxxx")
    assert len(letter.history[0].consumer) < 210
