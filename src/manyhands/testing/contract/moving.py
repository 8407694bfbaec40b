"""Giving messages away to another engine and taking dead letters over: what a move of queues stands on."""

from __future__ import annotations

import time

import pytest

from manyhands import events, model
from manyhands.errors import TaskMoved, UnknownId, UsageError
from manyhands.testing.contract.peer import Peer, eventually, message
from manyhands.testing.contract.stage import ContractBase, Stage, needs

HOUR_S = 3600.0
TASK = model.Kind.TASK


def lease_to_move(peer: Peer, queue: str, max_n: int = 100) -> list[model.Delivery]:
    """What is ready, or what will be; nothing of it is begun."""
    return peer.start(events.Lease(0, queue, max_n, 0, 0.0, [], True)).expect(events.Granted).deliveries


def moved(peer: Peer, delivery: model.Delivery, reason: str = "") -> bool:
    return peer.end(delivery, model.SettleKind.MOVED, reason=reason)


def letter(body: bytes, *, id: str = "", kind: int = 0, queue: str = "q") -> model.DeadLetter:  # noqa: A002
    history = [model.Attempt(1, "worker 7", 1.0, 2.5, "nack", "no disk"), model.Attempt(2, "worker 8", 3.0, 4.0, "lost")]
    return model.DeadLetter(queue, message(body, id=id, kind=kind), 1000.5, "it died", history)


