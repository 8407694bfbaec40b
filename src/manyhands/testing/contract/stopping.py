"""The broadcast stop, and the engine's own goodbye."""

from __future__ import annotations

import pytest

from manyhands import events
from manyhands.errors import ShutDown
from manyhands.testing.contract.peer import eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class StoppingPromises(ContractBase):
    def test_after_a_shutdown_puts_are_refused_and_gets_drain(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        peer.shut_down("q")
        with pytest.raises(ShutDown):
            peer.put_bodies("q", b"3")
        assert [peer.take("q").message.body for _ in range(2)] == [b"1", b"2"]
        with pytest.raises(ShutDown):
            peer.lease("q", wait_s=events.FOREVER)
        assert peer.size("q").is_shut_down

    def test_a_shutdown_ends_every_waiting_lease(self, stage: Stage) -> None:
        peers = [stage.peer() for _ in range(3)]
        waiting = [peer.start_lease("q", wait_s=events.FOREVER) for peer in peers]
        for peer in peers:
            peer.ping()
        stage.peer().shut_down("q")
        assert [pending.refusal() for pending in waiting] == ["shut_down"] * 3

    @needs("bounded")
    def test_a_shutdown_ends_every_waiting_put(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        waiting = peer.start(peer.put_request("q", message(b"2"), wait_s=events.FOREVER))
        peer.shut_down("q")
        assert waiting.refusal() == "shut_down"
        assert peer.size("q").ready == 1

    def test_an_immediate_shutdown_drops_what_is_not_handed_out(self, stage: Stage) -> None:
        peer, waiter = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        held = peer.take("q")
        waiting = waiter.start(events.Join(0, "q", events.FOREVER))
        peer.shut_down("q", immediate=True)
        with pytest.raises(ShutDown):
            peer.lease("q")
        assert peer.join("q") == 1, "what was dropped is finished"
        assert peer.ack(held, is_task_done=True)
        assert waiting.expect(events.Count).n == 0

    def test_what_is_given_back_after_a_shutdown_is_still_delivered(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        held = peer.take("q")
        peer.shut_down("q")
        assert peer.nack(held)
        assert peer.ack(peer.take("q"))

    def test_one_queue_is_shut_down_alone(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.shut_down("q")
        peer.put_bodies("other", b"1")
        assert peer.take("other").message.body == b"1"

    @needs("survives_restart")
    def test_a_shutdown_lasts_until_the_engine_is_opened_again(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.shut_down("q")
        stage.restart()
        after = stage.peer()
        after.put_bodies("q", b"1")
        assert after.take("q").message.body == b"1"

    def test_an_engine_that_closes_says_so_and_settles_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        peer.take("q")
        waiting = peer.start_lease("q", wait_s=events.FOREVER)
        peer.ping()
        stage.engine.close(closing_reason="maintenance")
        eventually(lambda: bool(peer.closings), "Closing arrives")
        assert not waiting.is_answered or waiting.refusal() != "shut_down"

    def test_closing_twice_is_closing_once(self, stage: Stage) -> None:
        peer = stage.peer()
        stage.engine.close()
        stage.engine.close()
        eventually(lambda: len(peer.closings) >= 1, "Closing arrives")
