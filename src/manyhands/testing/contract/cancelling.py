"""Cancelling: what nobody has begun is taken out wherever it waits; what runs is stopped where it runs."""

from __future__ import annotations

from manyhands import events, model
from manyhands.testing.contract.peer import eventually
from manyhands.testing.contract.stage import ContractBase, Stage, needs
from manyhands.testing.contract.streams import STREAM, call, told


class CancellingPromises(ContractBase):
    @needs("calls", "results")
    def test_a_cancelled_call_is_never_handed_out(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", *[call(f"c{i}") for i in range(5)])
        assert caller.cancel("q", "c1", "c3", "never put") == ["c1", "c3"]
        stats = caller.size("q")
        assert (stats.ready, stats.unfinished) == (3, 3)
        assert [waiting.id for waiting in caller.peek("q")] == ["c0", "c2", "c4"]
        assert [d.message.id for d in worker.lease("q", 10)] == ["c0", "c2", "c4"]
        assert told(caller.ended(STREAM, 2)) == [
            ("c1", 0, 1, None, "task_cancelled"),
            ("c3", 0, 1, None, "task_cancelled"),
        ]

    @needs("calls", "results")
    def test_thousands_are_cancelled_at_once(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        ids = [f"c{i}" for i in range(3000)]
        caller.put("q", *[call(call_id) for call_id in ids], call("last"))
        assert caller.cancel("q", *ids) == ids
        assert [d.message.id for d in worker.lease("q", 2)] == ["last"]
        assert len(caller.ended(STREAM, 3000)) == 3000

    @needs("calls", "results")
    def test_a_call_is_cancelled_once(self, stage: Stage) -> None:
        caller = stage.peer()
        caller.put("q", call("a"))
        assert caller.cancel("q", "a", "a") == ["a"]
        assert caller.cancel("q", "a") == []
        assert len(caller.ended(STREAM)) == 1
        assert caller.size("q").ready == 0

    @needs("calls", "results")
    def test_what_is_cancelled_may_be_put_again(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        caller.cancel("q", "a")
        caller.put("q", call("a"))
        assert worker.take("q").message.id == "a"
        assert caller.size("q").ready == 0

    @needs("calls", "results", "delays")
    def test_what_came_back_or_is_delayed_is_cancelled_too(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("released"), call("nacked"))
        released, nacked = worker.lease("q", 2)
        worker.release(released)
        worker.nack(nacked, delay_s=60.0)
        assert caller.cancel("q", "released", "nacked") == ["released", "nacked"]
        stats = caller.size("q")
        assert (stats.ready, stats.delayed, stats.unfinished) == (0, 0, 0)

    @needs("calls", "results")
    def test_calls_are_cancelled_in_a_pack_that_waits(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("P", calls=5))
        assert caller.cancel("q", "P.1", "P.2", "P.4", "P.5") == ["P.1", "P.2", "P.4"]
        assert [d.message.id for d in worker.lease("q", 10)] == ["P.0", "P.3"]
        assert told(caller.ended(STREAM, 2)) == [
            ("P", 1, 2, None, "task_cancelled"),
            ("P", 4, 1, None, "task_cancelled"),
        ]

    @needs("calls", "results")
    def test_a_pack_of_which_every_call_is_cancelled_is_gone(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("P", calls=3), call("a"))
        assert len(caller.cancel("q", "P.0", "P.1", "P.2")) == 3
        assert [d.message.id for d in worker.lease("q", 10)] == ["a"]
        assert told(caller.ended(STREAM)) == [("P", 0, 3, None, "task_cancelled")]

    @needs("calls", "results")
    def test_what_runs_is_not_taken_out(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"), call("P", calls=2))
        alone, pack = worker.lease("q", 2)
        assert caller.cancel("q", "a", "P.1") == []
        assert worker.ack(alone, result=b"1")
        assert worker.ack(pack, result=b"2")
        assert [one.code for one in caller.ended(STREAM, 2)] == ["", ""]
        assert worker.stops == []

    @needs("calls", "results")
    def test_the_parent_of_who_runs_it_is_told_to_stop_it(self, stage: Stage) -> None:
        caller, parent = stage.peer(), stage.peer()
        child = stage.peer(parent=parent)
        caller.put("q", call("P", calls=3))
        pack = child.take("q")
        assert caller.cancel("q", "P.1", is_running_too=True) == []
        eventually(lambda: bool(parent.stops), "the parent is told")
        assert parent.stops == [events.Stop(child.session, pack.token, 1)]
        settlement = model.Settlement(pack.token, result=b"cancelled")
        parent.report_dead(child.session, token=pack.token, part=1, settlement=settlement)
        assert told(caller.ended(STREAM)) == [("P", 1, 1, b"cancelled", "")]
        assert sorted(d.message.id for d in parent.lease("q", 10)) == ["P.0", "P.2"]

    @needs("calls", "results")
    def test_a_call_that_was_to_be_stopped_does_not_run_again(self, stage: Stage) -> None:
        caller, parent = stage.peer(), stage.peer()
        child = stage.peer(parent=parent)
        caller.put("q", call("a"), call("P", calls=2))
        child.lease("q", 2)
        caller.cancel("q", "a", "P.1", is_running_too=True)
        parent.report_dead(child.session)
        assert [d.message.id for d in parent.lease("q", 10)] == ["P.0"]
        assert sorted((one.id, one.code) for one in caller.ended(STREAM, 2)) == [
            ("P.1", "task_cancelled"),
            ("a", "task_cancelled"),
        ]

    @needs("calls", "results", "survives_restart")
    def test_a_cancellation_survives_a_restart(self, stage: Stage) -> None:
        caller = stage.peer()
        caller.put("q", call("a"), call("P", calls=2), call("b"))
        caller.cancel("q", "a", "P.0")
        stage.restart()
        worker = stage.peer()
        assert sorted(d.message.id for d in worker.lease("q", 10)) == ["P.1", "b"]
        assert [one.code for one in worker.ended(STREAM, 2)] == ["task_cancelled", "task_cancelled"]
