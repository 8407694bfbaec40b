"""Connections end, sessions go on: resuming, loss, goodbyes, and consumers that are dead."""

from __future__ import annotations

from manyhands import events
from manyhands.testing.contract.peer import Peer, eventually
from manyhands.testing.contract.stage import ContractBase, Stage, needs


class SessionPromises(ContractBase):
    def test_an_engine_says_what_it_is(self, stage: Stage) -> None:
        attached = stage.peer().port.attached
        assert attached.engine
        assert not attached.is_resumed
        assert attached.durability == stage.engine.durability
        assert attached.durability.level in ("process", "disk", "replicated")
        assert attached.durability.text
        assert attached.features == stage.engine.features
        assert attached.limits == stage.engine.limits

    def test_a_session_that_resumes_in_time_keeps_its_leases(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"work")
        held = peer.take("q")
        peer.cut()
        attached = stage.resume(peer, held.token)
        assert attached.is_resumed
        assert attached.lost == []
        assert other.lease("q") == []
        assert peer.ack(held)
        assert other.lease("q") == [], "a network blip repeated a message"

    def test_a_lost_connection_keeps_its_messages_for_resume_s(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"work")
        peer.take("q")
        peer.cut()
        eventually(lambda: not other.sees(peer), "the engine notices the cut")
        assert other.lease("q", wait_s=0.2) == []

    def test_a_session_that_does_not_resume_gives_its_messages_back(self, stage: Stage) -> None:
        stage.limit(resume_s=0.1)
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2")
        peer.take("q")
        peer.cut()
        again = other.take("q")
        assert again.message.body in (b"1", b"2")
        eventually(lambda: other.size("q").leased == 1, "only the new lease is left")
        assert other.release(again)
        back = other.take("q")
        assert (back.message.body, back.attempt) == (b"1", 2), "what was lost comes first and was counted"

    def test_a_session_that_resumes_too_late_is_told_what_it_lost(self, stage: Stage) -> None:
        stage.limit(resume_s=0.1)
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"work")
        stale = peer.take("q")
        peer.cut()
        current = other.take("q")
        attached = stage.resume(peer, stale.token)
        assert attached.lost == [stale.token]
        assert other.ack(current)

    def test_what_a_resuming_session_does_not_hold_never_arrived(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2", b"3")
        one, _two, _three = peer.lease("q", 3)
        peer.cut()
        attached = stage.resume(peer, one.token)
        assert attached.is_resumed
        back = [other.take("q") for _ in range(2)]
        assert [(d.message.body, d.attempt) for d in back] == [(b"2", 1), (b"3", 1)], "charged for what never arrived"
        assert peer.ack(one)

    def test_a_resuming_session_is_told_of_tokens_that_were_never_its_own(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        other.put_bodies("q", b"work")
        foreign = other.take("q")
        assert stage.resume(peer, foreign.token).lost == [foreign.token]
        assert other.ack(foreign)

    def test_an_unknown_session_that_resumes_is_new_and_holds_nothing(self, stage: Stage) -> None:
        known = stage.peer()
        known.put_bodies("q", b"work")
        foreign = known.take("q")
        stranger = Peer(stage.engine, session="0" * 32, held=[foreign.token])
        attached = stranger.port.attached
        assert not attached.is_resumed
        assert attached.lost == [foreign.token]
        stranger.cut()

    def test_a_second_attach_takes_the_session_over(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"work")
        held = peer.take("q")
        taken_over = peer.port
        attached = stage.resume(peer, held.token)
        assert attached.is_resumed
        taken_over.detach(goodbye=False)
        assert other.lease("q", wait_s=0.05) == [], "the end of the old connection cost the new one its lease"
        assert peer.ack(held)

    def test_a_goodbye_gives_back_at_once(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2")
        peer.lease("q", 2, begin_n=1)
        peer.goodbye()
        bodies = {other.take("q").message.body, other.take("q").message.body}
        assert bodies == {b"1", b"2"}

    def test_a_goodbye_charges_nothing_for_what_was_not_begun(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1")
        peer.lease("q", begin_n=0)
        peer.goodbye()
        assert other.take("q").attempt == 1

    def test_a_session_reported_dead_gives_back_at_once(self, stage: Stage) -> None:
        child, parent = stage.peer("child"), stage.peer("parent")
        child.put_bodies("q", b"work")
        child.take("q")
        parent.report_dead(child.session, "exit code -9")
        again = parent.take("q")
        assert (again.message.body, again.attempt) == (b"work", 2)

    def test_a_dead_consumer_that_waited_is_never_handed_anything(self, stage: Stage) -> None:
        ghost, other = stage.peer("ghost"), stage.peer("other")
        ghost.start_lease("q", wait_s=events.FOREVER)
        ghost.ping()
        ghost.cut()
        eventually(lambda: not other.sees(ghost), "the engine notices the cut")
        other.put_bodies("q", b"work")
        delivery = other.take("q")
        assert (delivery.message.body, delivery.attempt) == (b"work", 1)
        assert other.size("q").waiting == 0

    def test_a_consumer_reported_dead_while_waiting_is_never_handed_anything(self, stage: Stage) -> None:
        ghost, other = stage.peer("ghost"), stage.peer("other")
        ghost.start_lease("q", wait_s=events.FOREVER)
        ghost.ping()
        other.report_dead(ghost.session)
        other.put_bodies("q", b"work")
        assert other.take("q").message.body == b"work"

    @needs("survives_restart")
    def test_leases_outlive_a_restart_of_the_engine(self, stage: Stage) -> None:
        peer, other = stage.peer(), stage.peer()
        peer.put_bodies("q", b"1", b"2")
        held = peer.take("q")
        stage.restart()
        attached = stage.resume(peer, held.token)
        assert attached.is_resumed
        assert attached.lost == []
        stage.resume(other)
        assert other.take("q").message.body == b"2"
        assert peer.ack(held)
        assert other.lease("q") == []

    @needs("survives_restart")
    def test_a_lease_whose_holder_does_not_return_after_a_restart_is_given_back(self, stage: Stage) -> None:
        stage.limit(lease_s=0.3, resume_s=0.1)
        peer = stage.peer()
        peer.put_bodies("q", b"work")
        peer.take("q")
        stage.restart()
        again = stage.peer().take("q")
        assert (again.message.body, again.attempt) == (b"work", 2)

    @needs("survives_restart")
    def test_everything_acknowledged_survives_a_restart_in_order(self, stage: Stage) -> None:
        peer = stage.peer()
        peer.put_bodies("q", *[str(n).encode() for n in range(50)])
        for _ in range(10):
            assert peer.ack(peer.take("q"))
        stage.restart()
        after = stage.peer()
        assert [d.message.body for d in after.lease("q", 100)] == [str(n).encode() for n in range(10, 50)]
