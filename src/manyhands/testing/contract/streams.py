"""Streams: the ends of calls come to who awaits them, in order, each once acknowledged no more."""

from __future__ import annotations

import pytest

from manyhands import errors, events, model
from manyhands.testing.contract.peer import Peer, eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs

STREAM = "a stream of the contract's"


def call(
    call_id: str,
    *,
    stream: str = STREAM,
    keep_result_s: float = 0.0,
    calls: int = 0,
    max_deliveries: int = model.MAX_DELIVERIES,
) -> model.Message:
    """A call whose result goes to a stream; several in one message with `calls`."""
    options = model.Options(reply_to=stream, keep_result_s=keep_result_s, calls=calls)
    return message(call_id.encode(), id=call_id, kind=model.Kind.CALL, options=options, max_deliveries=max_deliveries)


def told(ended: list[model.Ended]) -> list[tuple[str, int, int, bytes | None, str]]:
    return [(one.id, one.first, one.n, one.value, one.code) for one in ended]


def run(worker: Peer, result: bytes, n: int = 1) -> None:
    for _ in range(n):
        worker.ack(worker.take("q"), result=result)


class StreamPromises(ContractBase):
    @needs("calls", "results")
    def test_results_come_in_the_order_in_which_they_ended(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"), call("b"), call("c"))
        first, second, third = worker.lease("q", 3)
        for delivery in (second, third, first):
            worker.ack(delivery, result=b"of " + delivery.message.body)
        assert told(caller.ended(STREAM, 3)) == [
            ("b", 0, 1, b"of b", ""),
            ("c", 0, 1, b"of c", ""),
            ("a", 0, 1, b"of a", ""),
        ]

    @needs("calls", "results")
    def test_a_result_wakes_who_collects(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        waiting = caller.start(events.Collect(0, STREAM, 0, events.FOREVER))
        caller.ping()
        assert not waiting.is_answered
        run(worker, b"1")
        assert told(waiting.expect(events.Collected).ended) == [("a", 0, 1, b"1", "")]

    @needs("calls", "results")
    def test_a_wait_for_the_next_end_ends_in_time_or_when_withdrawn(self, stage: Stage) -> None:
        caller = stage.peer()
        assert caller.collect(STREAM).ended == []
        assert caller.collect(STREAM, wait_s=0.05).ended == []
        waiting = caller.start(events.Collect(0, STREAM, 0, events.FOREVER))
        caller.tell(events.Withdraw(waiting.request.rid))  # type: ignore[union-attr]
        assert waiting.expect(events.Collected).ended == []

    @needs("calls", "results")
    def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"), call("b"))
        run(worker, b"1")
        first = caller.collect(STREAM)
        run(worker, b"2")
        again = caller.collect(STREAM)
        assert [one.id for one in first.ended] == ["a"]
        assert [one.id for one in again.ended] == ["a", "b"]
        assert [one.id for one in caller.collect(STREAM, first.number).ended] == ["b"]
        assert caller.collect(STREAM, again.number).ended == []
        assert caller.collect(STREAM, 0).ended == []

    @needs("calls", "results")
    def test_an_acknowledgement_of_another_life_of_the_engine_takes_nothing(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        run(worker, b"1")
        for ack in (1, 2**62):
            assert [one.id for one in caller.collect(STREAM, ack).ended] == ["a"]

    @needs("calls", "results")
    def test_a_session_that_comes_back_collects_what_it_did_not_hear(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        caller.start(events.Collect(0, STREAM, 0, events.FOREVER))
        caller.ping()
        caller.cut()
        eventually(lambda: not worker.sees(caller), "the engine notices the cut")
        run(worker, b"1")
        stage.resume(caller)
        assert [one.id for one in caller.collect(STREAM).ended] == ["a"]

    @needs("calls", "results")
    def test_a_result_is_forgotten_once_acknowledged_unless_its_message_says_otherwise(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("gone"), call("kept", keep_result_s=60.0))
        run(worker, b"1", 2)
        assert caller.result("gone") == b"1", "what nobody has acknowledged is found by its id as well"
        caller.ended(STREAM, 2)
        assert caller.result("kept") == b"1"
        with pytest.raises(errors.UnknownId):
            caller.result("gone")

    @needs("calls", "results")
    def test_a_dead_letter_is_heard_of(self, stage: Stage) -> None:
        caller, parent = stage.peer(), stage.peer()
        caller.put("q", call("killer", max_deliveries=2), call("nacked", max_deliveries=1), call("rejected"))
        for _ in range(2):
            child = stage.peer()
            child.take("q")
            parent.report_dead(child.session)
        parent.nack(parent.take("q"), reason="no disk")
        parent.reject(parent.take("q"), reason="broken", result=b"the error")
        assert told(caller.ended(STREAM, 3)) == [
            ("killer", 0, 1, None, "worker_crashed"),
            ("nacked", 0, 1, None, "task"),
            ("rejected", 0, 1, b"the error", ""),
        ]
        assert {letter.message.id for letter in caller.dead("q")} == {"killer", "nacked", "rejected"}

    @needs("calls", "results")
    def test_the_last_refusals_error_is_what_those_who_wait_get(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a", max_deliveries=1))
        worker.end(worker.take("q"), model.SettleKind.NACK, reason="late", result=b"timed out")
        assert told(caller.ended(STREAM)) == [("a", 0, 1, b"timed out", "")]
        assert [letter.message.id for letter in caller.dead("q")] == ["a"]

    @needs("calls", "results")
    def test_what_is_purged_or_expires_is_heard_of(self, stage: Stage) -> None:
        caller = stage.peer()
        caller.put("q", call("purged"))
        caller.purge("q")
        assert told(caller.ended(STREAM)) == [("purged", 0, 1, None, "unknown_id")]

    @needs("calls", "results")
    def test_unbegun_calls_are_dropped_when_nobody_awaits_them_any_more(self, stage: Stage) -> None:
        stage.limit(orphan_s=0.1)
        caller, other, worker = stage.peer(), stage.peer(), stage.peer()
        other.put("q", call("other's", stream="another stream"))
        caller.put("q", call("begun"), call("kept", keep_result_s=60.0), call("dropped"), call("pack", calls=3))
        assert [worker.take("q").message.id for _ in range(2)] == ["other's", "begun"]
        caller.goodbye()
        eventually(lambda: other.size("q").ready == 1, "what nobody awaits is dropped")
        assert worker.take("q").message.id == "kept"

    @needs("calls", "results")
    def test_who_comes_back_too_late_hears_that_its_calls_were_dropped(self, stage: Stage) -> None:
        stage.limit(orphan_s=0.1, resume_s=60.0)
        caller, other = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        caller.cut()
        eventually(lambda: other.size("q").ready == 0, "what nobody awaits is dropped")
        stage.resume(caller)
        assert told(caller.ended(STREAM)) == [("a", 0, 1, None, "unknown_id")]

    @needs("calls", "results")
    def test_who_is_back_in_time_loses_no_call(self, stage: Stage) -> None:
        stage.limit(orphan_s=0.3)
        caller, other = stage.peer(), stage.peer()
        caller.put("q", call("a"))
        caller.cut()
        eventually(lambda: not other.sees(caller), "the engine notices the cut")
        stage.resume(caller)
        assert caller.collect(STREAM, wait_s=0.5).ended == []
        assert caller.size("q").ready == 1

    @needs("calls", "results")
    def test_how_far_a_call_has_come_reaches_who_awaits_it(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("q", call("a"), call("pack", calls=2))
        caller.collect(STREAM)
        alone, pack = worker.lease("q", 2)
        worker.tell(events.Progress(alone.token, -1, 1.0, 4.0, "reading"))
        worker.tell(events.Progress(pack.token, 1, 2.0, 4.0))
        eventually(lambda: len(caller.progress) == 2, "who awaits a call hears how far it has come")
        assert [(p.id, p.done, p.total, p.note) for p in caller.progress] == [
            ("a", 1.0, 4.0, "reading"),
            ("pack.1", 2.0, 4.0, ""),
        ]

    @needs("calls", "results", "survives_restart")
    def test_a_stream_survives_a_restart(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put(
            "q", call("acked"), call("ended"), call("buried", max_deliveries=1), call("waiting"), call("pack", calls=3)
        )
        run(worker, b"1")
        ack = caller.collect(STREAM).number
        caller.collect(STREAM, ack)
        run(worker, b"2")
        worker.nack(worker.take("q"))
        stage.restart()
        worker, caller = stage.peer(), stage.peer()
        assert told(caller.ended(STREAM, 2)) == [("ended", 0, 1, b"2", ""), ("buried", 0, 1, None, "task")]
        run(worker, b"3")
        pack = worker.take("q")
        worker.ack(pack, result=b"4")
        assert told(caller.ended(STREAM, 2)) == [("waiting", 0, 1, b"3", ""), ("pack", 0, 3, b"4", "")]
