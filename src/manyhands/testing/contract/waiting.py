"""Parked requests: they wait without standing in anybody's way, and end as they should."""

from __future__ import annotations

import time

from manyhands import events
from manyhands.testing.contract.peer import Peer, eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage


def rid(request: events.Request) -> int:
    assert isinstance(request, events.Lease | events.Join | events.Result)
    return request.rid


class WaitingPromises(ContractBase):
    def test_a_waiting_lease_is_answered_by_a_put(self, stage: Stage) -> None:
        consumer, producer = stage.peer(), stage.peer()
        waiting = consumer.start_lease("q", wait_s=events.FOREVER)
        consumer.ping()
        assert producer.size("q").waiting == 1
        producer.put_bodies("q", b"work")
        (delivery,) = waiting.expect(events.Granted).deliveries
        assert delivery.message.body == b"work"
        assert producer.size("q").waiting == 0

    def test_a_lease_that_does_not_wait_is_answered_at_once(self, stage: Stage) -> None:
        assert stage.peer().lease("nothing here", wait_s=0.0) == []

    def test_a_waiting_lease_ends_empty_after_its_time(self, stage: Stage) -> None:
        peer = stage.peer()
        asked = time.monotonic()
        assert peer.lease("q", wait_s=0.15) == []
        assert time.monotonic() - asked >= 0.14

    def test_a_waiting_lease_blocks_nothing_behind_it(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("work", b"1")
        waiting = peer.start_lease("empty", wait_s=events.FOREVER)
        held = peer.take("work")
        peer.put_bodies("elsewhere", b"2")
        assert peer.ack(held)
        assert peer.take("elsewhere").message.body == b"2"
        assert not waiting.is_answered

    def test_who_waited_longest_is_served_first(self, stage: Stage) -> None:
        consumers = [stage.peer(str(n)) for n in range(3)]
        waiting = []
        for consumer in consumers:
            waiting.append(consumer.start_lease("q", wait_s=events.FOREVER))
            consumer.ping()
        producer = stage.peer()
        for n, pending in enumerate(waiting):
            producer.put_bodies("q", str(n).encode())
            (delivery,) = pending.expect(events.Granted).deliveries
            assert delivery.message.body == str(n).encode()
            assert not any(later.is_answered for later in waiting[n + 1 :])

    def test_one_session_may_wait_in_several_places(self, stage: Stage) -> None:
        peer, producer = stage.peer(), stage.peer()
        first = peer.start_lease("a", wait_s=events.FOREVER)
        second = peer.start_lease("a", wait_s=events.FOREVER)
        third = peer.start_lease("b", wait_s=events.FOREVER)
        peer.ping()
        producer.put_bodies("b", b"for third")
        assert third.expect(events.Granted).deliveries[0].message.body == b"for third"
        producer.put_bodies("a", b"for first", b"for second")
        assert first.expect(events.Granted).deliveries[0].message.body == b"for first"
        assert second.expect(events.Granted).deliveries[0].message.body == b"for second"

    def test_a_withdrawn_lease_ends_empty_and_takes_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        waiting = peer.start_lease("q", wait_s=events.FOREVER)
        peer.tell(events.Withdraw(rid(waiting.request)))
        assert waiting.expect(events.Granted).deliveries == []
        peer.put_bodies("q", b"work")
        assert peer.size("q").ready == 1

    def test_withdrawing_what_was_answered_changes_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        pending = peer.start_lease("q", wait_s=events.FOREVER)
        (delivery,) = pending.expect(events.Granted).deliveries
        peer.tell(events.Withdraw(rid(pending.request)))
        peer.ping()
        assert peer.ack(delivery)

    def test_a_withdrawn_join_is_answered_with_what_is_unfinished(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        waiting = peer.start(events.Join(0, "q", events.FOREVER))
        peer.tell(events.Withdraw(rid(waiting.request)))
        assert waiting.expect(events.Count).n == 1

    def test_what_others_have_not_begun_is_recalled_before_a_lease_ends_empty(self, stage: Stage) -> None:
        hoarder, other = stage.peer("hoarder"), stage.peer("other")
        other.put_bodies("q", b"1", b"2", b"3")
        _, two, three = hoarder.lease("q", 3, begin_n=1)
        waiting = other.start_lease("q", wait_s=0.0)
        recall = _recall(hoarder)
        assert recall.queue == "q"
        assert recall.n >= 1
        assert not waiting.is_answered, "told there is nothing although something was not begun"
        hoarder.tell(events.Recalled("q", [two.token, three.token]))
        (delivery,) = waiting.expect(events.Granted).deliveries
        assert (delivery.message.body, delivery.attempt) == (b"2", 1)
        assert not hoarder.ack(two), "what was given back is no longer held"
        assert other.take("q").message.body == b"3"

    def test_a_lease_that_waits_has_the_unbegun_recalled_too(self, stage: Stage) -> None:
        hoarder, other = stage.peer(), stage.peer()
        other.put_bodies("q", b"1", b"2")
        _, two = hoarder.lease("q", 2, begin_n=1)
        waiting = other.start_lease("q", wait_s=events.FOREVER)
        assert _recall(hoarder).queue == "q"
        hoarder.tell(events.Recalled("q", [two.token]))
        assert waiting.expect(events.Granted).deliveries[0].message.body == b"2"

    def test_when_nothing_is_given_back_the_lease_ends_empty(self, stage: Stage) -> None:
        hoarder, other = stage.peer(), stage.peer()
        other.put_bodies("q", b"1")
        (held,) = hoarder.lease("q", begin_n=0)
        waiting = other.start_lease("q", wait_s=0.0)
        _recall(hoarder)
        hoarder.begin("q", held)
        hoarder.tell(events.Recalled("q", []))
        assert waiting.expect(events.Granted).deliveries == []
        assert hoarder.ack(held)

    def test_a_holder_that_does_not_answer_a_recall_cannot_keep_others_waiting(self, stage: Stage) -> None:
        stage.limit(recall_answer_s=0.2)
        mute, other = stage.peer("mute"), stage.peer("other")
        other.put_bodies("q", b"1")
        (held,) = mute.lease("q", begin_n=0)
        assert other.lease("q", wait_s=0.0) == []
        assert mute.ack(held), "an unanswered recall must not cost the lease"

    def test_a_refill_recalls_nothing(self, stage: Stage) -> None:
        holder, other = stage.peer(), stage.peer()
        other.put_bodies("q", b"1")
        holder.lease("q", begin_n=0)
        assert other.lease("q", begin_n=0, wait_s=0.0) == []
        holder.ping()
        assert holder.recalls == []

    def test_what_was_begun_is_not_recalled(self, stage: Stage) -> None:
        busy, other = stage.peer(), stage.peer()
        other.put_bodies("q", b"1")
        busy.take("q")
        assert other.lease("q", wait_s=0.1) == []
        busy.ping()
        assert busy.recalls == []

    def test_a_delivery_that_came_back_wakes_who_waits(self, stage: Stage) -> None:
        holder, other = stage.peer(), stage.peer()
        holder.put("q", message(b"work"))
        held = holder.take("q")
        waiting = other.start_lease("q", wait_s=events.FOREVER)
        other.ping()
        holder.nack(held)
        (delivery,) = waiting.expect(events.Granted).deliveries
        assert (delivery.message.body, delivery.attempt) == (b"work", 2)


def _recall(peer: Peer) -> events.Recall:
    eventually(lambda: bool(peer.recalls), "a recall arrives")
    return peer.recalls[0]
