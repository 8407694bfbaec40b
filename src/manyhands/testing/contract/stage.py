"""What every contract test stands on: an engine from the caller's factory, peers at it, and a clean end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import pytest

from manyhands import events
from manyhands.engines.base import Engine
from manyhands.model import Limits
from manyhands.testing.contract.peer import Peer

CALM = Limits(lease_s=60.0, heartbeat_s=3600.0, resume_s=60.0, dedupe_s=60.0, recall_answer_s=10.0)
"""Nothing happens by itself: no lease ends, no lost session is given up, no client speaks unasked. A test that is about
one of these times makes that one small."""


class EngineFactory(Protocol):
    """How the suite gets the engine under test."""

    def open(self, limits: Limits) -> Engine:
        """A new engine with an empty store and these limits. Called once in each test."""
        ...

    def restart(self) -> Engine:
        """End the engine and everything behind it as a crash or an orderly stop would, and open the same store again.

        Called only when `features.survives_restart` is true.
        """
        ...

    def close(self) -> None:
        """Release everything; also called when open was not."""
        ...


class Stage:
    """One test's engine and peers. The engine opens with the first peer."""

    def __init__(self, factory: EngineFactory, needs: Sequence[str]) -> None:
        self._factory = factory
        self._needs = needs
        self._limits = CALM
        self._engine: Engine | None = None
        self._peers: list[Peer] = []

    def limit(self, **limits: float) -> None:
        """Replace some of CALM, before the engine is first used."""
        assert self._engine is None, "the engine is open already"
        self._limits = msgspec.structs.replace(self._limits, **limits)

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            engine = self._engine = self._factory.open(self._limits)
            for feature in self._needs:
                if not getattr(engine.features, feature):
                    pytest.skip(f"not offered by this engine: {feature}")
        return self._engine

    def peer(self, name: str = "", *, parent: Peer | None = None) -> Peer:
        """A new session; parent looks after it."""
        peer = Peer(self.engine, name=name, parent=parent.session if parent is not None else "")
        self._peers.append(peer)
        return peer

    def resume(self, peer: Peer, *held: int) -> events.Attached:
        """Bring a peer back under its session id, holding these tokens."""
        return peer.resume(self.engine, held)

    def restart(self) -> None:
        """The engine goes and comes back; peers lose their connections and must be resumed."""
        for peer in self._peers:
            peer.cut()
        self._engine = self._factory.restart()

    def close(self) -> None:
        for peer in self._peers:
            peer.cut()
        if self._engine is not None:
            self._engine.close()
        self._factory.close()


F = TypeVar("F", bound=Callable[..., None])


def needs(*features: str) -> Callable[[F], F]:
    """The test holds only for engines that declare these `Features`; others skip it and say so."""

    def mark(test: F) -> F:
        test.needs = features  # type: ignore[attr-defined]
        return test

    return mark


class ContractBase:
    """What the parts of the suite share. A caller subclasses `EngineContract`, not this."""

    def make_factory(self, tmp_path: Path) -> EngineFactory:
        """The caller's part: how to open the engine; tmp_path is an empty folder for this one test."""
        raise NotImplementedError

    @pytest.fixture
    def stage(self, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Stage]:
        stage = Stage(self.make_factory(tmp_path), getattr(request.function, "needs", ()))
        try:
            yield stage
        finally:
            stage.close()
