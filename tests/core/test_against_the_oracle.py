"""The core against a plain oracle, with random programs of puts, leases, settlements, losses, restarts and time.

Invariants, in words:
* I1 every message whose put was confirmed is in exactly one of ready, delayed, leased, done, dead, at all times;
* I2 nothing is delivered that was not put, and its body is the one that was put;
* I3 a message is leased to one token at a time, no token is used twice, and a stale or foreign token changes nothing;
* I4 a message is delivered at most max_deliveries times charged, then it is a dead letter; a release charges nothing;
* I6 sending a put or a settlement a second time changes nothing, also over a restart;
* I7 messages come in the order that the oracle says, suspects alone;
* I8 when the faults stop, everything can be drained.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from manyhands.events import (
    Begin,
    Declare,
    Done,
    Extend,
    Failed,
    Granted,
    Lease,
    Ping,
    Put,
    Recall,
    Recalled,
    ReportDead,
    Settle,
    Settled,
)
from manyhands.model import Limits, SettleKind, Settlement

from .driver import Driver
from .oracle import Oracle

settings.register_profile("default", max_examples=1_200, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
settings.register_profile("nightly", max_examples=20_000, stateful_step_count=60, deadline=None, report_multiple_bugs=False)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")

SESSIONS = ("ann", "bob", "cleo")
QUEUES = ("open", "bounded")
BOUNDS = {"bounded": 4}

KINDS = [kind for kind in SettleKind if kind is not SettleKind.PARK]  # parking has tests of its own

sessions = st.sampled_from(SESSIONS)
queues = st.sampled_from(QUEUES)


class Machine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        limits = Limits(lease_s=30.0, resume_s=1.0)
        self.driver = Driver(limits=limits, is_journaled=True)
        self.oracle = Oracle(limits.resume_s, limits.lease_s, BOUNDS)
        self.tokens: dict[int, tuple[str, str]] = {}
        """Every token ever seen: to whom, for which message."""
        self.bodies: dict[str, bytes] = {}
        self.last: dict[str, list[tuple[Any, Any]]] = {}
        for session in SESSIONS:
            self.driver.attach(session)
            self.hear(session)
        self.driver.send("ann", Declare(0, "bounded", 4))
        for queue in QUEUES:
            self.put("ann", queue, 3, 0, 0.0, 3)

    def hear(self, session: str) -> None:
        self.oracle.heard[session] = self.driver.clock.mono
        self.oracle.away.pop(session, None)

    def is_connected(self, session: str) -> bool:
        return session in self.oracle.heard

    def come_online(self, session: str) -> None:
        """A client that has something to ask reconnects first."""
        if not self.is_connected(session):
            self.reattach(session, keeps_all=True)

    # -- rules: clients

    @rule(
        session=sessions,
        queue=queues,
        n=st.integers(1, 3),
        priority=st.sampled_from((0, 0, 5, -3)),
        delay_s=st.sampled_from((0.0, 0.0, 0.0, 2.0)),
        max_deliveries=st.integers(1, 3),
    )
    def put(self, session: str, queue: str, n: int, priority: int, delay_s: float, max_deliveries: int) -> None:
        self.come_online(session)
        driver, wall = self.driver, self.driver.clock.wall
        due_at = wall + delay_s if delay_s else 0.0
        messages = [driver.message(priority=priority, due_at=due_at, max_deliveries=max_deliveries) for _ in range(n)]
        seq = driver.seq(session, queue)
        request = Put(driver.rid(), queue, seq, seq, messages, 0.0)
        self.hear(session)
        reply = driver.ask(session, request)
        if self.oracle.put(queue, [m.id for m in messages], priority, due_at, max_deliveries, wall):
            assert isinstance(reply, Done)
            self.bodies.update({m.id: m.body for m in messages})
            self.last.setdefault(session, []).append((request, reply))
        else:
            assert isinstance(reply, Failed)
            assert reply.code == "full"

    @rule(session=sessions, which=st.integers(0, 1000))
    def send_again(self, session: str, which: int) -> None:
        sent = self.last.get(session)
        if sent and self.is_connected(session):
            request, answer = sent[which % len(sent)]
            self.hear(session)
            reply = self.driver.ask(session, request)
            assert isinstance(reply, type(answer))
            if isinstance(answer, Settled):  # what changed nothing says so again, until a later floor forgets it
                assert reply.lost in ([], answer.lost)

    @rule(session=sessions, queue=queues, max_n=st.integers(1, 4), begin_n=st.integers(1, 2), generous=st.booleans())
    def lease(self, session: str, queue: str, max_n: int, begin_n: int, generous: bool) -> None:
        self.come_online(session)
        driver = self.driver
        rid = driver.rid()
        self.hear(session)
        self.oracle.promote(driver.clock.wall)
        driver.send(session, Lease(rid, queue, max_n, begin_n, 0.0))
        reply = driver.reply(session, rid)
        if reply is None:
            # Nothing is ready; others are asked for what they have not begun, and answer.
            assert not self.oracle.next(queue, 1)
            recalls = [(other, one) for other in SESSIONS if other != session for one in driver.take(other)]
            for other, recall in recalls:
                if isinstance(recall, Recall):
                    self.answer_recall(other, recall, generous)
                    # The first answer that gives something back ends the wait.
                    late = driver.reply(session, rid)
                    if late is not None:
                        reply = late
                        self.check_grant(session, queue, max_n, begin_n, reply)
        else:
            self.check_grant(session, queue, max_n, begin_n, reply)
        assert isinstance(reply, Granted)

    def answer_recall(self, session: str, recall: Recall, generous: bool) -> None:
        assert recall.n > 0
        mine = [m for m in self.oracle.at(recall.queue, "leased") if m.holder == session and not m.is_begun]
        given = mine[: recall.n] if generous else []
        for m in given:
            self.oracle.give_back(m, self.driver.clock.wall, is_charged=False, is_suspect=m.is_suspect)
        self.hear(session)
        self.driver.core.apply(session, [Recalled(recall.queue, [m.token for m in given])], self.driver.clock.now())
        self.driver.collect()

    def check_grant(self, session: str, queue: str, max_n: int, begin_n: int, reply: Granted) -> None:
        expected = self.oracle.next(queue, max_n)
        assert [delivery.message.id for delivery in reply.deliveries] == expected[: len(reply.deliveries)]
        assert bool(reply.deliveries) == bool(expected)
        if len(reply.deliveries) < len(expected):
            raise AssertionError(f"fewer than there are: {len(reply.deliveries)} of {len(expected)}")
        for i, delivery in enumerate(reply.deliveries):
            m = self.oracle.lease(session, delivery.token, delivery.message.id, i < begin_n)
            assert delivery.attempt == m.deliveries <= m.max_deliveries
            assert delivery.message.body == self.bodies[delivery.message.id]
            assert delivery.token not in self.tokens
            assert delivery.token < 2**63
            self.tokens[delivery.token] = session, delivery.message.id

    @rule(session=sessions, queue=queues)
    def begin(self, session: str, queue: str) -> None:
        mine = [m for m in self.oracle.at(queue, "leased") if m.holder == session and not m.is_begun]
        if self.is_connected(session) and mine:
            self.hear(session)
            self.driver.send(session, Begin(queue, [m.token for m in mine]))
            for m in mine:
                m.is_begun = True

    @precondition(lambda self: self.tokens)
    @rule(
        session=sessions,
        which=st.integers(0, 1000),
        is_newest=st.booleans(),
        kind=st.sampled_from(KINDS),
        is_task_done=st.booleans(),
        delay_s=st.sampled_from((0.0, 0.0, 3.0)),
    )
    def settle(
        self, session: str, which: int, is_newest: bool, kind: SettleKind, is_task_done: bool, delay_s: float
    ) -> None:
        self.come_online(session)
        mine = [m.token for m in self.oracle.messages.values() if m.place == "leased" and m.holder == session]
        choice = mine if is_newest and mine else list(self.tokens)
        token = choice[which % len(choice)]
        m = self.oracle.held(session, token)
        driver = self.driver
        seq = driver.seq(session, "")
        request = Settle(driver.rid(), seq, seq, [Settlement(token, kind, is_task_done, delay_s)])
        self.hear(session)
        reply = driver.ask(session, request)
        assert reply == Settled(request.rid, [] if m else [token])
        self.last.setdefault(session, []).append((request, reply))
        if m is None:
            return
        m.is_begun = True
        if kind == SettleKind.ACK:
            self.oracle.ack(m, is_task_done)
        elif kind == SettleKind.NACK:
            due_at = driver.clock.wall + delay_s if delay_s else 0.0
            self.oracle.give_back(m, self.driver.clock.wall, is_charged=True, is_suspect=False, due_at=due_at)
        elif kind == SettleKind.REJECT:
            self.oracle.bury(m)
        elif kind == SettleKind.MOVED:
            self.oracle.leave(m)
        else:
            self.oracle.give_back(m, self.driver.clock.wall, is_charged=False, is_suspect=m.is_suspect)

    @precondition(lambda self: self.tokens)
    @rule(session=sessions, which=st.integers(0, 1000))
    def extend(self, session: str, which: int) -> None:
        if self.is_connected(session):
            token = list(self.tokens)[which % len(self.tokens)]
            self.hear(session)
            reply = self.driver.ask(session, Extend(self.driver.rid(), [token]))
            assert reply.lost == ([] if self.oracle.held(session, token) else [token])

    @rule(which=st.integers(0, 1000), kind=st.sampled_from(KINDS))
    def wake_too_late(self, which: int, kind: SettleKind) -> None:
        """A consumer settles a message that another (or it itself, under a new token) holds by now."""
        held = {one: m.token for one, m in self.oracle.messages.items() if m.place == "leased"}
        stale = [(session, token) for token, (session, one) in self.tokens.items() if held.get(one, token) != token]
        if stale:
            session, token = stale[which % len(stale)]
            self.come_online(session)
            self.hear(session)
            assert self.driver.settle(session, token, kind=kind) == [token]

    # -- rules: faults and time

    @rule(session=sessions, how=st.sampled_from(("cut", "cut", "dead", "reported")))
    def lose_connection(self, session: str, how: str) -> None:
        if not self.is_connected(session):
            return
        reporter = next((other for other in SESSIONS if other != session and self.is_connected(other)), None)
        if how == "reported" and reporter:
            self.hear(reporter)
            self.driver.send(reporter, ReportDead(self.driver.rid(), session))
        else:
            self.driver.detach(session, is_dead=how == "dead")
        del self.oracle.heard[session]
        self.oracle.away[session] = self.driver.clock.mono + self.oracle.resume_s
        if how == "dead" or (how == "reported" and reporter):
            self.oracle.lose(session, self.driver.clock.wall)

    @rule(session=sessions, keeps_all=st.booleans())
    def come_back(self, session: str, keeps_all: bool) -> None:
        if not self.is_connected(session):
            self.reattach(session, keeps_all)

    def reattach(self, session: str, keeps_all: bool) -> None:
        mine = [m for m in self.oracle.messages.values() if m.place == "leased" and m.holder == session]
        kept = mine if keeps_all else mine[:1]
        stale = [token for token in self.tokens if self.oracle.held(session, token) is None][:2]
        is_resumed, lost = self.driver.attach(session, held=[m.token for m in kept] + stale)
        assert is_resumed
        assert lost == stale
        for m in mine[len(kept) :]:
            self.oracle.give_back(m, self.driver.clock.wall, is_charged=False, is_suspect=m.is_suspect)
        self.hear(session)

    @rule(seconds=st.sampled_from((0.5, 1.0, 2.5, 12.0, 29.0, 31.0)), pings=st.booleans())
    def time_passes(self, seconds: float, pings: bool) -> None:
        if pings:
            for session in list(self.oracle.heard):
                self.hear(session)
                self.driver.send(session, Ping(0))
        self.driver.advance(seconds)
        self.oracle.pass_time(self.driver.clock.mono, self.driver.clock.wall)

    @rule(seconds=st.sampled_from((-3600.0, 3600.0)))
    def somebody_sets_the_clock(self, seconds: float) -> None:
        self.driver.clock.set_wall(self.driver.clock.wall + seconds)
        self.driver.tick()
        self.oracle.pass_time(self.driver.clock.mono, self.driver.clock.wall)

    @rule(dice=st.integers(0, 3))
    def restart(self, dice: int) -> None:
        if dice:
            return  # a rare event, or nothing else would ever happen
        self.driver.restart()
        self.oracle.restart(self.driver.clock.mono, self.driver.clock.wall)
        self.oracle.promote(self.driver.clock.wall)

    # -- what always holds

    @invariant()
    def counts_agree(self) -> None:
        for queue in QUEUES:
            stats = self.driver.stats(queue)
            seen = {key: getattr(stats, key) for key in self.oracle.summary(queue)}
            assert seen == self.oracle.summary(queue)

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        for session in SESSIONS:
            if not self.is_connected(session):
                self.come_online(session)
        # Silence everybody's leases away, make everything due, and drain.
        self.driver.clock.set_wall(self.driver.clock.wall + 1e6)
        self.driver.advance(100.0)
        self.oracle.heard = dict.fromkeys(SESSIONS, -1000000000.0)
        self.oracle.pass_time(self.driver.clock.mono, self.driver.clock.wall)
        for queue in QUEUES:
            for _ in range(1000):
                deliveries = self.driver.lease("ann", queue, 10, 10)
                if not deliveries:
                    break
                assert [d.message.id for d in deliveries] == self.oracle.next(queue, 10)
                for delivery in deliveries:
                    self.oracle.ack(self.oracle.lease("ann", delivery.token, delivery.message.id, True), False)
                assert self.driver.settle("ann", *[delivery.token for delivery in deliveries]) == []
            assert self.oracle.at(queue, "ready", "delayed", "leased") == []
            stats = self.driver.stats(queue)
            assert (stats.ready, stats.delayed, stats.leased) == (0, 0, 0)
            moved_n = len(self.oracle.at(queue, "gone"))
            assert stats.done_total + stats.dead_total + moved_n == stats.put_total


TestCoreAgainstTheOracle = Machine.TestCase
TestCoreAgainstTheOracle.settings = settings(
    settings.get_profile(PROFILE), suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)
