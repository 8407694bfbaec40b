"""What a lease promises: one holder, fair shares, suspects alone, poison buried, nothing idle while work lies prefetched."""

from __future__ import annotations

import pytest

from manyhands.events import Begin, Extend, Goodbye, Granted, Lease, Ping, Put, Recall, Recalled, ReportDead, Withdraw
from manyhands.model import Limits, SettleKind

from .driver import Driver, code_of, ids


@pytest.fixture
def driver() -> Driver:
    driver = Driver(limits=Limits(recall_after_s=0.005, recall_answer_s=1.0))
    for session in "ann", "bob", "cleo":
        driver.attach(session)
    return driver


def recalls_of(driver: Driver, session: str) -> list[Recall]:
    return [reply for reply in driver.take(session) if isinstance(reply, Recall)]


# -- waiting and sharing


def test_a_waiting_lease_is_answered_by_the_put(driver: Driver) -> None:
    rid = driver.wait_lease("bob", "q")
    (message,) = driver.fill("ann", "q", 1)
    assert ids(driver.reply("bob", rid).deliveries) == [message.id]


def test_a_batch_is_shared_fairly_among_those_who_wait(driver: Driver) -> None:
    ann, bob = driver.wait_lease("ann", "q", 100), driver.wait_lease("bob", "q", 100)
    driver.fill("cleo", "q", 10)
    assert [len(driver.reply(who, rid).deliveries) for who, rid in (("ann", ann), ("bob", bob))] == [5, 5]


def test_several_puts_in_one_send_are_shared_as_one_batch(driver: Driver) -> None:
    ann, bob = driver.wait_lease("ann", "q", 100), driver.wait_lease("bob", "q", 100)
    puts = [Put(driver.rid(), "q", i, 1, [driver.message()]) for i in range(1, 5)]
    driver.send("cleo", *puts)
    assert [len(driver.reply(who, rid).deliveries) for who, rid in (("ann", ann), ("bob", bob))] == [2, 2]


def test_a_share_is_capped_by_what_was_asked_for(driver: Driver) -> None:
    ann, bob = driver.wait_lease("ann", "q", 1), driver.wait_lease("bob", "q", 100)
    driver.fill("cleo", "q", 10)
    assert len(driver.reply("ann", ann).deliveries) == 1
    assert len(driver.reply("bob", bob).deliveries) == 9


def test_a_wait_ends_empty_in_time(driver: Driver) -> None:
    rid = driver.wait_lease("bob", "q", wait_s=2.0)
    driver.advance(1.9)
    assert driver.reply("bob", rid) is None
    driver.advance(0.2)
    assert driver.reply("bob", rid) == Granted(rid, [])
    driver.fill("ann", "q", 1)
    assert driver.stats("q").ready == 1


def test_a_wait_can_be_withdrawn(driver: Driver) -> None:
    rid = driver.wait_lease("bob", "q")
    driver.send("bob", Withdraw(rid))
    assert driver.reply("bob", rid) == Granted(rid, [])


def test_a_ghost_consumer_is_never_handed_a_message(driver: Driver) -> None:
    driver.wait_lease("bob", "q")
    driver.detach("bob")
    driver.fill("ann", "q", 1)
    assert driver.stats("q").ready == 1


def test_many_waits_that_ended_early_leave_no_timers(driver: Driver) -> None:
    for _ in range(2000):
        driver.wait_lease("bob", "q", wait_s=60.0)
        driver.fill("ann", "q", 1)
    assert len(driver.core._state.timers._mono) < 200


def test_nonsense_is_refused(driver: Driver) -> None:
    assert code_of(driver.ask("ann", Lease(driver.rid(), "q", 0))) == "usage"
    assert code_of(driver.ask("ann", Lease(driver.rid(), "q", -5))) == "usage"
    assert code_of(driver.ask("ann", Lease(driver.rid(), "q", "many"))) == "usage"  # type: ignore[arg-type]
    assert code_of(driver.ask("ann", Lease(driver.rid(), "q", 1, 1, "long"))) == "usage"  # type: ignore[arg-type]
    driver.fill("ann", "q", 1)
    assert len(driver.lease("ann", "q")) == 1


