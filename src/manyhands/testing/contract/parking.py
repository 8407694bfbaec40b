"""Parking: what no worker here can run waits, seen and charged nothing, for one that can."""

from __future__ import annotations

import time

import msgspec

from manyhands import events, model
from manyhands.testing.contract.peer import Peer, eventually
from manyhands.testing.contract.stage import ContractBase, Stage, needs
from manyhands.testing.contract.streams import STREAM, call, told

NEED = "task:mail.send"


def parked(stage: Stage, *messages: model.Message) -> Peer:
    """A peer that put these and parked them."""
    peer = stage.peer()
    peer.put("q", *(messages or [call("a")]))
    for delivery in peer.lease("q", len(messages) or 1):
        peer.park(delivery, NEED)
    return peer


class ParkingPromises(ContractBase):
    @needs("calls", "results")
    def test_what_is_parked_is_shown_and_not_handed_out(self, stage: Stage) -> None:
        peer = parked(stage)
        stats = peer.size("q")
        assert (stats.parked, stats.ready, stats.leased, stats.unfinished) == ({NEED: 1}, 0, 0, 1)
        assert [waiting.id for waiting in peer.peek("q")] == ["a"]
        assert peer.lease("q") == []
        assert peer.dead("q") == []

    @needs("calls", "results")
    def test_who_offers_what_it_needs_gets_it_charged_nothing(self, stage: Stage) -> None:
        peer, worker, other = parked(stage), stage.peer(), stage.peer()
        worker.tell(events.Offer(["python:3.99", NEED]))
        other.tell(events.Offer(["python:3.99"]))
        assert other.lease("q") == []
        delivery = worker.take("q")
        assert (delivery.message.id, delivery.attempt) == ("a", 1)
        assert peer.size("q").parked == {}
        worker.ack(delivery, result=b"sent")
        assert told(peer.ended(STREAM)) == [("a", 0, 1, b"sent", "")]

    @needs("calls", "results")
    def test_who_waits_already_gets_what_is_parked_later(self, stage: Stage) -> None:
        worker, knower = stage.peer(), stage.peer()
        knower.tell(events.Offer([NEED]))
        worker.put("q", call("a"))
        delivery = worker.take("q")
        waiting = knower.start_lease("q")
        knower.ping()
        worker.park(delivery, NEED)
        assert [d.message.id for d in waiting.expect(events.Granted).deliveries] == ["a"]

    @needs("calls", "results")
    def test_an_offer_while_waiting_is_served(self, stage: Stage) -> None:
        _, worker = parked(stage), stage.peer()
        waiting = worker.start_lease("q")
        worker.ping()
        assert not waiting.is_answered
        worker.tell(events.Offer([NEED]))
        assert [d.message.id for d in waiting.expect(events.Granted).deliveries] == ["a"]

    @needs("calls", "results")
    def test_who_parks_what_it_offered_is_not_handed_it_again(self, stage: Stage) -> None:
        _, worker = parked(stage), stage.peer()
        worker.tell(events.Offer([NEED]))
        worker.park(worker.take("q"), NEED)
        assert worker.lease("q") == []

    @needs("calls", "results")
    def test_what_is_parked_can_be_cancelled_and_purged(self, stage: Stage) -> None:
        peer = parked(stage, call("a"), call("b"))
        assert peer.cancel("q", "a") == ["a"]
        assert peer.size("q").parked == {NEED: 1}
        assert peer.purge("q") == 1
        assert (peer.size("q").parked, peer.size("q").unfinished) == ({}, 0)

    @needs("calls", "results")
    def test_what_is_parked_expires(self, stage: Stage) -> None:
        options = model.Options(reply_to=STREAM, expires_at=time.time() + 0.3)
        peer = parked(stage, msgspec.structs.replace(call("a"), options=options))
        eventually(lambda: peer.size("q").parked == {}, "it is dropped when its time is over")
        assert told(peer.ended(STREAM)) == [("a", 0, 1, None, "unknown_id")]

    @needs("calls", "results")
    def test_parking_names_a_need(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", call("a"))
        delivery = peer.take("q")
        settlement = model.Settlement(delivery.token, model.SettleKind.PARK)
        assert peer.start(peer.settle_request(settlement)).refusal() == "usage"
        assert peer.ack(delivery)

    @needs("calls", "results", "survives_restart")
    def test_what_is_parked_survives_a_restart(self, stage: Stage) -> None:
        parked(stage, call("P", calls=2), call("a"))
        stage.restart()
        worker = stage.peer()
        assert worker.size("q").parked == {NEED: 2}
        assert worker.lease("q") == []
        worker.tell(events.Offer([NEED]))
        assert [(d.message.id, d.attempt) for d in worker.lease("q", 10)] == [("P", 1), ("a", 1)]