class MovePromises(ContractBase):
    @needs("moves", "delays")
    def test_a_move_gets_what_is_ready_and_then_what_is_not_due_yet_soonest_first(self, stage: Stage) -> None:
        peer, now = stage.peer(), time.time()
        later = message(b"later", due_at=now + 2 * HOUR_S)
        peer.put("q", later, message(b"soon", due_at=now + HOUR_S), message(b"ready"))
        assert [d.message.body for d in lease_to_move(peer, "q")] == [b"ready"]
        soon, held = lease_to_move(peer, "q")
        assert [soon.message.body, held.message] == [b"soon", later]
        assert (peer.size("q").delayed, peer.size("q").leased) == (0, 3)
        assert peer.lease("q") == []

    @needs("moves", "delays")
    def test_what_was_leased_early_waits_again_when_it_comes_back(self, stage: Stage) -> None:
        stage.limit(resume_s=0.05)
        mover, other = stage.peer("mover"), stage.peer()
        mover.put("q", message(b"1", due_at=time.time() + HOUR_S), message(b"2", due_at=time.time() + HOUR_S))
        released, _lost = lease_to_move(mover, "q")
        assert mover.release(released)
        assert other.size("q").delayed == 1
        mover.cut()
        eventually(lambda: other.size("q").delayed == 2, "the lost mover's message is delayed again")
        assert other.lease("q") == []
        assert [d.attempt for d in lease_to_move(other, "q")] == [1, 1]

    @needs("moves", "delays", "survives_restart")
    def test_what_was_leased_early_waits_again_after_a_restart(self, stage: Stage) -> None:
        stage.limit(resume_s=0.05, lease_s=0.2)
        mover = stage.peer("mover")
        mover.put("q", message(b"1", due_at=time.time() + HOUR_S))
        assert len(lease_to_move(mover, "q")) == 1
        stage.restart()
        other = stage.peer()
        eventually(lambda: other.size("q").delayed == 1, "it is delayed again")
        assert other.lease("q") == []

    @needs("moves", "delays")
    def test_a_move_leaves_what_waits_for_its_next_attempt(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"tried")
        assert peer.nack(peer.take("q"), delay_s=HOUR_S)
        peer.put("q", message(b"fresh", due_at=time.time() + 2 * HOUR_S))
        assert [d.message.body for d in lease_to_move(peer, "q")] == [b"fresh"]
        assert peer.size("q").delayed == 1

    @needs("moves")
    def test_a_lost_move_charges_nothing_however_often(self, stage: Stage) -> None:
        stage.limit(resume_s=0.02)
        other = stage.peer()
        other.put_bodies("q", b"1", b"2", b"3", max_deliveries=2)
        for _ in range(4):
            mover = stage.peer("mover")
            assert [d.message.body for d in lease_to_move(mover, "q")] == [b"1", b"2", b"3"]
            mover.cut()
            eventually(lambda: other.size("q").ready == 3, "they are back")
        (alone,) = other.lease("q", 3)
        assert alone.attempt == 1
        assert other.size("q").dead == 0

    @needs("moves", "dedupe", "join")
    def test_what_was_moved_is_gone_and_its_id_may_come_back(self, stage: Stage) -> None:
        peer = stage.peer()
        mine = message(b"1", id="mine", options=model.Options(dedupe=True))
        for _ in range(2):
            peer.put("q", mine)
            (delivery,) = lease_to_move(peer, "q")
            assert moved(peer, delivery)
            assert not moved(peer, delivery), "its lease is over"
        stats = peer.size("q")
        assert (stats.ready, stats.leased, stats.dead, stats.unfinished) == (0, 0, 0, 0)
        assert peer.join("q") == 0

    @needs("moves", "calls")
    def test_who_waits_for_what_was_moved_hears_where_it_is(self, stage: Stage) -> None:
        peer = stage.peer()
        awaited = message(b"1", kind=TASK, options=model.Options(keep_result_s=60.0, reply_to="stream"))
        asked = message(b"2", kind=TASK, options=model.Options(keep_result_s=60.0))
        peer.put("q", awaited, asked)
        waiting = peer.start(events.Result(0, asked.id, events.FOREVER))
        for delivery in lease_to_move(peer, "q"):
            assert moved(peer, delivery, "it is at the other place")
        (ended,) = peer.ended("stream")
        assert (ended.id, ended.value, ended.code, ended.text) == (
            awaited.id,
            None,
            TaskMoved.code,
            "it is at the other place",
        )
        with pytest.raises(TaskMoved, match="at the other place"):
            waiting.expect(events.Outcome)
        with pytest.raises(UnknownId):
            peer.result(asked.id)

    @needs("moves", "calls")
    def test_a_task_that_was_moved_back_has_its_result(self, stage: Stage) -> None:
        peer = stage.peer()
        task = message(b"1", kind=TASK, options=model.Options(dedupe=True, keep_result_s=60.0))
        peer.put("q", task)
        assert moved(peer, lease_to_move(peer, "q")[0], "away")
        peer.put("q", task)
        assert peer.ack(peer.take("q"), result=b"done")
        assert peer.result(task.id) == b"done"

    @needs("moves", "calls")
    def test_a_pack_is_not_moved(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"", kind=model.Kind.CALL, options=model.Options(reply_to="stream", calls=3)))
        (delivery,) = lease_to_move(peer, "q")
        with pytest.raises(UsageError):
            moved(peer, delivery)
        assert peer.ack(delivery, result=b"all")

    @needs("moves")
    def test_dead_letters_are_taken_over_with_their_history_once(self, stage: Stage) -> None:
        peer = stage.peer()
        letters = [letter(b"1"), letter(b"2", kind=TASK), letter(b"3", queue="other")]
        assert peer.start(events.Bury(0, letters)).expect(events.Count).n == 3
        assert peer.start(events.Bury(0, [*letters, letter(b"4")])).expect(events.Count).n == 1
        assert {each.message.body for each in peer.dead()} == {b"1", b"2", b"3", b"4"}
        (again,) = peer.dead("q", letters[0].message.id)
        assert again == letters[0]
        stats = peer.size("q")
        assert (stats.dead, stats.dead_total, stats.unfinished, stats.ready) == (3, 3, 0, 0)

    @needs("moves", "survives_restart")
    def test_dead_letters_that_were_taken_over_survive_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        mine = letter(b"1")
        assert peer.start(events.Bury(0, [mine])).expect(events.Count).n == 1
        stage.restart()
        peer = stage.peer()
        assert peer.dead() == [mine]
        assert peer.start(events.Bury(0, [mine])).expect(events.Count).n == 0

    @needs("moves")
    def test_a_dead_letter_that_was_taken_over_can_be_retried_and_dropped(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.start(events.Bury(0, [letter(b"1", id="a"), letter(b"2", id="b")])).expect(events.Count)
        assert peer.dead_retry("q", "a") == 1
        delivery = peer.take("q")
        assert (delivery.message.body, delivery.attempt) == (b"1", 1)
        assert peer.ack(delivery, is_task_done=True)
        assert peer.dead_drop("q", "b") == 1
        assert peer.size("q").unfinished == 0