# -- one holder


def test_a_stale_or_foreign_token_changes_nothing(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("ann", "q")
    assert driver.settle("bob", delivery.token) == [delivery.token]
    assert driver.stats("q").leased == 1
    assert driver.settle("ann", delivery.token) == []
    assert driver.settle("ann", delivery.token) == [delivery.token]
    assert driver.stats("q").done_total == 1


def test_a_worker_that_woke_too_late_cannot_settle(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    late = driver.one("bob", "q")
    driver.advance(31)
    current = driver.one("ann", "q")
    assert current.attempt == 2
    assert driver.settle("bob", late.token) == [late.token]
    assert driver.settle("ann", current.token) == []


def test_the_planted_bug_lets_a_late_worker_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands._faults._PLANTED", frozenset({"no_fencing"}))
    driver = Driver()
    driver.attach("ann")
    driver.attach("bob")
    driver.fill("ann", "q", 1)
    late = driver.one("bob", "q")
    driver.advance(31)
    current = driver.one("ann", "q")
    assert driver.settle("bob", late.token) == []
    assert driver.settle("ann", current.token) == [current.token]


def test_a_settle_sent_twice_is_answered_as_a_success(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("ann", "q")
    assert driver.settle("ann", delivery.token, seq=1) == []
    assert driver.settle("ann", delivery.token, seq=1) == []


def test_tokens_grow_and_fit_63_bits() -> None:
    driver = Driver()
    driver.attach("ann")
    driver.fill("ann", "q", 3)
    tokens = [delivery.token for delivery in driver.lease("ann", "q", 3)]
    assert tokens == sorted(set(tokens))
    assert tokens[0] >> 40 == 1


# -- losing a consumer


def test_a_dead_consumers_messages_go_to_the_head_at_once(driver: Driver) -> None:
    first, *_ = driver.fill("ann", "q", 3)
    driver.one("bob", "q")
    driver.detach("bob", is_dead=True)
    delivery = driver.one("ann", "q")
    assert (delivery.message.id, delivery.attempt) == (first.id, 2)


def test_a_network_blip_repeats_nothing(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("bob", "q")
    driver.detach("bob")
    driver.advance(0.9)
    assert driver.attach("bob", held=[delivery.token]) == (True, [])
    driver.advance(5)
    assert driver.settle("bob", delivery.token) == []


def test_leases_return_when_the_session_has_not_resumed_in_time(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("bob", "q")
    driver.detach("bob")
    driver.advance(1.1)
    assert driver.one("ann", "q").attempt == 2
    assert driver.attach("bob", held=[delivery.token]) == (True, [delivery.token])


def test_leases_return_after_lease_s_of_silence_and_any_request_or_ping_renews_them_all(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("bob", "q")
    for request in Ping(0), Extend(0, []), Ping(0):
        driver.advance(29)
        driver.send("bob", request)
    assert driver.ask("bob", Extend(driver.rid(), [delivery.token, 7])).lost == [7]
    driver.advance(31)
    assert driver.ask("bob", Extend(driver.rid(), [delivery.token])).lost == [delivery.token]


def test_a_parents_report_returns_a_dead_childs_leases_at_once(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    driver.one("bob", "q")
    driver.send("ann", ReportDead(driver.rid(), "bob", "exit code -9"))
    assert driver.one("ann", "q").attempt == 2


def test_what_was_granted_and_never_arrived_is_released_when_the_session_resumes(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    arrived, _lost_on_the_way = driver.lease("bob", "q", 2)
    driver.detach("bob")
    driver.attach("bob", held=[arrived.token])
    assert driver.one("ann", "q").attempt == 1


def test_unbegun_deliveries_of_a_lost_consumer_are_charged_nothing(driver: Driver) -> None:
    driver.fill("ann", "q", 3)
    driver.lease("bob", "q", 3, begin_n=1)
    driver.detach("bob", is_dead=True)
    assert [driver.one("ann", "q").attempt for _ in range(3)] == [2, 1, 1]


def test_after_a_loss_each_message_travels_alone_and_counts_as_begun(driver: Driver) -> None:
    lost = driver.fill("ann", "q", 3)
    driver.lease("bob", "q", 3, begin_n=1)
    driver.fill("ann", "q", 2)
    driver.detach("bob", is_dead=True)
    for message in lost:
        assert ids(driver.lease("ann", "q", 10, begin_n=0)) == [message.id]
    assert driver.stats("q").unbegun == 0
    assert len(driver.lease("ann", "q", 10)) == 2


def test_a_neighbour_of_a_killer_is_never_buried_with_it(driver: Driver) -> None:
    killer, *neighbours = driver.fill("ann", "q", 4)
    for life in range(10):
        worker = f"worker{life}"
        driver.attach(worker)
        deliveries = driver.lease(worker, "q", 10, begin_n=1)
        if killer.id not in ids(deliveries):
            break
        driver.detach(worker, is_dead=True)
    stats = driver.stats("q")
    assert stats.dead == 1
    driver.settle(worker, *[delivery.token for delivery in deliveries], kind=SettleKind.RELEASE)
    found = [driver.one("ann", "q") for _ in neighbours]
    assert sorted(ids(found)) == sorted(message.id for message in neighbours)
    assert {delivery.attempt for delivery in found} == {1}


def test_at_max_deliveries_a_message_becomes_a_dead_letter_in_the_same_step(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(max_deliveries=2))
    for _ in range(2):
        driver.settle("ann", driver.one("ann", "q").token, kind=SettleKind.NACK, reason="boom")
    stats = driver.stats("q")
    assert (stats.ready, stats.dead, stats.unfinished) == (0, 1, 0)


def test_max_deliveries_1_means_at_most_once(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(max_deliveries=1))
    driver.one("bob", "q")
    driver.detach("bob", is_dead=True)
    assert driver.lease("ann", "q") == []
    assert driver.stats("q").dead == 1


def test_a_release_is_charged_nothing_however_often(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(max_deliveries=1))
    for _ in range(5):
        delivery = driver.one("ann", "q")
        assert delivery.attempt == 1
        driver.settle("ann", delivery.token, kind=SettleKind.RELEASE)


def test_a_nack_with_a_delay_keeps_the_message_away_and_then_puts_it_first(driver: Driver) -> None:
    first, second = driver.fill("ann", "q", 2)
    driver.settle("ann", driver.one("ann", "q").token, kind=SettleKind.NACK, delay_s=5.0)
    driver.advance(4)
    assert driver.stats("q").delayed == 1
    driver.advance(2)
    assert ids([driver.one("ann", "q"), driver.one("ann", "q")]) == [first.id, second.id]


def test_a_goodbye_releases_what_was_not_begun_and_gives_the_rest_back(driver: Driver) -> None:
    driver.fill("ann", "q", 2)
    driver.lease("bob", "q", 2, begin_n=1)
    driver.send("bob", Goodbye())
    assert [delivery.attempt for delivery in driver.lease("ann", "q", 2)] == [2, 1], "no suspects: nobody died"
    assert driver.attach("bob", held=[]) == (False, [])


# -- recalls


def test_who_waits_gets_back_what_a_busy_one_has_not_begun(driver: Driver) -> None:
    driver.fill("cleo", "q", 10)
    held = driver.lease("ann", "q", 10, begin_n=1)
    rid = driver.wait_lease("bob", "q", 10)
    driver.advance(0.004)
    assert recalls_of(driver, "ann") == []
    driver.advance(0.002)
    assert recalls_of(driver, "ann") == [Recall("q", 5)]
    driver.send("ann", Recalled("q", [delivery.token for delivery in held[5:]]))
    granted = driver.reply("bob", rid).deliveries
    assert ids(granted) == ids(held[5:])
    assert {delivery.attempt for delivery in granted} == {1}


def test_empty_is_said_only_after_the_holders_have_answered(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    held = driver.lease("ann", "q", 2, begin_n=1)
    rid = driver.wait_lease("bob", "q", wait_s=0.0)
    assert driver.reply("bob", rid) is None
    assert recalls_of(driver, "ann") == [Recall("q", 1)]
    driver.send("ann", Begin("q", [held[1].token]), Recalled("q", []))
    assert driver.reply("bob", rid) == Granted(rid, [])


def test_empty_waits_no_longer_than_recall_answer_s(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    driver.lease("ann", "q", 2, begin_n=1)
    rid = driver.wait_lease("bob", "q", wait_s=0.0)
    driver.advance(0.9)
    assert driver.reply("bob", rid) is None
    driver.advance(0.2)
    assert driver.reply("bob", rid) == Granted(rid, [])


def test_one_recall_at_a_time_for_each_holder(driver: Driver) -> None:
    driver.fill("cleo", "q", 9)
    driver.lease("ann", "q", 9, begin_n=1)
    driver.wait_lease("bob", "q", wait_s=0.0)
    driver.wait_lease("cleo", "q", wait_s=0.0)
    assert len(recalls_of(driver, "ann")) == 1


def test_a_holder_that_is_away_is_not_waited_for(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    driver.lease("ann", "q", 2, begin_n=1)
    rid = driver.wait_lease("bob", "q", wait_s=0.0)
    driver.detach("ann")
    assert driver.reply("bob", rid) == Granted(rid, [])
    assert driver.lease("bob", "q") == []


def test_a_holder_that_went_away_after_settling_all_is_not_waited_for(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    held = driver.lease("ann", "q", 2, begin_n=1)
    rid = driver.wait_lease("bob", "q", wait_s=0.0)
    driver.settle("ann", *[delivery.token for delivery in held])
    assert driver.reply("bob", rid) is None
    driver.detach("ann")
    assert driver.reply("bob", rid) == Granted(rid, [])


def test_a_lease_that_nobody_waits_behind_recalls_nothing(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    driver.lease("ann", "q", 2, begin_n=1)
    assert driver.lease("bob", "q", 5, begin_n=0) == []
    assert recalls_of(driver, "ann") == []


def test_a_begun_delivery_cannot_be_recalled(driver: Driver) -> None:
    driver.fill("cleo", "q", 2)
    held = driver.lease("ann", "q", 2, begin_n=2)
    driver.send("ann", Recalled("q", [delivery.token for delivery in held]))
    assert driver.stats("q").leased == 2


# -- the engine's own absence


def test_time_in_which_the_engine_did_not_run_counts_against_no_lease(driver: Driver) -> None:
    driver.fill("ann", "q", 1)
    delivery = driver.one("bob", "q")
    driver.clock.advance(300)
    driver.tick()
    assert driver.settle("bob", delivery.token) == []


def test_after_a_restart_leases_stand_until_their_sessions_had_lease_s_to_come_back() -> None:
    driver = Driver(is_journaled=True)
    driver.attach("ann")
    driver.attach("bob")
    driver.fill("ann", "q", 2)
    hers, his = driver.one("ann", "q"), driver.one("bob", "q")
    driver.restart()
    driver.advance(29)
    assert driver.attach("ann", held=[hers.token]) == (True, [])
    driver.advance(2)
    assert driver.settle("ann", hers.token) == []
    again = driver.one("ann", "q")
    assert (again.message.id, again.attempt) == (his.message.id, 2)
    assert again.token > his.token


def test_nobody_is_woken_while_nothing_is_to_come(driver: Driver) -> None:
    assert driver.core.next_due() is None
    driver.fill("ann", "q", 1)
    driver.wait_lease("ann", "other")
    assert driver.core.next_due() is None
    driver.settle("ann", driver.one("ann", "q").token)
    driver.advance(61)
    assert driver.core.next_due() is None
