"""Packs: several calls share a message, and nobody can tell from what becomes of them."""

from __future__ import annotations

import pytest

from manyhands import errors, events, model
from manyhands.testing.contract.peer import Peer, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs
from manyhands.testing.contract.streams import STREAM, call, told


def pack(calls: int = 4, max_deliveries: int = model.MAX_DELIVERIES) -> model.Message:
    return call("P", calls=calls, max_deliveries=max_deliveries)


def waiting_ids(peer: Peer) -> list[str]:
    return [waiting.id for waiting in peer.peek("q", 100)]


class PackPromises(ContractBase):
    @needs("calls", "results")
    def test_a_pack_ends_in_one_step(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = worker.take("q")
        assert delivery.message.options is not None
        assert delivery.message.options.calls == 4
        worker.ack(delivery, result=b"all")
        assert told(caller.ended(STREAM)) == [("P", 0, 4, b"all", "")]
        stats = caller.size("q")
        assert (stats.put_total, stats.done_total, stats.ready, stats.leased) == (4, 4, 0, 0)

    @needs("calls", "results")
    def test_calls_are_reported_as_they_end(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = worker.take("q")
        worker.report(delivery, 1, b"0")
        worker.report(delivery, 2, b"1, 2")
        assert told(caller.ended(STREAM, 2)) == [("P", 0, 1, b"0", ""), ("P", 1, 2, b"1, 2", "")]
        worker.ack(delivery, result=b"3")
        assert told(caller.ended(STREAM)) == [("P", 3, 1, b"3", "")]
        assert caller.size("q").done_total == 4

    @needs("calls", "results")
    def test_a_report_sent_twice_counts_once(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = worker.take("q")
        request = worker.report_request(delivery, 2, b"0, 1")
        worker.start(request).expect(events.Done)
        worker.start(request).expect(events.Done)
        worker.ack(delivery, result=b"2, 3")
        assert told(caller.ended(STREAM, 2)) == [("P", 0, 2, b"0, 1", ""), ("P", 2, 2, b"2, 3", "")]

    @needs("calls", "results")
    def test_a_report_under_a_lost_lease_stores_nothing(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = worker.take("q")
        worker.release(delivery)
        with pytest.raises(errors.LeaseLost):
            worker.report(delivery, 1, b"0")
        assert caller.collect(STREAM).ended == []

    @needs("calls", "results")
    def test_more_calls_than_are_left_are_refused(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = worker.take("q")
        worker.report(delivery, 3, b"0, 1, 2")
        assert worker.start(worker.report_request(delivery, 2, b"3, 4")).refusal() == "usage"
        settlement = model.Settlement(delivery.token, result=b"3, 4", calls=2)
        assert worker.start(worker.settle_request(settlement)).refusal() == "usage"
        assert worker.ack(delivery, result=b"3", calls=1)

    @needs("calls", "results")
    def test_what_the_last_settlement_leaves_out_goes_back_charged_nothing(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", message(b"later", kind=model.Kind.CALL), pack())
        worker.ack(worker.take("q"))
        delivery = worker.take("q")
        worker.ack(delivery, result=b"0", calls=1)
        parts = worker.lease("q", 10)
        assert [part.message.id for part in parts] == ["P.1", "P.2", "P.3"]
        assert {(part.attempt, part.message.body, part.message.seal) for part in parts} == {(1, b"P", b"")}
        assert [part.message.options.part for part in parts if part.message.options] == [1, 2, 3]
        for part in parts:
            worker.ack(part, result=part.message.id.encode())
        assert told(caller.ended(STREAM, 4)) == [
            ("P", 0, 1, b"0", ""),
            ("P.1", 0, 1, b"P.1", ""),
            ("P.2", 0, 1, b"P.2", ""),
            ("P.3", 0, 1, b"P.3", ""),
        ]
        stats = caller.size("q")
        assert (stats.put_total, stats.done_total, stats.ready) == (5, 5, 0)

    @needs("calls", "results")
    def test_an_untouched_pack_is_released_whole(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        worker.release(worker.take("q"))
        assert waiting_ids(caller) == ["P"]
        assert worker.take("q").attempt == 1

    @needs("calls", "results")
    def test_a_nack_charges_the_calls_that_it_names(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack(3))
        delivery = worker.take("q")
        worker.report(delivery, 1, b"0")
        worker.nack(delivery, calls=1)
        assert {d.message.id: d.attempt for d in worker.lease("q", 10)} == {"P.1": 2, "P.2": 1}

    @needs("calls", "results")
    def test_a_rejected_pack_is_one_dead_letter_and_rejected_calls_are_one_each(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack(2))
        worker.reject(worker.take("q"), reason="broken seal")
        assert told(caller.ended(STREAM)) == [("P", 0, 2, None, "task")]
        assert [letter.message.id for letter in caller.dead("q")] == ["P"]
        assert caller.dead_retry("q") == 1
        delivery = worker.take("q")
        worker.report(delivery, 1, b"0")
        worker.reject(delivery, calls=1, result=b"its error")
        assert [letter.message.id for letter in caller.dead("q")] == ["P.1"]

    @needs("calls", "results")
    def test_a_call_of_a_pack_is_found_by_its_id(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack())
        waiting = caller.start(events.Result(0, "P.2", events.FOREVER))
        assert caller.start(events.Result(0, "P.4", 0.0)).refusal() == "unknown_id"
        delivery = worker.take("q")
        worker.report(delivery, 1, b"0")
        assert caller.result("P.1") is None
        worker.ack(delivery, result=b"1, 2", calls=2)
        outcome = waiting.expect(events.Outcome)
        assert (outcome.id, outcome.first, outcome.n, outcome.value) == ("P", 1, 2, b"1, 2")
        assert caller.result("P.0") == b"0"
        worker.ack(worker.take("q"), result=b"3")
        alone = caller.start(events.Result(0, "P.3", 0.0)).expect(events.Outcome)
        assert (alone.id, alone.first, alone.n, alone.value) == ("P.3", 0, 0, b"3")

    @needs("calls", "results")
    def test_after_a_loss_each_call_travels_alone_and_none_is_charged(self, stage: Stage) -> None:
        caller, child, parent = stage.peer(), stage.peer(), stage.peer()
        caller.put("q", pack())
        delivery = child.take("q")
        child.report(delivery, 1, b"0")
        parent.report_dead(child.session)
        for part in ("P.1", "P.2", "P.3"):
            (alone,) = parent.lease("q", 10)
            assert (alone.message.id, alone.attempt) == (part, 1)
        assert told(caller.ended(STREAM)) == [("P", 0, 1, b"0", "")]

    @needs("calls", "results")
    def test_what_may_run_once_never_runs_twice_in_a_pack(self, stage: Stage) -> None:
        caller, child, parent = stage.peer(), stage.peer(), stage.peer()
        caller.put("q", pack(2, max_deliveries=1))
        child.take("q")
        parent.report_dead(child.session)
        assert parent.lease("q", 10) == []
        assert told(caller.ended(STREAM, 2)) == [
            ("P.0", 0, 1, None, "worker_crashed"),
            ("P.1", 0, 1, None, "worker_crashed"),
        ]

    @needs("calls", "results")
    def test_a_killer_in_a_pack_dies_of_it_and_its_neighbours_do_not(self, stage: Stage) -> None:
        caller, parent = stage.peer(), stage.peer()
        caller.put("q", pack(4, max_deliveries=3))
        deaths = 0
        while deliveries := (child := stage.peer(parent=parent)).lease("q", 10):
            for delivery in deliveries:
                options = delivery.message.options
                assert options is not None
                calls = [options.part] if options.part >= 0 else list(range(options.calls))
                if 2 in calls:  # the killer: what ran before it was not reported yet
                    parent.report_dead(child.session, token=delivery.token, part=2)
                    deaths += 1
                    break
                child.ack(delivery, result=b"done")
        assert deaths == 3
        codes = {(one.id, one.code) for one in caller.ended(STREAM, 4)}
        assert codes == {("P.0", ""), ("P.1", ""), ("P.3", ""), ("P.2", "worker_crashed")}
        (letter,) = caller.dead("q")
        assert [attempt.outcome for attempt in letter.history] == ["lost", "lost", "lost"]

    @needs("calls", "results", "survives_restart")
    def test_a_pack_in_the_middle_survives_a_restart(self, stage: Stage) -> None:
        stage.limit(lease_s=0.3)
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack(3))
        worker.report(worker.take("q"), 1, b"0")
        stage.restart()
        again, caller = stage.peer(), stage.peer()
        assert [again.take("q").message.id for _ in range(2)] == ["P.1", "P.2"]
        assert told(caller.ended(STREAM)) == [("P", 0, 1, b"0", "")]
        outcome = caller.size("q")
        assert (outcome.put_total, outcome.done_total) == (3, 1)

    @needs("calls", "results", "survives_restart")
    def test_a_lease_on_a_pack_goes_on_after_a_restart(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", pack(3))
        delivery = worker.take("q")
        worker.report(delivery, 1, b"0")
        stage.restart()
        stage.resume(worker, delivery.token)
        assert worker.ack(delivery, result=b"1, 2")
        caller = stage.peer()
        assert told(caller.ended(STREAM, 2)) == [("P", 0, 1, b"0", ""), ("P", 1, 2, b"1, 2", "")]
