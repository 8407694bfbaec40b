"""The token is the right: a stale one changes nothing."""

from __future__ import annotations

import pytest

from manyhands import errors, model
from manyhands.model import SettleKind
from manyhands.testing.contract.peer import Peer, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


def lose_one(stage: Stage, loser: Peer, queue: str = "q", body: bytes = b"work") -> model.Delivery:
    """A delivery whose lease the loser has lost and does not know it; the message is ready again."""
    loser.put("q", message(body, id="fenced", kind=model.Kind.CALL, max_deliveries=9))
    delivery = loser.take(queue)
    stage.resume(loser)
    return delivery


class FencingPromises(ContractBase):
    @pytest.mark.parametrize("kind", list(SettleKind), ids=lambda kind: kind.name.lower())
    def test_a_stale_token_settles_nothing(self, stage: Stage, kind: SettleKind) -> None:
        late, holder = stage.peer("late"), stage.peer("holder")
        stale = lose_one(stage, late)
        current = holder.take("q")
        assert not late.end(stale, kind, reason="too late", is_task_done=True, result=b"late result")
        assert holder.lease("q") == [], "the message was taken from its holder"
        assert holder.dead("q") == []
        assert holder.size("q").unfinished == 1, "a lost lease counted as finished"
        assert holder.ack(current), "the holder lost its lease to a stale token"

    @needs("results")
    def test_a_stale_token_stores_no_result(self, stage: Stage) -> None:
        late, holder = stage.peer("late"), stage.peer("holder")
        stale = lose_one(stage, late)
        current = holder.take("q")
        late.ack(stale, result=b"late")
        assert holder.result("fenced") is None
        holder.ack(current, result=b"holder's")
        assert holder.result("fenced") == b"holder's"

    def test_a_stale_token_settles_nothing_while_the_message_waits(self, stage: Stage) -> None:
        late = stage.peer()
        stale = lose_one(stage, late)
        assert not late.ack(stale)
        assert late.take("q").message.id == "fenced"

    def test_a_stale_token_extends_nothing(self, stage: Stage) -> None:
        late, holder = stage.peer("late"), stage.peer("holder")
        stale = lose_one(stage, late)
        current = holder.take("q")
        assert late.extend(stale.token) == [stale.token]
        assert holder.extend(current.token) == []

    def test_a_put_under_a_stale_lease_is_refused(self, stage: Stage) -> None:
        late = stage.peer()
        stale = lose_one(stage, late)
        with pytest.raises(errors.LeaseLost):
            late.put("results", message(b"result"), cause=stale.token)
        assert late.lease("results") == []

    def test_another_session_cannot_use_the_token(self, stage: Stage) -> None:
        holder, thief = stage.peer("holder"), stage.peer("thief")
        holder.put_bodies("q", b"work")
        current = holder.take("q")
        assert not thief.ack(current)
        assert thief.extend(current.token) == [current.token]
        with pytest.raises(errors.LeaseLost):
            thief.put("results", message(), cause=current.token)
        assert holder.ack(current)

    def test_a_delivery_can_be_settled_once(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        delivery = peer.take("q")
        assert peer.ack(delivery)
        assert not peer.ack(delivery)
        assert not peer.nack(delivery)
        assert peer.lease("q") == []

    def test_one_stale_token_does_not_spoil_its_neighbours(self, stage: Stage) -> None:
        peer = stage.peer()
        stale = lose_one(stage, peer)
        peer.put_bodies("other", b"1", b"2")
        one, two = peer.lease("other", 2)
        lost = peer.settle(*[model.Settlement(token) for token in (one.token, stale.token, two.token)])
        assert lost == [stale.token]
        assert peer.size("other").leased == 0

    def test_a_later_lease_has_a_larger_token(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        tokens = []
        for _ in range(3):
            delivery = peer.take("q")
            tokens.append(delivery.token)
            peer.release(delivery)
        assert tokens == sorted(set(tokens))

    @needs("survives_restart")
    def test_tokens_grow_across_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        before = peer.take("q")
        stage.restart()
        stage.resume(peer)
        after = peer.take("q")
        assert after.token > before.token
        assert not peer.ack(before)
        assert peer.ack(after)
