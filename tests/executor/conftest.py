"""A call session at an engine in this process, and workers by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from executor.hand import PYTHON, Hand
from manyhands.auth import Keyring
from manyhands.calls import bodies
from manyhands.calls.functions import Functions
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.mapping import Mapping
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.state import Group
from manyhands.codec import Codec
from manyhands.engines.memory import MemoryEngine


class Stage:
    """An engine, a session there, and what a test asks of them."""

    def __init__(self) -> None:
        self.engine = MemoryEngine()
        self.codec = Codec([(key.id, key.body) for key in Keyring(b"a key of this test")])
        self.session = CallSession(self.engine, self.codec)
        self.functions: Functions[Group] = Functions(PYTHON, lambda head: Group("default()", head, PYTHON))
        self.hands: list[Hand] = []

    def hand(self, **options: Any) -> Hand:
        """One more worker."""
        hand = Hand(self.engine, self.codec, **options)
        self.hands.append(hand)
        return hand

    def submit(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> CallFuture[Any]:
        group, before = self.functions.get(function)
        return self.session.submit(group, bodies.argument(before + args, kwargs))

    def map(
        self,
        function: Callable[..., Any],
        calls: Any,
        *,
        chunksize: int | None = None,
        buffersize: int | None = None,
        timeout_s: float | None = None,
    ) -> Mapping:
        """Over one iterable."""
        group, before = self.functions.get(function)
        length = len(calls) if hasattr(calls, "__len__") else None
        return Mapping(
            self.session,
            group,
            before,
            calls,
            is_single=True,
            length=length,
            chunksize=chunksize,
            buffersize=buffersize,
            timeout_s=timeout_s,
            on_feed=lambda: None,
        )

    def close(self) -> None:
        for hand in self.hands:
            hand.stop()
        self.session.close()
        self.engine.close()


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.close()
