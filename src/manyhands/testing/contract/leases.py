"""How long a lease lasts. These tests let real time pass, as little of it as the promise needs."""

from __future__ import annotations

import time

from manyhands.testing.contract.stage import ContractBase, Stage


class LeasePromises(ContractBase):
    def test_a_lease_ends_after_lease_s_of_silence(self, stage: Stage) -> None:
        stage.limit(lease_s=0.3)
        silent, other = stage.peer("silent"), stage.peer("other")
        silent.put_bodies("q", b"work")
        silent.take("q")
        again = other.take("q")
        assert (again.message.body, again.attempt) == (b"work", 2)

    def test_a_worker_that_woke_too_late_cannot_settle(self, stage: Stage) -> None:
        stage.limit(lease_s=0.3)
        late, holder = stage.peer("late"), stage.peer("holder")
        late.put_bodies("q", b"work")
        stale = late.take("q")
        current = holder.take("q")
        assert not late.ack(stale)
        assert holder.ack(current)

    def test_a_lease_does_not_end_early(self, stage: Stage) -> None:
        stage.limit(lease_s=5.0)
        silent, other = stage.peer(), stage.peer()
        silent.put_bodies("q", b"work")
        held = silent.take("q")
        assert other.lease("q", wait_s=0.3) == []
        assert silent.ack(held)

    def test_heartbeats_keep_a_lease(self, stage: Stage) -> None:
        stage.limit(lease_s=0.8)
        busy, other = stage.peer("busy"), stage.peer("other")
        busy.put_bodies("q", b"long work")
        held = busy.take("q")
        waiting = other.start_lease("q")
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            busy.ping()
            time.sleep(0.05)
        assert not waiting.is_answered, "the lease ended although its holder spoke"
        assert busy.ack(held)

    def test_a_heartbeat_keeps_all_leases_of_its_session(self, stage: Stage) -> None:
        stage.limit(lease_s=0.8)
        busy, other = stage.peer(), stage.peer()
        busy.put_bodies("a", b"1")
        busy.put_bodies("b", b"2")
        first, second = busy.take("a"), busy.take("b")
        until = time.monotonic() + 1.2
        while time.monotonic() < until:
            busy.extend(second.token)
            time.sleep(0.05)
        assert other.lease("a") == []
        assert busy.ack(first)
        assert busy.ack(second)

    def test_an_extension_names_what_was_lost_and_keeps_the_rest(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", b"1", b"2")
        one, two = peer.lease("q", 2)
        peer.ack(one)
        assert peer.extend(one.token, two.token) == [one.token]
        assert peer.ack(two)
