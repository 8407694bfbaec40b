"""One standard-library thread's calls at the engine, driven by hand: moments that a socket cannot be made to hit."""

from __future__ import annotations

import queue
from typing import Any

import pytest

from manyhands.events import Done, Failed, Granted, Lease, Put, Settle, Withdraw
from manyhands.managers.stock.answers import ERROR, NOTHING, Answer, Call, Item
from manyhands.managers.stock.consumer import StockConsumer
from manyhands.model import Delivery, Message, SettleKind


def consumer() -> StockConsumer:
    return StockConsumer(lambda name, call: Message("id", b"body"))


def call(method: str, *args: Any, **kwds: Any) -> Call:
    return Call("q:task", method, args, kwds, True, b"")


def delivery(token: int) -> Delivery:
    return Delivery(token, 1, Message(f"m{token}", b"body"))


def asked(peer: StockConsumer, kind: type) -> Any:
    """Take what is to be sent; the one request of that kind."""
    batch, peer.outbox = peer.outbox, []
    (found,) = [request for request in batch if isinstance(request, kind)]
    return found


def got(peer: StockConsumer, token: int, name: str = "task") -> None:
    """A get that was granted one message."""
    assert peer.call(name, call("get")) is None
    assert peer.on_reply(Granted(asked(peer, Lease).rid, [delivery(token)])) == Item(name, delivery(token))


def settled(peer: StockConsumer) -> list[tuple[int, SettleKind]]:
    """What is to be settled now."""
    batch, peer.outbox = peer.outbox, []
    settlements = [each for request in batch if isinstance(request, Settle) for each in request.settlements]
    return [(each.token, SettleKind(each.kind)) for each in settlements]


def test_what_was_granted_to_an_interrupted_get_goes_back_uncharged() -> None:
    peer = consumer()
    assert peer.call("task", call("get")) is None
    rid = asked(peer, Lease).rid
    peer.abandon()
    assert asked(peer, Withdraw).target == rid
    assert peer.on_reply(Granted(rid, [delivery(5)])) is None  # it was granted as the withdrawal was on its way
    assert settled(peer) == [(5, SettleKind.RELEASE)]
    assert not peer.is_waiting
    assert not peer.holds


def test_an_interrupted_put_is_withdrawn_and_acknowledges_nothing() -> None:
    peer = consumer()
    got(peer, 5)
    assert peer.call("small", call("put", 1)) is None
    rid = asked(peer, Put).rid
    peer.abandon()
    peer.abandon()  # once is enough
    assert asked(peer, Withdraw).target == rid
    assert peer.on_reply(Failed(rid, "full", "")) is None
    assert peer.holds


def test_what_was_granted_and_never_left_for_a_peer_that_is_gone_goes_back_uncharged() -> None:
    peer = consumer()
    got(peer, 5)
    assert peer.call("other", call("get")) is None
    rid = asked(peer, Lease).rid
    peer.unread([Granted(rid, [delivery(6)]), Done(99)])
    peer.end(is_orderly=False)
    assert settled(peer) == [(6, SettleKind.RELEASE)]
    assert peer.holds  # 5: the engine hears in another way that it is lost


def test_an_orderly_end_acknowledges_all_that_was_got() -> None:
    peer = consumer()
    got(peer, 5)
    got(peer, 6, "other")
    peer.end(is_orderly=True)
    assert sorted(settled(peer)) == [(5, SettleKind.ACK), (6, SettleKind.ACK)]


def test_a_refused_put_acknowledges_nothing() -> None:
    peer = consumer()
    got(peer, 5)
    assert peer.call("small", call("put", 1, False)) is None
    answer = peer.on_reply(Failed(asked(peer, Put).rid, "full", "it is full"))
    assert isinstance(answer, Answer)
    assert (answer.kind, type(answer.value)) == (ERROR, queue.Full)
    assert peer.holds


def test_what_the_peer_cannot_be_told_is_given_back_with_the_reason() -> None:
    peer = consumer()
    got(peer, 5)
    peer.undeliverable(Item("task", delivery(5)), SettleKind.NACK, "no XML")
    assert settled(peer) == [(5, SettleKind.NACK)]
    assert not peer.holds


def test_answers_to_what_nobody_waits_for_are_nothing_to_tell() -> None:
    peer = consumer()
    assert peer.on_reply(Done(7)) is None
    assert peer.call("task", call("put", 1)) is None
    rid = asked(peer, Put).rid
    assert peer.on_reply(Done(rid + 1)) is None
    assert peer.on_reply(Done(rid)) == NOTHING


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (call("get", True, -1), ValueError),
        (call("get", True, float("nan")), ValueError),
        (call("get", True, [1]), TypeError),
        (call("get", 1, 2, 3), TypeError),
        (call("get", timeout=1, times=2), TypeError),
        (call("get", True, block=False), TypeError),
        (call("put"), TypeError),
        (call("put_nowait", 1, 2), TypeError),
        (call("qsize", 1), TypeError),
    ],
)
def test_wrong_arguments_are_refused_and_nothing_is_asked(request_: Call, error: type[Exception]) -> None:
    peer = consumer()
    with pytest.raises(error):
        peer.call("task", request_)
    assert peer.outbox == []
    assert not peer.is_waiting
