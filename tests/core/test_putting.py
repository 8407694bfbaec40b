"""What a put promises: all or none, in order, bounded, and once however often it is sent."""

from __future__ import annotations

import math
from typing import Any

import pytest

from manyhands.events import Begin, Declare, Done, Join, Lease, Put, Withdraw
from manyhands.lifecycle.replay import replay
from manyhands.model import Limits, Message, Options

from .driver import Driver, code_of, ids


@pytest.fixture
def driver() -> Driver:
    driver = Driver()
    driver.attach("ann")
    driver.attach("bob")
    return driver


def bounded(driver: Driver, maxsize: int) -> None:
    driver.send("ann", Declare(0, "q", maxsize))


def put_waiting(driver: Driver, session: str, n: int, *, wait_s: float = -1.0) -> Put:
    """A put that is expected to wait for room."""
    seq = driver.seq(session, "q")
    request = Put(driver.rid(), "q", seq, 1, [driver.message() for _ in range(n)], wait_s)
    driver.send(session, request)
    return request


def test_first_deliveries_are_fifo_within_a_priority_and_larger_is_sooner(driver: Driver) -> None:
    for name, priority in ("a", 0), ("b", -9), ("c", 9), ("d", 0), ("e", 9):
        driver.put("ann", "q", driver.message(id=name, priority=priority))
    assert ids(driver.lease("bob", "q", 10)) == ["c", "e", "a", "d", "b"]


def test_a_delayed_message_comes_when_it_is_due_and_not_before(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(id="late", due_at=driver.clock.wall + 5))
    rid = driver.wait_lease("bob", "q")
    driver.advance(4.9)
    assert driver.reply("bob", rid) is None
    driver.advance(0.2)
    assert ids(driver.reply("bob", rid).deliveries) == ["late"]


def test_a_message_that_expires_is_dropped_and_counts_as_finished(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(options=Options(expires_at=driver.clock.wall + 5)))
    assert driver.stats("q").unfinished == 1
    driver.advance(6)
    stats = driver.stats("q")
    assert (stats.ready, stats.unfinished) == (0, 0)
    assert driver.lease("bob", "q") == []


def test_an_expired_message_is_not_dropped_from_the_hands_that_hold_it(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(options=Options(expires_at=driver.clock.wall + 5)))
    delivery = driver.one("bob", "q")
    driver.advance(6)
    assert driver.settle("bob", delivery.token) == []


def test_an_expired_message_that_comes_back_is_dropped(driver: Driver) -> None:
    driver.put("ann", "q", driver.message(options=Options(expires_at=driver.clock.wall + 5)))
    delivery = driver.one("bob", "q")
    driver.advance(6)
    driver.settle("bob", delivery.token, kind=1)
    assert driver.stats("q").ready == 0


def test_a_put_to_a_full_queue_is_refused_when_it_does_not_wait(driver: Driver) -> None:
    bounded(driver, 2)
    driver.fill("ann", "q", 2)
    assert code_of(driver.put("ann", "q", driver.message())) == "full"


def test_the_bound_counts_what_no_get_has_returned(driver: Driver) -> None:
    bounded(driver, 2)
    driver.fill("ann", "q", 2)
    held = driver.lease("bob", "q", 2, begin_n=1)
    assert isinstance(driver.put("ann", "q", driver.message()), Done)
    assert code_of(driver.put("ann", "q", driver.message())) == "full"
    driver.send("bob", Begin("q", [held[1].token]))
    assert isinstance(driver.put("ann", "q", driver.message()), Done)


def test_parked_puts_are_first_come_first_served_and_all_or_nothing(driver: Driver) -> None:
    bounded(driver, 3)
    driver.fill("ann", "q", 3)
    large = put_waiting(driver, "ann", 2)
    small = put_waiting(driver, "bob", 1)
    driver.one("ann", "q")
    assert driver.reply("ann", large.rid) is None
    assert driver.reply("bob", small.rid) is None, "a later put must not overtake"
    driver.one("ann", "q")
    assert driver.reply("ann", large.rid) == Done(large.rid)
    assert driver.reply("bob", small.rid) is None
    driver.one("ann", "q")
    assert driver.reply("bob", small.rid) == Done(small.rid)
    assert ids(driver.lease("ann", "q", 9)) == [m.id for m in large.messages + small.messages]


