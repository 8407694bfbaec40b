"""Results by id: one, in one step with the ack."""

from __future__ import annotations

import pytest

from manyhands import errors, events, model
from manyhands.testing.contract.peer import eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


def call(keep_result_s: float = 0.0) -> model.Message:
    """A message whose result somebody wants: 0 keeps it until a waiting client received it."""
    options = model.Options(keep_result_s=keep_result_s) if keep_result_s else None
    return message(id="call", kind=model.Kind.CALL, options=options)


class ResultPromises(ContractBase):
    @needs("results")
    def test_an_ack_stores_the_result(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("calls", call(60.0))
        peer.ack(peer.take("calls"), result=b"42")
        outcome = peer.start(events.Result(0, "call", 0.0)).expect(events.Outcome)
        assert (outcome.id, outcome.queue, outcome.value) == ("call", "calls", b"42")
        assert peer.result("call") == b"42", "a kept result can be read again"

    @needs("results")
    def test_a_result_wakes_who_waits_for_it(self, stage: Stage) -> None:
        caller, worker = stage.peer(), stage.peer()
        caller.put("calls", call())
        waiting = caller.start(events.Result(0, "call", events.FOREVER))
        caller.ping()
        assert not waiting.is_answered
        worker.ack(worker.take("calls"), result=b"42")
        assert waiting.expect(events.Outcome).value == b"42"

    @needs("results")
    def test_a_wait_for_a_result_ends_without_one(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("calls", call())
        assert peer.result("call") is None
        assert peer.result("call", wait_s=0.05) is None

    @needs("results")
    def test_an_unknown_id_is_said_to_be_unknown(self, stage: Stage) -> None:
        with pytest.raises(errors.UnknownId):
            stage.peer().result("never put", wait_s=60.0)

    @needs("results")
    def test_the_first_result_stays(self, stage: Stage) -> None:
        peer = stage.peer()
        for result in (b"first", b"second"):
            peer.put("calls", call(60.0))
            peer.ack(peer.take("calls"), result=result)
        assert peer.result("call") == b"first"

    @needs("results")
    def test_a_result_may_be_forgotten_once_received(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("calls", call(60.0))
        peer.ack(peer.take("calls"), result=b"42")
        assert peer.result("call", forget=True) == b"42"
        with pytest.raises(errors.UnknownId):
            peer.result("call")

    @needs("results")
    def test_a_result_is_kept_as_long_as_the_message_says(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("calls", call(0.3))
        peer.ack(peer.take("calls"), result=b"42")

        def is_gone() -> bool:
            try:
                return peer.result("call") is None
            except errors.UnknownId:
                return True

        eventually(is_gone, "the result is dropped after keep_result_s")

    @needs("results", "survives_restart")
    def test_a_result_survives_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("calls", call(60.0))
        peer.ack(peer.take("calls"), result=b"42")
        stage.restart()
        after = stage.peer()
        assert after.result("call") == b"42"
        assert after.lease("calls") == []
