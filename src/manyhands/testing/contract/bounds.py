"""Bounded queues: backpressure, all or none, in order."""

from __future__ import annotations

import queue

import pytest

from manyhands import errors, events
from manyhands.testing.contract.peer import eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class BoundPromises(ContractBase):
    @needs("bounded")
    def test_a_full_queue_refuses_at_once_when_nobody_waits(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        with pytest.raises(queue.Full):
            peer.put_bodies("q", b"2")
        assert peer.size("q").ready == 1

    @needs("bounded")
    def test_a_put_waits_for_room_and_then_says_full(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        with pytest.raises(queue.Full):
            peer.put("q", message(b"2"), wait_s=0.05)
        assert peer.take("q").message.body == b"1"
        assert peer.lease("q") == [], "the refused message was stored"

    @needs("bounded")
    def test_a_waiting_put_is_stored_when_there_is_room(self, stage: Stage) -> None:
        producer, consumer = stage.peer(), stage.peer()
        producer.declare("q", 1)
        producer.put_bodies("q", b"1")
        waiting = producer.start(producer.put_request("q", message(b"2"), wait_s=events.FOREVER))
        assert consumer.take("q").message.body == b"1"
        waiting.expect(events.Done)
        assert consumer.take("q").message.body == b"2"

    @needs("bounded")
    def test_several_messages_are_put_all_or_none(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 3)
        peer.put_bodies("q", b"1", b"2")
        with pytest.raises(queue.Full):
            peer.put_bodies("q", b"3", b"4")
        assert peer.size("q").ready == 2
        peer.put_bodies("q", b"3")
        assert peer.size("q").ready == 3

    @needs("bounded")
    def test_more_than_the_bound_can_ever_hold_is_refused_at_once(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 2)
        with pytest.raises(errors.UsageError):
            peer.put("q", message(), message(), message(), wait_s=events.FOREVER)
        assert peer.size("q").ready == 0

    @needs("bounded")
    def test_waiting_puts_are_stored_in_the_order_they_came(self, stage: Stage) -> None:
        big, small, consumer = stage.peer(), stage.peer(), stage.peer()
        big.declare("q", 2)
        big.put_bodies("q", b"1", b"2")
        first = big.start(big.put_request("q", message(b"3"), message(b"4"), wait_s=events.FOREVER))
        big.ping()
        second = small.start(small.put_request("q", message(b"5"), wait_s=events.FOREVER))
        small.ping()
        consumer.take("q")
        small.ping()
        assert not second.is_answered, "a small put overtook a large one that waited longer"
        consumer.take("q")
        first.expect(events.Done)
        assert not second.is_answered
        consumer.take("q")
        second.expect(events.Done)
        assert [consumer.take("q").message.body for _ in range(2)] == [b"4", b"5"]

    @needs("bounded")
    def test_a_withdrawn_put_is_answered_full_and_stores_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        waiting = peer.start(peer.put_request("q", message(b"2"), wait_s=events.FOREVER))
        peer.tell(events.Withdraw(waiting.request.rid))  # type: ignore[union-attr]
        assert waiting.refusal() == "full"
        peer.take("q")
        assert peer.lease("q") == []

    @needs("bounded")
    def test_a_put_that_waited_for_a_lost_connection_stores_nothing(self, stage: Stage) -> None:
        lost, other = stage.peer(), stage.peer()
        lost.declare("q", 1)
        lost.put_bodies("q", b"1")
        lost.start(lost.put_request("q", message(b"2"), wait_s=events.FOREVER))
        lost.ping()
        lost.cut()
        eventually(lambda: not other.sees(lost), "the engine notices the cut")
        other.take("q")
        assert other.lease("q") == []

    @needs("bounded")
    def test_what_is_given_back_may_exceed_the_bound(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        held = peer.take("q")
        peer.put_bodies("q", b"2")
        assert peer.release(held)
        assert peer.size("q").ready == 2

    @needs("bounded")
    def test_what_is_prefetched_still_counts_against_the_bound(self, stage: Stage) -> None:
        producer, consumer = stage.peer(), stage.peer()
        producer.declare("q", 2)
        producer.put_bodies("q", b"1", b"2")
        _, prefetched = consumer.lease("q", 2, begin_n=1)
        producer.put_bodies("q", b"3")
        with pytest.raises(queue.Full):
            producer.put_bodies("q", b"4")
        consumer.begin("q", prefetched)
        consumer.ping()
        producer.put_bodies("q", b"4")

    @needs("bounded")
    def test_a_beginning_makes_room_for_a_waiting_put(self, stage: Stage) -> None:
        producer, consumer = stage.peer(), stage.peer()
        producer.declare("q", 1)
        producer.put_bodies("q", b"1")
        (prefetched,) = consumer.lease("q", begin_n=0)
        waiting = producer.start(producer.put_request("q", message(b"2"), wait_s=events.FOREVER))
        producer.ping()
        assert not waiting.is_answered
        consumer.begin("q", prefetched)
        waiting.expect(events.Done)

    @needs("bounded")
    def test_a_conflicting_bound_is_refused_and_zero_keeps_what_there_is(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 5)
        peer.declare("q", 0)
        peer.declare("q", 5)
        assert peer.size("q").maxsize == 5
        with pytest.raises(errors.UsageError):
            peer.declare("q", 6)

    @needs("bounded", "survives_restart")
    def test_a_bound_survives_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 5)
        stage.restart()
        assert stage.peer().size("q").maxsize == 5
