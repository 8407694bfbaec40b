"""In which order messages come, and when."""

from __future__ import annotations

import time

from manyhands import model
from manyhands.testing.contract.peer import message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


def bodies(deliveries: list[model.Delivery]) -> list[bytes]:
    return [delivery.message.body for delivery in deliveries]


class OrderPromises(ContractBase):
    def test_a_message_arrives_as_it_was_put(self, stage: Stage) -> None:
        peer = stage.peer()
        sent = model.Message("an id", b"\x00\xff body", b"seal", kind=1, priority=2, max_deliveries=7)
        peer.put("q", sent)
        delivery = peer.take("q")
        assert delivery.message == sent
        assert delivery.attempt == 1

    def test_what_is_put_first_comes_first(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        peer.put_bodies("q", b"3")
        assert bodies([peer.take("q") for _ in range(3)]) == [b"1", b"2", b"3"]

    def test_one_lease_may_take_several_oldest_first(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3", b"4")
        assert bodies(peer.lease("q", 3)) == [b"1", b"2", b"3"]

    def test_a_lease_is_answered_with_fewer_than_it_asked_for(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        assert bodies(peer.lease("q", 100, wait_s=60.0)) == [b"1"]

    def test_queues_do_not_mix(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("a", b"in a")
        peer.put_bodies("b", b"in b")
        assert peer.take("b").message.body == b"in b"
        assert peer.take("a").message.body == b"in a"

    @needs("priorities")
    def test_a_larger_priority_comes_sooner(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", *[message(str(n).encode(), priority=n) for n in (0, -9, 9, 3)])
        assert bodies(peer.lease("q", 4)) == [b"9", b"3", b"0", b"-9"]

    @needs("priorities")
    def test_within_one_priority_the_order_of_putting_is_kept(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"1"), message(b"a", priority=5), message(b"2"), message(b"b", priority=5))
        assert bodies(peer.lease("q", 4)) == [b"a", b"b", b"1", b"2"]

    def test_what_was_given_back_comes_before_everything_else(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        first = peer.take("q")
        assert peer.release(first)
        assert peer.take("q").message.body == b"1"

    @needs("priorities")
    def test_what_was_given_back_comes_before_a_larger_priority(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"low")
        low = peer.take("q")
        peer.put("q", message(b"high", priority=9))
        assert peer.nack(low)
        assert bodies([peer.take("q"), peer.take("q")]) == [b"low", b"high"]

    def test_what_was_given_back_comes_oldest_first(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3", b"4")
        for delivery in reversed(peer.lease("q", 3)):
            assert peer.release(delivery)
        assert bodies([peer.take("q") for _ in range(4)]) == [b"1", b"2", b"3", b"4"]

    @needs("delays")
    def test_a_delayed_message_is_not_delivered_before_it_is_due(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"later", due_at=time.time() + 60.0), message(b"now"))
        assert bodies(peer.lease("q", 2)) == [b"now"]
        assert peer.lease("q") == []
        assert peer.size("q").delayed == 1

    @needs("delays")
    def test_a_message_that_becomes_due_wakes_who_waits(self, stage: Stage) -> None:
        peer = stage.peer()
        due_at = time.time() + 0.2
        peer.put("q", message(b"later", due_at=due_at))
        assert peer.take("q").message.body == b"later"
        assert time.time() >= due_at - 0.02, "delivered before it was due"

    @needs("delays")
    def test_a_nack_with_a_delay_comes_again_after_it(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        assert peer.nack(peer.take("q"), delay_s=0.2)
        assert peer.lease("q") == []
        again = peer.take("q")
        assert (again.message.body, again.attempt) == (b"1", 2)

    def test_a_message_past_its_expiry_is_dropped_undelivered(self, stage: Stage) -> None:
        peer = stage.peer()
        old = message(b"old", options=model.Options(expires_at=time.time() - 1.0))
        peer.put("q", old, message(b"fresh"))
        assert bodies(peer.lease("q", 2)) == [b"fresh"]
        assert peer.lease("q") == []
        assert peer.size("q").unfinished == 1, "an expired message is nobody's unfinished work"
