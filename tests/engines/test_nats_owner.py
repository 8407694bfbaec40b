"""What a NATS space's owner tells to whom, when much happens in one step: a stream that has no leader lets it gather."""

from __future__ import annotations

import asyncio
from typing import Any

from manyhands import events, model
from manyhands.clock import SystemClock
from manyhands.engines.nats.image import Image
from manyhands.engines.nats.owner import Owner
from manyhands.lifecycle import Core
from manyhands.testing.contract.peer import message


class TakesAll:
    """A log that takes every entry."""

    def __init__(self) -> None:
        self._last = 0

    async def append(self, writer: str, data: bytes) -> tuple[int, int]:
        self._last += 1
        return self._last, self._last


class Guest:
    """A program that notes what one session of its own is told."""

    def __init__(self) -> None:
        self.sessions: dict[int, str] = {}
        self.heard: list[Any] = []

    def tell(self, said: Any) -> None:
        for _, replies in said:
            self.heard += replies

    def grants(self) -> list[events.Granted]:
        return [reply for reply in self.heard if isinstance(reply, events.Granted)]


def test_a_session_that_comes_back_in_the_step_that_granted_it_something_is_told_of_one_lease_only() -> None:
    async def run() -> tuple[list[events.Granted], list[Any]]:
        clock = SystemClock()
        core = Core(limits=model.Limits(), epoch=1, is_journaled=True, now=clock.now())
        about = events.Attached("nats", model.Durability("process", "for this test"), model.Features(), model.Limits())
        owner = Owner(TakesAll(), Image(), core, "me", 1, about, clock)  # type: ignore[arg-type]
        running = asyncio.create_task(owner.run())
        producer, before, after = Guest(), Guest(), Guest()
        lease = events.Lease(1, "q")
        owner.give(producer, [(1, [events.Attach("producer")])])
        owner.give(before, [(1, [events.Attach("worker"), lease])])
        while not before.heard:
            await asyncio.sleep(0)
        # Without an await between: all of it is one step of the owner.
        owner.give(producer, [(1, [events.Put(1, "q", 1, 1, [message(b"work")])])])
        owner.drop(before)
        owner.give(after, [(1, [events.Attach("worker", held=[]), lease])])
        while not after.grants():
            await asyncio.sleep(0)
        token = after.grants()[0].deliveries[0].token
        owner.give(after, [(1, [events.Settle(2, 1, 0, [model.Settlement(token)])])])
        owner.finish()
        await running
        return after.grants(), [reply.lost for reply in after.heard if isinstance(reply, events.Settled)]

    grants, lost = asyncio.run(asyncio.wait_for(run(), 10.0))
    assert len(grants) == 1, "one question had two answers, and nobody knows of the second one's lease"
    assert lost == [[]], "what it was told it holds had been taken back"
