"""Deliveries are counted at hand-out; poison ends as a dead letter, its neighbours are not blamed."""

from __future__ import annotations

import time

from manyhands.testing.contract.peer import message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class CountingPromises(ContractBase):
    def test_every_delivery_is_counted_at_hand_out(self, stage: Stage) -> None:
        parent = stage.peer()
        parent.put_bodies("q", b"work", max_deliveries=9)
        attempts = []
        for _ in range(3):
            child = stage.peer()
            attempts.append(child.take("q").attempt)
            parent.report_dead(child.session)
        assert attempts == [1, 2, 3]

    def test_a_release_is_charged_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work", max_deliveries=1)
        for _ in range(3):
            delivery = peer.take("q")
            assert delivery.attempt == 1
            assert peer.release(delivery)
        assert peer.dead("q") == []

    def test_what_no_get_returned_is_charged_nothing_when_its_holder_dies(self, stage: Stage) -> None:
        child, parent = stage.peer(), stage.peer()
        parent.put_bodies("q", b"begun", b"prefetched", max_deliveries=2)
        child.lease("q", 2, begin_n=1)
        parent.report_dead(child.session)
        begun, prefetched = parent.take("q"), parent.take("q")
        assert (begun.message.body, begun.attempt) == (b"begun", 2)
        assert (prefetched.message.body, prefetched.attempt) == (b"prefetched", 1)

    def test_what_was_begun_later_is_charged_from_then(self, stage: Stage) -> None:
        child, parent = stage.peer(), stage.peer()
        parent.put_bodies("q", b"work")
        child.begin("q", *child.lease("q", begin_n=0))
        child.ping()
        parent.report_dead(child.session)
        assert parent.take("q").attempt == 2

    def test_what_was_with_a_lost_consumer_travels_alone(self, stage: Stage) -> None:
        child, parent = stage.peer(), stage.peer()
        parent.put_bodies("q", b"1", b"2", b"3", b"4")
        child.lease("q", 2, begin_n=1)
        parent.report_dead(child.session)
        assert [d.message.body for d in parent.lease("q", 10)] == [b"1"]
        assert [d.message.body for d in parent.lease("q", 10)] == [b"2"]
        assert [d.message.body for d in parent.lease("q", 10)] == [b"3", b"4"]

    def test_a_message_whose_consumers_all_die_becomes_a_dead_letter_with_its_history(self, stage: Stage) -> None:
        parent = stage.peer("parent")
        parent.put("q", message(b"poison", id="poison", max_deliveries=2))
        before = time.time()
        for name in ("first", "second"):
            child = stage.peer(name)
            child.take("q")
            parent.report_dead(child.session, "exit code -11")
        assert parent.lease("q") == []
        (letter,) = parent.dead("q")
        assert (letter.queue, letter.message.id, letter.message.body) == ("q", "poison", b"poison")
        assert letter.reason
        assert before - 1 <= letter.died_at <= time.time() + 1
        assert [(a.attempt, a.consumer, a.outcome) for a in letter.history] == [
            (1, "first", "lost"),
            (2, "second", "lost"),
        ]

    def test_a_dying_consumer_does_not_bury_what_lay_beside_the_poison(self, stage: Stage) -> None:
        parent = stage.peer()
        parent.put_bodies("q", b"poison", b"harmless", max_deliveries=2)
        child = stage.peer()
        child.lease("q", 2)
        parent.report_dead(child.session)
        child = stage.peer()
        assert [d.message.body for d in child.lease("q", 2)] == [b"poison"], "the suspects travelled together"
        parent.report_dead(child.session)
        assert [letter.message.body for letter in parent.dead("q")] == [b"poison"]
        assert parent.ack(parent.take("q"))

    def test_max_deliveries_of_one_means_at_most_once(self, stage: Stage) -> None:
        child, parent = stage.peer(), stage.peer()
        parent.put_bodies("q", b"once", max_deliveries=1)
        child.take("q")
        parent.report_dead(child.session)
        assert parent.lease("q") == []
        assert len(parent.dead("q")) == 1

    def test_a_nack_at_the_limit_makes_a_dead_letter(self, stage: Stage) -> None:
        peer = stage.peer("me")
        peer.put_bodies("q", b"work", max_deliveries=2)
        assert peer.nack(peer.take("q"), reason="first")
        assert peer.nack(peer.take("q"), reason="second")
        (letter,) = peer.dead("q")
        assert [(a.attempt, a.consumer, a.outcome, a.reason) for a in letter.history] == [
            (1, "me", "nack", "first"),
            (2, "me", "nack", "second"),
        ]

    def test_a_rejected_message_is_a_dead_letter_at_once(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        assert peer.reject(peer.take("q"), reason="cannot be parsed")
        assert peer.lease("q") == []
        (letter,) = peer.dead("q")
        assert "cannot be parsed" in letter.reason
        assert [a.outcome for a in letter.history] == ["reject"]

    def test_a_dead_letter_is_nobodys_unfinished_work(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        peer.reject(peer.take("q"))
        assert peer.join("q") == 0

    def test_dead_letters_are_listed_newest_first_and_by_id(self, stage: Stage) -> None:
        peer = stage.peer()
        for queue, name in (("a", "1"), ("b", "2"), ("a", "3")):
            peer.put(queue, message(id=name))
            peer.reject(peer.take(queue))
        assert [letter.message.id for letter in peer.dead()] == ["3", "2", "1"]
        assert [letter.message.id for letter in peer.dead("a")] == ["3", "1"]
        assert [letter.message.id for letter in peer.dead("", "2")] == ["2"]
        assert [letter.message.id for letter in peer.dead(limit=1)] == ["3"]

    def test_a_retried_dead_letter_goes_to_the_tail_with_a_fresh_count(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"again", id="again", max_deliveries=1), message(b"stays dead", id="stays"))
        for delivery in peer.lease("q", 2):
            peer.reject(delivery)
        peer.put_bodies("q", b"waiting")
        assert peer.dead_retry("q", "again") == 1
        assert [letter.message.id for letter in peer.dead("q")] == ["stays"]
        assert peer.take("q").message.body == b"waiting"
        retried = peer.take("q")
        assert (retried.message.body, retried.attempt) == (b"again", 1)
        assert peer.join("q") == 2

    def test_all_dead_letters_can_be_retried_or_dropped(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(id="1"), message(id="2"))
        for delivery in peer.lease("q", 2):
            peer.reject(delivery)
        assert peer.dead_retry("q") == 2
        for _ in range(2):
            peer.reject(peer.take("q"))
        assert peer.dead_drop("q", "1") == 1
        assert peer.dead_drop("q", "1") == 0
        assert peer.dead_drop("q") == 1
        assert peer.dead("q") == []
        assert peer.size("q").dead == 0

    @needs("survives_restart")
    def test_counts_and_dead_letters_survive_a_restart(self, stage: Stage) -> None:
        peer = stage.peer("me")
        peer.put("q", message(b"dead", id="dead"), message(b"tried", id="tried"))
        dead, tried = peer.lease("q", 2)
        peer.reject(dead, reason="no")
        peer.nack(tried, reason="not yet")
        stage.restart()
        after = stage.peer()
        (letter,) = after.dead("q")
        assert (letter.message.body, [a.reason for a in letter.history]) == (b"dead", ["no"])
        assert after.take("q").attempt == 2

    @needs("survives_restart")
    def test_suspects_still_travel_alone_after_a_restart(self, stage: Stage) -> None:
        child, parent = stage.peer(), stage.peer()
        parent.put_bodies("q", b"1", b"2")
        child.lease("q", 2)
        parent.report_dead(child.session)
        stage.restart()
        assert [d.message.body for d in stage.peer().lease("q", 10)] == [b"1"]
