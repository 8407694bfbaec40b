"""What join waits for: put, less what was said to be done."""

from __future__ import annotations

import pytest

from manyhands import events
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class AccountingPromises(ContractBase):
    @needs("join")
    def test_join_returns_at_once_when_nothing_is_unfinished(self, stage: Stage) -> None:
        assert stage.peer().join("q", wait_s=events.FOREVER) == 0

    @needs("join")
    def test_join_waits_until_the_last_entry_is_done(self, stage: Stage) -> None:
        waiting_peer, peer = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2")
        waiting = waiting_peer.start(events.Join(0, "q", events.FOREVER))
        waiting_peer.ping()
        peer.ack(peer.take("q"), is_task_done=True)
        waiting_peer.ping()
        assert not waiting.is_answered
        peer.ack(peer.take("q"), is_task_done=True)
        assert waiting.expect(events.Count).n == 0

    @needs("join")
    def test_join_ends_with_what_is_unfinished(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        assert peer.join("q", wait_s=0.05) == 2

    @needs("join")
    def test_an_implicit_settlement_does_not_count(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        peer.ack(peer.take("q"))
        assert peer.join("q") == 1
        peer.task_done("q")
        assert peer.join("q") == 0

    @needs("join")
    def test_task_done_counts_n(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        peer.task_done("q", 2)
        assert peer.join("q") == 1

    @needs("join")
    def test_task_done_more_often_than_put_is_refused(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        peer.task_done("q")
        with pytest.raises(ValueError, match=r"\w"):
            peer.task_done("q")
        peer.put_bodies("q", b"2")
        assert peer.join("q") == 1, "the refused call was counted"

    @needs("join")
    def test_what_comes_back_is_not_put_again(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        peer.nack(peer.take("q"))
        assert peer.join("q") == 1
        peer.ack(peer.take("q"), is_task_done=True)
        assert peer.join("q") == 0

    @needs("join")
    def test_what_is_purged_is_finished(self, stage: Stage) -> None:
        peer, waiter = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2")
        waiting = waiter.start(events.Join(0, "q", events.FOREVER))
        waiter.ping()
        assert peer.purge("q") == 2
        assert waiting.expect(events.Count).n == 0

    @needs("join", "survives_restart")
    def test_what_is_unfinished_survives_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        peer.ack(peer.take("q"))
        peer.task_done("q")
        stage.restart()
        after = stage.peer()
        assert after.join("q") == 2
        assert after.size("q").put_total == 3
