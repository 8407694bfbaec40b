"""Sending twice is sending once: watermarks, ids given by the caller, puts under a lease."""

from __future__ import annotations

import queue

import pytest

from manyhands import events, model
from manyhands.testing.contract.peer import Pending, eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs

DEDUPE = model.Options(dedupe=True)


def done(pending: Pending) -> bool:
    """Whether it succeeded; raises what the refusal stands for otherwise."""
    pending.expect(events.Done)
    return True


class ResendPromises(ContractBase):
    def test_a_put_sent_again_is_one_put(self, stage: Stage) -> None:
        peer = stage.peer()
        request = peer.put_request("q", message(b"once"))
        assert done(peer.start(request))
        assert done(peer.start(request)), "a resend is answered as a success"
        assert peer.size("q").ready == 1

    def test_a_put_sent_again_after_a_lost_connection_is_one_put(self, stage: Stage) -> None:
        peer = stage.peer()
        request = peer.put_request("q", message(b"once"))
        assert done(peer.start(request))
        peer.cut()
        stage.resume(peer)
        assert done(peer.start(request))
        assert peer.size("q").ready == 1

    def test_a_put_sent_again_after_it_was_consumed_is_one_put(self, stage: Stage) -> None:
        peer = stage.peer()
        request = peer.put_request("q", message(b"once"))
        assert done(peer.start(request))
        assert peer.ack(peer.take("q"))
        assert done(peer.start(request))
        assert peer.lease("q") == []

    def test_each_session_and_each_queue_counts_for_itself(self, stage: Stage) -> None:
        one, two = stage.peer(), stage.peer()
        assert done(one.start(one.put_request("q", message(), seq=5)))
        assert done(two.start(two.put_request("q", message(), seq=5)))
        assert done(one.start(one.put_request("r", message(), seq=1)))
        assert one.size("q").ready == 2
        assert one.size("r").ready == 1

    @needs("bounded")
    def test_a_refused_put_can_be_sent_again(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"first")
        refused = peer.put_request("q", message(b"refused"), seq=2, floor=2)
        with pytest.raises(queue.Full):
            done(peer.start(refused))
        peer.ack(peer.take("q"))
        assert done(peer.start(peer.put_request("q", message(b"later"), seq=3, floor=2)))
        peer.ack(peer.take("q"))
        assert done(peer.start(refused)), "the hole that a refusal leaves is tried anew"
        assert peer.take("q").message.body == b"refused"
        assert done(peer.start(refused)), "and once only"
        assert peer.lease("q") == []

    @needs("bounded")
    def test_a_put_that_was_waiting_when_the_connection_broke_can_be_sent_again(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"first")
        request = peer.put_request("q", message(b"second"), wait_s=events.FOREVER)
        peer.start(request)
        peer.ping()
        peer.cut()
        eventually(lambda: not other.sees(peer), "the engine notices the cut")
        stage.resume(peer)
        waiting = peer.start(request)
        assert other.take("q").message.body == b"first"
        assert done(waiting)
        assert other.take("q").message.body == b"second"
        assert other.lease("q") == []

    def test_a_settle_sent_again_succeeds_and_changes_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        one = peer.take("q")
        request = peer.settle_request(model.Settlement(one.token, model.SettleKind.ACK, is_task_done=True))
        assert peer.start(request).expect(events.Settled).lost == []
        assert peer.start(request).expect(events.Settled).lost == [], "the first answer may have been lost on the way"
        assert peer.join("q") == 1

    def test_a_settle_that_came_too_late_says_so_again_when_sent_again(self, stage: Stage) -> None:
        late, holder = stage.peer(), stage.peer()
        late.put_bodies("q", b"work")
        stale = late.take("q")
        stage.resume(late)
        current = holder.take("q")
        request = late.settle_request(model.Settlement(stale.token))
        for _ in range(2):
            assert late.start(request).expect(events.Settled).lost == [stale.token]
        assert holder.ack(current)

    def test_a_task_done_sent_again_counts_once(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        request = events.TaskDone(0, peer.next_seq(""), 0, "q")
        assert done(peer.start(request))
        assert done(peer.start(request))
        assert peer.join("q") == 2

    @needs("dedupe")
    def test_a_callers_id_is_put_once(self, stage: Stage) -> None:
        one, two = stage.peer(), stage.peer()
        one.put("q", message(b"1", id="invoice 7", options=DEDUPE))
        two.put("q", message(b"2", id="invoice 7", options=DEDUPE), message(b"other"))
        assert [d.message.body for d in one.lease("q", 9)] == [b"1", b"other"]
        two.put("q", message(b"3", id="invoice 7", options=DEDUPE))
        assert two.lease("q") == [], "put again while it was leased"

    @needs("dedupe")
    def test_a_callers_id_is_remembered_after_completion(self, stage: Stage) -> None:
        peer = stage.peer()
        again = message(b"1", id="invoice 7", options=DEDUPE)
        peer.put("q", again)
        peer.ack(peer.take("q"))
        peer.put("q", again)
        assert peer.lease("q") == []

    @needs("dedupe")
    def test_a_callers_id_is_forgotten_after_dedupe_s(self, stage: Stage) -> None:
        stage.limit(dedupe_s=0.2)
        peer = stage.peer()
        again = message(b"1", id="invoice 7", options=DEDUPE)
        peer.put("q", again)
        peer.ack(peer.take("q"))

        def is_new() -> bool:
            peer.put("q", again)
            return peer.size("q").ready == 1

        assert not is_new()
        eventually(is_new, "the id is forgotten")

    def test_a_put_under_a_lease_is_made_once_though_the_message_runs_twice(self, stage: Stage) -> None:
        parent = stage.peer()
        parent.put_bodies("tasks", b"work", max_deliveries=9)
        for _ in range(3):
            child = stage.peer()
            lease = child.take("tasks")
            child.put("results", message(b"result", id="derived from the lease"), cause=lease.token)
            parent.report_dead(child.session)
        assert parent.take("results").message.body == b"result"
        assert parent.lease("results") == []

    def test_a_put_under_a_lease_is_made_once_though_the_first_was_consumed(self, stage: Stage) -> None:
        parent = stage.peer()
        parent.put_bodies("tasks", b"work", max_deliveries=9)
        for _ in range(2):
            child = stage.peer()
            lease = child.take("tasks")
            child.put("results", message(b"result", id="derived from the lease"), cause=lease.token)
            for delivery in parent.lease("results"):
                assert parent.ack(delivery)
            parent.report_dead(child.session)
        assert parent.size("results").put_total == 1

    def test_a_put_and_the_ack_of_its_cause_may_travel_together(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("tasks", b"work")
        lease = peer.take("tasks")
        put, settle = peer.start_all(
            peer.put_request("results", message(b"result"), cause=lease.token),
            peer.settle_request(model.Settlement(lease.token)),
        )
        assert done(put)
        assert settle.expect(events.Settled).lost == []
        assert peer.take("results").message.body == b"result"

    @needs("bounded")
    def test_a_refused_put_gives_back_the_lease_that_caused_it(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("results", 1)
        peer.put_bodies("results", b"occupied")
        peer.put_bodies("tasks", b"work")
        lease = peer.take("tasks")
        put, settle = peer.start_all(
            peer.put_request("results", message(b"result"), cause=lease.token),
            peer.settle_request(model.Settlement(lease.token)),
        )
        assert put.refusal() == "full"
        assert settle.expect(events.Settled).lost == [lease.token], "acked although its result was refused"
        again = peer.take("tasks")
        assert (again.message.body, again.attempt) == (b"work", 2)

    @needs("survives_restart")
    def test_a_put_sent_again_after_a_restart_is_one_put(self, stage: Stage) -> None:
        peer = stage.peer()
        request = peer.put_request("q", message(b"once"))
        assert done(peer.start(request))
        stage.restart()
        stage.resume(peer)
        assert done(peer.start(request))
        assert peer.size("q").ready == 1

    @needs("survives_restart", "bounded")
    def test_a_refused_put_can_be_sent_again_after_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"first")
        refused = peer.put_request("q", message(b"refused"), seq=2, floor=2)
        with pytest.raises(queue.Full):
            done(peer.start(refused))
        peer.ack(peer.take("q"))
        assert done(peer.start(peer.put_request("q", message(b"later"), seq=3, floor=2)))
        stage.restart()
        stage.resume(peer)
        peer.ack(peer.take("q"))
        assert done(peer.start(refused))
        assert peer.take("q").message.body == b"refused"

    @needs("survives_restart")
    def test_a_settle_sent_again_after_a_restart_succeeds(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        request = peer.settle_request(model.Settlement(peer.take("q").token))
        peer.start(request).expect(events.Settled)
        stage.restart()
        stage.resume(peer)
        assert peer.start(request).expect(events.Settled).lost == []

    @needs("survives_restart", "dedupe")
    def test_a_callers_id_is_remembered_across_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        waiting = message(b"waiting", id="waiting", options=DEDUPE)
        complete = message(b"complete", id="complete", options=DEDUPE)
        peer.put("q", complete)
        peer.ack(peer.take("q"))
        peer.put("q", waiting)
        stage.restart()
        after = stage.peer()
        after.put("q", waiting)
        after.put("q", complete)
        assert [d.message.body for d in after.lease("q", 9)] == [b"waiting"]

    @needs("survives_restart")
    def test_a_put_under_a_lease_is_made_once_across_a_restart(self, stage: Stage) -> None:
        stage.limit(lease_s=0.3, resume_s=0.1)
        child = stage.peer()
        child.put_bodies("tasks", b"work", max_deliveries=9)
        lease = child.take("tasks")
        child.put("results", message(b"result", id="derived"), cause=lease.token)
        stage.restart()
        after = stage.peer()
        again = after.take("tasks")
        after.put("results", message(b"result", id="derived"), cause=again.token)
        assert after.size("results").ready == 1
