"""A core with its clock in the test's hand: requests in, replies out, time moved only by `advance`."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from manyhands.events import Attach, Failed, Granted, Lease, Put, QueueInfo, Reply, Request, Settle, Settled, Size
from manyhands.lifecycle import Core
from manyhands.lifecycle.replay import Replay
from manyhands.model import Delivery, Limits, Message, QueueStats, Settlement
from manyhands.testing.clock import ManualClock


class Driver:
    def __init__(self, *, limits: Limits | None = None, is_journaled: bool = False) -> None:
        self.limits = limits or Limits()
        self.clock = ManualClock()
        self.is_journaled = is_journaled
        self.store = Replay()
        self.epoch = 1
        self.core = Core(limits=self.limits, epoch=1, is_journaled=is_journaled, now=self.clock.now())
        self.inbox: dict[str, list[Reply]] = defaultdict(list)
        self._rids = itertools.count(1)
        self._seqs: dict[tuple[str, str], int] = defaultdict(int)
        self._ids = itertools.count(1)

    # -- events

    def attach(self, session: str, *, held: list[int] | None = None) -> tuple[bool, list[int]]:
        answer = self.core.attach(Attach(session, f"{session}@host", held), self.clock.now())
        self.collect()
        return answer

    def detach(self, session: str, *, is_dead: bool = False) -> None:
        self.core.detach(session, self.clock.now(), is_dead=is_dead)
        self.collect()

    def send(self, session: str, *requests: Request) -> None:
        self.core.apply(session, requests, self.clock.now())
        self.collect()

    def collect(self) -> None:
        step = self.core.take()
        self.store.apply(step.changes)
        for receiver, reply in step.effects:
            self.inbox[receiver].append(reply)

    def advance(self, seconds: float) -> None:
        """Let time pass, with a tick whenever one is due."""
        end = self.clock.mono + seconds
        for _ in range(10_000):
            due = self.core.next_due()
            if due is None or due > end:
                break
            self.clock.advance(max(0.0, due - self.clock.mono))
            self.tick()
        else:
            raise AssertionError("the core asks to be woken without an end")
        self.clock.advance(end - self.clock.mono)

    def tick(self) -> None:
        self.core.tick(self.clock.now())
        self.collect()

    def restart(self) -> None:
        """The process died after its last commit; a new one opens the store."""
        assert self.is_journaled
        self.epoch += 1
        snapshot = self.store.snapshot()
        self.core = Core(limits=self.limits, epoch=self.epoch, is_journaled=True, snapshot=snapshot, now=self.clock.now())
        self.inbox.clear()
        self.collect()

    # -- shorthand

    def rid(self) -> int:
        return next(self._rids)

    def seq(self, session: str, stream: str) -> int:
        self._seqs[session, stream] += 1
        return self._seqs[session, stream]

    def take(self, session: str) -> list[Reply]:
        """What this session was sent since the last take."""
        return self.inbox.pop(session, [])

    def ask(self, session: str, request: Any) -> Any:
        """Send one request; its reply, or None while it is parked."""
        self.send(session, request)
        return self.reply(session, request.rid)

    def reply(self, session: str, rid: int) -> Any:
        """The reply to a request, taken out of the inbox."""
        for reply in self.inbox[session]:
            if getattr(reply, "rid", 0) == rid:
                self.inbox[session].remove(reply)
                return reply
        return None

    def message(self, body: bytes = b"x", **headers: Any) -> Message:
        return Message(headers.pop("id", None) or f"m{next(self._ids)}", body, **headers)

    def put(self, session: str, queue: str, *messages: Message, wait_s: float = 0.0, cause: int = 0) -> Any:
        seq = self.seq(session, queue)
        return self.ask(
            session, Put(self.rid(), queue, seq, seq, list(messages), wait_s, (cause,) * len(messages) if cause else ())
        )

    def fill(self, session: str, queue: str, n: int) -> list[Message]:
        messages = [self.message() for _ in range(n)]
        self.put(session, queue, *messages)
        return messages

    def lease(
        self, session: str, queue: str, max_n: int = 1, begin_n: int | None = None, wait_s: float = 0.0
    ) -> list[Delivery]:
        """Deliveries; the request must be answered at once."""
        reply = self.ask(session, Lease(self.rid(), queue, max_n, max_n if begin_n is None else begin_n, wait_s))
        assert isinstance(reply, Granted), reply
        return reply.deliveries

    def one(self, session: str, queue: str) -> Delivery:
        (delivery,) = self.lease(session, queue)
        return delivery

    def wait_lease(self, session: str, queue: str, max_n: int = 1, wait_s: float = -1.0, begin_n: int = 1) -> int:
        """Send a Lease that is expected to wait; its rid."""
        rid = self.rid()
        self.send(session, Lease(rid, queue, max_n, begin_n, wait_s))
        return rid

    def settle(self, session: str, *tokens: int, seq: int | None = None, **how: Any) -> list[int]:
        """Settle all in one way; the lost ones."""
        seq = self.seq(session, "") if seq is None else seq
        reply = self.ask(session, Settle(self.rid(), seq, seq, [Settlement(token, **how) for token in tokens]))
        assert isinstance(reply, Settled), reply
        return reply.lost

    def stats(self, queue: str, session: str | None = None) -> QueueStats:
        session = session or "observer"
        self.core.attach(Attach(session), self.clock.now())
        reply = self.ask(session, Size(self.rid(), queue))
        assert isinstance(reply, QueueInfo)
        return reply.stats


def code_of(reply: Any) -> str:
    """The code of a refusal; fails when it is none."""
    assert isinstance(reply, Failed), reply
    assert reply.text
    return reply.code


def ids(deliveries: Sequence[Delivery]) -> list[str]:
    return [delivery.message.id for delivery in deliveries]