def test_a_parked_put_is_refused_when_its_wait_is_over(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    request = put_waiting(driver, "ann", 1, wait_s=2.0)
    driver.advance(1.9)
    assert driver.reply("ann", request.rid) is None
    driver.advance(0.2)
    assert code_of(driver.reply("ann", request.rid)) == "full"
    driver.one("bob", "q")
    assert driver.stats("q").put_total == 1


def test_a_parked_put_can_be_withdrawn(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    request = put_waiting(driver, "ann", 1)
    driver.send("ann", Withdraw(request.rid))
    assert code_of(driver.reply("ann", request.rid)) == "full"


def test_a_parked_put_sent_again_waits_along_and_is_put_once(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    first = put_waiting(driver, "ann", 1)
    again = Put(driver.rid(), "q", first.seq, 1, first.messages)
    driver.send("ann", again)
    driver.one("bob", "q")
    assert driver.reply("ann", first.rid) == Done(first.rid)
    assert driver.reply("ann", again.rid) == Done(again.rid)
    assert driver.stats("q").put_total == 2


def test_a_parked_put_sent_again_after_a_lost_connection_is_put_once(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    request = put_waiting(driver, "ann", 1)
    driver.detach("ann")
    driver.one("bob", "q")
    assert driver.stats("q").put_total == 1, "nobody is there to hear that it was put"
    driver.attach("ann", held=[])
    driver.send("ann", request)
    assert driver.reply("ann", request.rid) == Done(request.rid)
    driver.send("ann", request)
    assert driver.stats("q").put_total == 2


def test_redelivery_exceeds_the_bound_and_never_blocks(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    delivery = driver.one("bob", "q")
    driver.fill("ann", "q", 1)
    driver.settle("bob", delivery.token, kind=1)
    assert driver.stats("q").ready == 2


def test_more_at_once_than_the_bound_can_ever_hold_is_a_usage_error(driver: Driver) -> None:
    bounded(driver, 2)
    assert code_of(driver.put("ann", "q", *[driver.message() for _ in range(3)], wait_s=-1)) == "usage"


def test_maxsize_0_keeps_the_bound_and_another_one_is_a_usage_error(driver: Driver) -> None:
    bounded(driver, 2)
    assert isinstance(driver.ask("bob", Declare(driver.rid(), "q", 0)), Done)
    assert isinstance(driver.ask("bob", Declare(driver.rid(), "q", 2)), Done)
    assert code_of(driver.ask("bob", Declare(driver.rid(), "q", 3))) == "usage"
    assert driver.stats("q").maxsize == 2


def test_sending_a_put_twice_is_sending_it_once(driver: Driver) -> None:
    request = Put(1, "q", 1, 1, [driver.message()])
    assert driver.ask("ann", request) == driver.ask("ann", request) == Done(1)
    assert driver.stats("q").ready == 1


def test_a_refused_put_may_be_tried_anew_with_its_seq(driver: Driver) -> None:
    bounded(driver, 1)
    driver.fill("ann", "q", 1)
    refused = Put(driver.rid(), "q", driver.seq("ann", "q"), 1, [driver.message()], 0.0)
    assert code_of(driver.ask("ann", refused)) == "full"
    driver.one("bob", "q")
    later = Put(driver.rid(), "q", driver.seq("ann", "q"), 1, [driver.message()], 0.0)
    assert isinstance(driver.ask("ann", later), Done)
    driver.one("bob", "q")
    assert isinstance(driver.ask("ann", refused), Done)
    assert driver.stats("q").put_total == 3, "it was applied, not taken for a resend"


def test_a_put_under_a_lease_is_made_once_per_leased_message(driver: Driver) -> None:
    driver.fill("ann", "tasks", 1)
    first = driver.one("ann", "tasks")
    result = driver.message(id="derived")
    assert isinstance(driver.put("ann", "results", result, cause=first.token), Done)
    driver.detach("ann", is_dead=True)
    second = driver.one("bob", "tasks")
    assert isinstance(driver.put("bob", "results", result, driver.message(id="other"), cause=second.token), Done)
    assert ids(driver.lease("bob", "results", 5)) == ["derived", "other"]


def test_a_put_under_a_stale_lease_is_refused(driver: Driver) -> None:
    driver.fill("ann", "tasks", 1)
    delivery = driver.one("ann", "tasks")
    assert code_of(driver.put("bob", "results", driver.message(), cause=delivery.token)) == "lease_lost"
    driver.settle("ann", delivery.token)
    assert code_of(driver.put("ann", "results", driver.message(), cause=delivery.token)) == "lease_lost"


def test_a_refused_put_gives_back_the_lease_that_it_was_made_under(driver: Driver) -> None:
    driver.fill("ann", "tasks", 1)
    delivery = driver.one("ann", "tasks")
    assert code_of(driver.put("ann", "results", driver.message(priority=99), cause=delivery.token)) == "usage"
    assert driver.settle("ann", delivery.token) == [delivery.token]
    assert driver.one("bob", "tasks").attempt == 2


def test_an_id_given_by_the_caller_is_put_once_until_dedupe_s_after_completion() -> None:
    driver = Driver(limits=Limits(dedupe_s=60))
    driver.attach("ann")
    message = driver.message(id="order-17", options=Options(dedupe=True))
    driver.put("ann", "q", message, message)
    assert driver.stats("q").put_total == 1
    delivery = driver.one("ann", "q")
    driver.put("ann", "q", message)
    driver.settle("ann", delivery.token)
    driver.advance(59)
    driver.put("ann", "q", message)
    assert driver.stats("q").put_total == 1
    driver.advance(2)
    driver.put("ann", "q", message)
    assert driver.stats("q").put_total == 2


def test_watermarks_and_caller_given_ids_survive_a_restart() -> None:
    driver = Driver(is_journaled=True)
    driver.attach("ann")
    request = Put(1, "q", 1, 1, [driver.message(id="order-17", options=Options(dedupe=True))])
    driver.ask("ann", request)
    driver.settle("ann", driver.one("ann", "q").token)
    driver.restart()
    driver.attach("ann", held=[])
    assert driver.ask("ann", request) == Done(1)
    driver.put("ann", "q", *request.messages)
    assert driver.stats("q").ready == 0


def test_an_unjournaled_core_emits_no_changes_and_a_journaled_one_says_all() -> None:
    driver = Driver()
    driver.attach("ann")
    driver.fill("ann", "q", 3)
    assert driver.store.snapshot() == replay([])
    driver = Driver(is_journaled=True)
    driver.attach("ann")
    driver.fill("ann", "q", 3)
    assert len(driver.store.snapshot().messages) == 3


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"priority": 10}, "usage"),
        ({"priority": 0.5}, "usage"),
        ({"priority": "high"}, "usage"),
        ({"kind": 7}, "usage"),
        ({"max_deliveries": 0}, "usage"),
        ({"max_deliveries": "three"}, "usage"),
        ({"id": "\ud800"}, "usage"),
        ({"due_at": math.nan}, "usage"),
        ({"due_at": math.inf}, "usage"),
        ({"due_at": "now"}, "usage"),
        ({"options": Options(expires_at=math.nan)}, "usage"),
        ({"options": "none"}, "usage"),
        ({"body": b"x" * 101}, "payload_too_large"),
        ({"body": None}, "usage"),
    ],
)
def test_a_bad_message_is_refused_with_a_sentence_and_nothing_is_put(headers: dict[str, Any], code: str) -> None:
    driver = Driver(limits=Limits(max_body_bytes=100))
    driver.attach("ann")
    good = driver.message()
    bad = Message(**{"id": "bad", "body": b"x", "priority": 1} | headers)
    assert code_of(driver.put("ann", "q", good, bad)) == code
    assert driver.stats("q").put_total == 0
    assert isinstance(driver.put("ann", "q", good), Done), "the engine lives on"


@pytest.mark.parametrize("name", ["", "x" * 256, 7, None, "\ud800"])
def test_a_bad_queue_name_is_refused(driver: Driver, name: Any) -> None:
    assert code_of(driver.ask("ann", Put(driver.rid(), name, 0, 0, [driver.message()]))) == "usage"


@pytest.mark.parametrize("seq", [10**12, 2**63 - 1])
def test_a_seq_out_of_the_world_is_refused_and_fills_no_memory(driver: Driver, seq: int) -> None:
    assert code_of(driver.ask("ann", Put(driver.rid(), "q", seq, 1, [driver.message()]))) == "usage"


def test_a_seq_that_no_store_can_keep_is_refused(driver: Driver) -> None:
    assert code_of(driver.ask("ann", Put(driver.rid(), "q", 2**63, 2**63, [driver.message()]))) == "usage"
    assert code_of(driver.ask("ann", Declare(driver.rid(), "q", 2**63))) == "usage"


@pytest.mark.parametrize("wait_s", [math.nan, math.inf, -math.inf, "long"])
def test_a_wait_that_is_no_number_is_refused_and_leaves_no_timer(driver: Driver, wait_s: Any) -> None:
    driver.ask("ann", Declare(driver.rid(), "full", 1))
    driver.fill("ann", "full", 1)
    for request in (
        Lease(driver.rid(), "empty", 1, 1, wait_s),
        Put(driver.rid(), "full", 0, 0, [driver.message()], wait_s),
        Join(driver.rid(), "full", wait_s),
    ):
        assert code_of(driver.ask("ann", request)) == "usage"
    assert driver.core.next_due() is None
    assert driver.core.parked() == []
