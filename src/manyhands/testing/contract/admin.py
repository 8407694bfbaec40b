"""What people see: sizes, statistics, peeking, purging."""

from __future__ import annotations

import time

from manyhands import events, model
from manyhands.testing.contract.peer import message
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class AdminPromises(ContractBase):
    def test_the_numbers_of_a_queue(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3", b"4", b"5")
        begun, _prefetched = peer.lease("q", 2, begin_n=1)
        dead = peer.take("q")
        peer.reject(dead)
        peer.ack(begun, is_task_done=True)
        stats = peer.size("q")
        assert (stats.name, stats.ready, stats.leased, stats.unbegun, stats.dead) == ("q", 2, 1, 1, 1)
        assert (stats.put_total, stats.done_total, stats.dead_total, stats.unfinished) == (5, 1, 1, 3)
        assert stats.maxsize == 0
        assert not stats.is_shut_down

    def test_redeliveries_are_counted(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1")
        peer.nack(peer.take("q"))
        peer.take("q")
        assert peer.size("q").redelivered_total == 1

    def test_the_size_of_a_queue_nobody_knows_is_zero(self, stage: Stage) -> None:
        stats = stage.peer().size("new")
        assert (stats.name, stats.ready, stats.put_total) == ("new", 0, 0)

    def test_statistics_name_every_queue_and_session(self, stage: Stage) -> None:
        one, two = stage.peer("one"), stage.peer("two")
        one.put_bodies("a", b"1")
        one.put_bodies("b", b"1")
        one.take("a")
        two.start_lease("empty", wait_s=events.FOREVER)
        two.ping()
        report = one.stats()
        assert {stats.name for stats in report.queues} >= {"a", "b"}
        seen = {session.name: session for session in report.sessions}
        assert (seen["one"].is_connected, seen["one"].leases) == (True, 1)
        assert seen["two"].waiting == 1
        assert report.uptime_s >= 0
        assert [stats.name for stats in one.stats("b").queues] == ["b"]

    def test_statistics_tell_sessions_apart_and_nothing_with_which_to_speak_in_their_name(self, stage: Stage) -> None:
        one, two = stage.peer("one"), stage.peer("two")
        shown = {session.name: session.id for session in one.stats().sessions}
        assert shown["one"] == model.public_id(one.session)
        assert shown["two"] == model.public_id(two.session)
        assert one.session[:12] not in str(shown)

    def test_peeking_takes_nothing(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        assert [m.body for m in peer.peek("q", 2)] == [b"1", b"2"]
        assert peer.size("q").ready == 3
        assert peer.take("q").attempt == 1

    @needs("delays", "priorities")
    def test_peeking_shows_what_comes_soonest_first(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"later", due_at=time.time() + 60), message(b"low"), message(b"high", priority=9))
        peer.put_bodies("q", b"low too")
        assert [m.body for m in peer.peek("q")] == [b"high", b"low", b"low too", b"later"]

    @needs("delays")
    def test_a_purge_drops_what_waits_and_leaves_what_is_held(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put("q", message(b"held"), message(b"ready"), message(b"later", due_at=time.time() + 60))
        held = peer.take("q")
        assert peer.purge("q") == 2
        stats = peer.size("q")
        assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 1)
        assert peer.ack(held)
        assert peer.purge("q") == 0

    @needs("bounded")
    def test_a_purge_makes_room(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.declare("q", 1)
        peer.put_bodies("q", b"1")
        waiting = peer.start(peer.put_request("q", message(b"2"), wait_s=events.FOREVER))
        peer.purge("q")
        waiting.expect(events.Done)

    @needs("survives_restart")
    def test_a_purge_survives_a_restart(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        peer.purge("q")
        stage.restart()
        assert stage.peer().lease("q") == []
