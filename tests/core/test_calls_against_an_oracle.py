"""Calls in packs against a plain oracle, with random programs of everything that can happen to them.

Invariants, in words:
* C1 every call whose put was confirmed ends exactly once in its stream: never twice, and once the faults stop, at last;
* C2 a call is with one lease at a time, and never again once it has ended;
* C3 a call is charged what was said of it and nothing of what befell its neighbours; at max_deliveries it dies;
* C4 a queue counts calls: put = waiting, leased, parked, done, dead and dropped, however packs are split;
* C5 results that were not acknowledged come again, also over a restart; acknowledged ones do not.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from manyhands.events import (
    Attach,
    Begin,
    Cancel,
    Cancelled,
    Collect,
    Collected,
    Done,
    Failed,
    Lease,
    Offer,
    Put,
    Reclaim,
    Report,
    ReportDead,
    Settle,
    Settled,
)
from manyhands.model import Begun, Ended, Kind, Limits, Message, Options, SettleKind, Settlement, part_id

from .driver import Driver

PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "default")
settings.register_profile("calls", max_examples=400, stateful_step_count=40, deadline=None, report_multiple_bugs=False)
settings.register_profile("calls-nightly", max_examples=20_000, stateful_step_count=60, deadline=None)

CHILDREN = ("ann", "bob")
QUEUE, STREAM, NEED = "q()", "the driver's stream", "task:rare"
children = st.sampled_from(CHILDREN)
which = st.integers(0, 1000)


@dataclass
class Call:
    max_deliveries: int
    charged: int = 0
    ended: int = 0


@dataclass
class Held:
    child: str
    calls: list[str]
    is_pack: bool
    is_begun: bool
    pack: str = ""
    reported: int = 0


class Machine(RuleBasedStateMachine):
    @initialize(is_journaled=st.booleans())
    def start(self, is_journaled: bool) -> None:
        self.driver = Driver(limits=Limits(lease_s=30.0, resume_s=1.0, orphan_s=1e9), is_journaled=is_journaled)
        self.calls: dict[str, Call] = {}
        self.packs: dict[str, int] = {}
        self.held: dict[int, Held] = {}
        self.ack = 0
        self.n = 0
        self.driver.attach("driver")
        for child in CHILDREN:
            self.attach(child)

    def attach(self, child: str, held: list[int] | None = None) -> None:
        self.driver.core.attach(Attach(child, child, held, parent="driver"), self.driver.clock.now())
        self.driver.collect()

    # -- what the oracle knows

    def charge(self, call: str) -> None:
        self.calls[call].charged += 1

    def lose(self, child: str) -> None:
        """Nobody says what ran: begun single calls are charged, of packs those that may run once only."""
        for token in [token for token, held in self.held.items() if held.child == child]:
            held = self.held.pop(token)
            for call in held.calls:
                if held.is_begun and (not held.is_pack or self.calls[call].max_deliveries == 1):
                    self.charge(call)

    # -- rules

    @rule(n=st.sampled_from((0, 0, 2, 3, 5)), max_deliveries=st.integers(1, 3))
    def put(self, n: int, max_deliveries: int) -> None:
        self.n += 1
        name = f"m{self.n}"
        options = Options(reply_to=STREAM, calls=n)
        message = Message(name, b"x", kind=Kind.CALL, max_deliveries=max_deliveries, options=options)
        seq = self.driver.seq("driver", QUEUE)
        assert isinstance(self.driver.ask("driver", Put(self.driver.rid(), QUEUE, seq, seq, [message])), Done)
        if n:
            self.packs[name] = n
        for call in [part_id(name, part) for part in range(n)] or [name]:
            self.calls[call] = Call(max_deliveries)

    @rule(child=children, max_n=st.integers(1, 3), begins=st.booleans())
    def lease(self, child: str, max_n: int, begins: bool) -> None:
        for delivery in self.driver_lease(child, max_n, max_n if begins else 1):
            message = delivery.message
            assert message.options is not None
            is_pack = message.options.calls > 1
            calls = [part_id(message.id, part) for part in range(message.options.calls)] if is_pack else [message.id]
            taken = {call for held in self.held.values() for call in held.calls}
            assert not taken.intersection(calls), "C2: with two leases at once"
            for call in calls:
                assert not self.calls[call].ended, "C2: handed out after its end"
                assert delivery.attempt == self.calls[call].charged + 1 <= self.calls[call].max_deliveries, "C3"
            self.held[delivery.token] = Held(child, calls, is_pack, True, message.id if is_pack else "")

    def driver_lease(self, child: str, max_n: int, begin_n: int):  # type: ignore[no-untyped-def]
        rid = self.driver.rid()
        self.driver.send(child, Lease(rid, QUEUE, max_n, begin_n, 0.0))
        reply = self.driver.reply(child, rid)
        if reply is None:  # others are asked to give back; here they keep what they have
            for other in CHILDREN:
                self.driver.send("driver", Reclaim(0, other, QUEUE, []))
            reply = self.driver.reply(child, rid)
        # All count as begun, so that the oracle need not know who was asked to give what back.
        self.driver.send(child, Begin(QUEUE, [delivery.token for delivery in reply.deliveries]))
        return reply.deliveries

    def pick(self, index: int, child: str = "") -> tuple[int, Held] | None:
        mine = [(token, held) for token, held in self.held.items() if not child or held.child == child]
        return mine[index % len(mine)] if mine else None

    @precondition(lambda self: self.held)
    @rule(index=which, kind=st.sampled_from(SettleKind), n=st.integers(0, 3), has_result=st.booleans())
    def settle(self, index: int, kind: SettleKind, n: int, has_result: bool) -> None:
        token, held = self.pick(index)  # type: ignore[misc]
        seq = self.driver.seq(held.child, "")
        result = b"r" if has_result else None
        settlement = Settlement(token, kind, reason=NEED, result=result, calls=n)
        reply = self.driver.ask(held.child, Settle(self.driver.rid(), seq, seq, [settlement]))
        is_moved_pack = kind is SettleKind.MOVED and held.is_pack
        if is_moved_pack or ((n and (kind or has_result)) and n > len(held.calls)):
            assert isinstance(reply, Failed)
            return
        assert reply == Settled(reply.rid)
        del self.held[token]
        covered = held.calls[:n] if n else held.calls
        if kind is SettleKind.NACK:
            for call in covered:
                self.charge(call)

    @precondition(lambda self: self.held)
    @rule(index=which, n=st.integers(1, 3), is_sent_twice=st.booleans())
    def report(self, index: int, n: int, is_sent_twice: bool) -> None:
        token, held = self.pick(index)  # type: ignore[misc]
        seq = self.driver.seq(held.child, "")
        request = Report(self.driver.rid(), seq, seq, token, n, b"r")
        reply = self.driver.ask(held.child, request)
        if not held.is_pack or n > len(held.calls):
            assert isinstance(reply, Failed)
            return
        assert isinstance(reply, Done)
        if is_sent_twice:
            assert isinstance(self.driver.ask(held.child, request), Done)
        held.calls = held.calls[n:]
        held.reported += n

    @precondition(lambda self: self.held)
    @rule(index=which, n=st.integers(0, 4))
    def reclaim(self, index: int, n: int) -> None:
        token, held = self.pick(index)  # type: ignore[misc]
        self.driver.send("driver", Reclaim(0, held.child, QUEUE, [Begun(token, n)]))
        if n == 0:
            del self.held[token]
        elif held.is_pack:
            held.calls = held.calls[: max(0, n - held.reported)]

    @rule(
        child=children,
        index=which,
        part=st.integers(-1, 4),
        how=st.sampled_from(("", "idle", "lost", "ack", "nack", "reject")),
    )
    def report_dead(self, child: str, index: int, part: int, how: str) -> None:
        found = self.pick(index, child)
        if how in ("", "idle") or found is None:
            self.driver.send("driver", ReportDead(self.driver.rid(), child, is_idle=how == "idle"))
            if how == "idle":
                self.held = {token: held for token, held in self.held.items() if held.child != child}
            self.lose(child)
            self.attach(child, [])
            return
        token, held = found
        kinds = {"ack": SettleKind.ACK, "nack": SettleKind.NACK, "reject": SettleKind.REJECT}
        settlement = Settlement(token, kinds[how], result=b"r") if how != "lost" else None
        self.driver.send("driver", ReportDead(self.driver.rid(), child, "", token, part, settlement))
        running = [call for call in held.calls if not held.is_pack or call == part_id(held.pack, part)]
        if running:
            if how in ("lost", "nack"):
                self.charge(running[0])
        elif held.is_pack and part < 0:
            for call in held.calls:
                if self.calls[call].max_deliveries == 1:
                    self.charge(call)
        self.held = {token: held for token, held in self.held.items() if held.child != child}
        self.attach(child, [])

    @rule(child=children)
    def lose_connection(self, child: str) -> None:
        self.driver.detach(child)
        self.driver.advance(2.0)
        self.lose(child)
        self.attach(child, [])

    @precondition(lambda self: self.calls)
    @rule(indexes=st.lists(which, min_size=1, max_size=4), is_running_too=st.booleans())
    def cancel(self, indexes: list[int], is_running_too: bool) -> None:
        ids = [list(self.calls)[index % len(self.calls)] for index in indexes]
        reply = self.driver.ask("driver", Cancel(self.driver.rid(), QUEUE, ids, is_running_too))
        assert isinstance(reply, Cancelled)
        taken = {call for held in self.held.values() for call in held.calls}
        assert not taken.intersection(reply.ids)

    @rule(child=children)
    def offer(self, child: str) -> None:
        self.driver.send(child, Offer([NEED]))

    @rule(is_lost=st.booleans())
    def collect(self, is_lost: bool) -> None:
        reply = self.driver.ask("driver", Collect(self.driver.rid(), STREAM, self.ack, 0.0))
        assert isinstance(reply, Collected)
        if is_lost:
            return  # the connection broke before it came
        self.ack = reply.number
        for one in reply.ended:
            self.note_end(one)

    def note_end(self, one: Ended) -> None:
        n = self.packs.get(one.id, 0)
        assert one.n == 1 or n
        for call in [part_id(one.id, part) for part in range(one.first, one.first + one.n)] if n else [one.id]:
            self.calls[call].ended += 1
            assert self.calls[call].ended == 1, "C1: ended twice"

    @precondition(lambda self: self.driver.is_journaled)
    @rule(dice=st.integers(0, 3))
    def restart(self, dice: int) -> None:
        if dice:
            return
        self.driver.restart()
        self.driver.attach("driver", held=[])
        for child in CHILDREN:
            self.attach(child, [token for token, held in self.held.items() if held.child == child])

    # -- what always holds

    @invariant()
    def counts_agree(self) -> None:
        if not hasattr(self, "driver"):
            return
        stats = self.driver.stats(QUEUE)
        assert stats.put_total == len(self.calls), "C4"
        assert stats.leased == len(self.held)
        assert stats.done_total + stats.dead_total <= stats.put_total

    def teardown(self) -> None:
        if not hasattr(self, "driver"):
            return
        for child in CHILDREN:
            self.driver.send("driver", ReportDead(self.driver.rid(), child))
            self.lose(child)
        self.attach("ann", [])
        self.driver.send("ann", Offer([NEED]))
        for _ in range(1000):
            tokens = [delivery.token for delivery in self.driver_lease("ann", 10, 10)]
            if not tokens:
                break
            assert self.driver.settle("ann", *tokens, result=b"r") == []
        while True:
            reply = self.driver.ask("driver", Collect(self.driver.rid(), STREAM, self.ack, 0.0))
            if not reply.ended:
                break
            self.ack = reply.number
            for one in reply.ended:
                self.note_end(one)
        assert {call: known.ended for call, known in self.calls.items() if known.ended != 1} == {}, "C1: ends exactly once"
        stats = self.driver.stats(QUEUE)
        assert (stats.ready, stats.delayed, stats.leased, stats.parked) == (0, 0, 0, {})


TestCallsAgainstAnOracle = Machine.TestCase
TestCallsAgainstAnOracle.settings = settings(
    settings.get_profile("calls-nightly" if PROFILE == "nightly" else "calls"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
