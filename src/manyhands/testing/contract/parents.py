"""Parents: who looks after a child's session is asked in its place and speaks for it."""

from __future__ import annotations

import time

from manyhands import events, model
from manyhands.testing.contract.peer import Peer, eventually
from manyhands.testing.contract.stage import ContractBase, Stage, needs
from manyhands.testing.contract.streams import STREAM, call, told


def family(stage: Stage) -> tuple[Peer, Peer]:
    parent = stage.peer()
    return parent, stage.peer(parent=parent)


class ParentPromises(ContractBase):
    @needs("calls", "results")
    def test_a_parent_is_asked_for_what_its_child_has_not_begun(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put("q", call("a"), call("b"), call("c"))
        first, *others = child.lease("q", 3, begin_n=1)
        waiting = idle.start_lease("q")
        eventually(lambda: bool(parent.recalls), "the parent is asked")
        recall = parent.recalls[0]
        assert (recall.queue, recall.session) == ("q", child.session)
        parent.reclaim(child.session, "q", *[model.Begun(other.token, 0) for other in others])
        assert [d.message.id for d in waiting.expect(events.Granted).deliveries] == ["b"]
        assert child.recalls == []
        assert child.ack(first)
        assert child.settle(*[model.Settlement(other.token) for other in others]) == [other.token for other in others]

    @needs("calls", "results")
    def test_a_begun_pack_is_shared_with_who_waits(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put("q", call("P", calls=4))
        delivery = child.take("q")
        waiting = idle.start_lease("q", 2)
        eventually(lambda: bool(parent.recalls), "the parent is asked")
        parent.reclaim(child.session, "q", model.Begun(delivery.token, 1))
        granted = waiting.expect(events.Granted).deliveries
        assert [(d.message.id, d.attempt) for d in granted] == [("P.1", 1), ("P.2", 1)]
        assert child.ack(delivery, result=b"0", calls=1)
        assert [d.message.id for d in idle.lease("q", 10)] == ["P.3"]
        assert told(caller.ended(STREAM)) == [("P", 0, 1, b"0", "")]

    @needs("calls")
    def test_what_lies_behind_a_childs_long_call_is_shared_though_it_counts_as_begun(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put_bodies("q", b"long", b"behind it")
        long, behind = child.lease("q", 2)
        waiting = idle.start_lease("q", wait_s=events.FOREVER)
        eventually(lambda: bool(parent.recalls), "the parent is asked")
        parent.reclaim(child.session, "q", model.Begun(long.token, 1), model.Begun(behind.token, 0))
        (delivery,) = waiting.expect(events.Granted).deliveries
        assert (delivery.message.body, delivery.attempt) == (b"behind it", 1)

    @needs("calls")
    def test_a_child_that_runs_all_it_has_is_not_asked(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put_bodies("q", b"long")
        child.take("q")
        assert idle.lease("q", wait_s=0.1) == []
        assert parent.recalls == []

    @needs("calls", "results")
    def test_a_parent_that_had_nothing_to_give_is_asked_again(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put("q", call("P", calls=4))
        delivery = child.take("q")
        waiting = idle.start_lease("q", wait_s=events.FOREVER)
        eventually(lambda: len(parent.recalls) == 1, "the parent is asked")
        parent.reclaim(child.session, "q")
        eventually(lambda: len(parent.recalls) == 2, "the parent is asked again")
        parent.reclaim(child.session, "q", model.Begun(delivery.token, 3))
        assert [d.message.id for d in waiting.expect(events.Granted).deliveries] == ["P.3"]

    @needs("calls", "results")
    def test_an_empty_answer_of_a_parent_ends_the_wait_for_it(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        caller.put("q", call("P", calls=4))
        child.take("q")
        waiting = idle.start_lease("q", wait_s=0.0)
        eventually(lambda: bool(parent.recalls), "the parent is asked")
        assert not waiting.is_answered
        parent.reclaim(child.session, "q")
        assert waiting.expect(events.Granted).deliveries == []

    @needs("calls")
    def test_a_child_without_its_parent_is_asked_itself(self, stage: Stage) -> None:
        caller, idle, (parent, child) = stage.peer(), stage.peer(), family(stage)
        parent.goodbye()
        caller.put_bodies("q", b"1", b"2")
        child.lease("q", 2, begin_n=1)
        idle.start_lease("q")
        eventually(lambda: bool(child.recalls), "the child is asked")
        assert child.recalls[0].session == ""

    @needs("calls")
    def test_a_parents_word_keeps_a_silent_childs_leases(self, stage: Stage) -> None:
        stage.limit(lease_s=0.5)
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put_bodies("q", b"work")
        delivery = child.take("q")
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            parent.tell(events.Vouch([child.session]))
            parent.ping()
            caller.ping()
            time.sleep(0.05)
        assert child.ack(delivery)

    @needs("calls")
    def test_a_parent_cannot_vouch_for_who_is_not_connected(self, stage: Stage) -> None:
        stage.limit(resume_s=0.1)
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put_bodies("q", b"work")
        child.take("q")
        child.cut()

        def came_back() -> bool:
            parent.tell(events.Vouch([child.session]))
            return caller.size("q").ready == 1

        eventually(came_back, "the lease ends resume_s after the connection did")

    @needs("calls")
    def test_the_call_that_ran_is_charged_and_what_lay_beside_it_is_not(self, stage: Stage) -> None:
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put_bodies("q", b"1", b"2", b"3")
        deliveries = child.lease("q", 3)
        parent.report_dead(child.session, token=deliveries[1].token)
        again = [parent.take("q") for _ in range(3)]
        assert {d.message.body: d.attempt for d in again} == {b"1": 1, b"2": 2, b"3": 1}

    @needs("calls")
    def test_a_child_that_died_idle_is_charged_nothing(self, stage: Stage) -> None:
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put_bodies("q", b"1", max_deliveries=1)
        child.take("q")
        parent.report_dead(child.session, is_idle=True)
        assert parent.take("q").attempt == 1

    @needs("calls", "results")
    def test_a_parent_says_how_the_running_call_ends(self, stage: Stage) -> None:
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put("q", call("P", calls=3), call("a"))
        pack, _ = child.lease("q", 2)
        settlement = model.Settlement(pack.token, is_task_done=True, result=b"timed out")
        parent.report_dead(child.session, token=pack.token, part=1, settlement=settlement)
        assert told(caller.ended(STREAM)) == [("P", 1, 1, b"timed out", "")]
        assert caller.size("q").unfinished == 3
        again = parent.lease("q", 10)
        assert sorted((d.message.id, d.attempt) for d in again) == [("P.0", 1), ("P.2", 1), ("a", 1)]
        assert child.session != parent.session
        assert caller.dead("q") == []
        for delivery in again:
            assert parent.ack(delivery)

    @needs("calls", "results")
    def test_a_parent_may_have_the_running_call_tried_again(self, stage: Stage) -> None:
        caller, (parent, child) = stage.peer(), family(stage)
        caller.put("q", call("a", max_deliveries=2))
        delivery = child.take("q")
        settlement = model.Settlement(delivery.token, model.SettleKind.NACK, reason="ran for too long")
        parent.report_dead(child.session, token=delivery.token, settlement=settlement)
        again = parent.take("q")
        assert again.attempt == 2
        parent.nack(again, reason="ran for too long")
        (letter,) = caller.dead("q")
        assert [attempt.outcome for attempt in letter.history] == ["nack", "nack"]

    @needs("calls", "results")
    def test_a_lease_takes_what_comes_first_in_any_of_several_queues(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put_bodies("second", b"here")
        lease = events.Lease(0, "first", 5, 1, 0.0, ["second", "third", "first"])
        granted = worker.start(lease).expect(events.Granted)
        assert (granted.queue, [d.message.body for d in granted.deliveries]) == ("second", [b"here"])
        assert worker.start(lease).expect(events.Granted).deliveries == []
        waiting = worker.start(events.Lease(0, "first", 5, 1, events.FOREVER, ["second", "third"]))
        worker.ping()
        caller.put_bodies("third", b"now")
        granted = waiting.expect(events.Granted)
        assert (granted.queue, [d.message.body for d in granted.deliveries]) == ("third", [b"now"])
        caller.put_bodies("first", b"stays")
        assert caller.size("first").ready == 1, "an answered lease stands in no line any more"
        assert [caller.size(queue).waiting for queue in ("first", "second", "third")] == [0, 0, 0]

    @needs("calls")
    def test_a_lease_on_several_queues_ends_when_all_of_them_are_shut_down(self, stage: Stage) -> None:
        worker, other = stage.peer(), stage.peer()
        waiting = worker.start(events.Lease(0, "first", 1, 1, events.FOREVER, ["second"]))
        worker.ping()
        other.shut_down("first")
        other.put_bodies("second", b"still open")
        assert waiting.expect(events.Granted).queue == "second"
        waiting = worker.start(events.Lease(0, "first", 1, 1, events.FOREVER, ["second"]))
        worker.ping()
        other.shut_down("second")
        assert waiting.refusal() == "shut_down"
