"""Two engines, hands at each, and a move between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from manyhands.auth import Keyring
from manyhands.client import Client
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.sqlite import SqliteEngine
from manyhands.model import Limits
from manyhands.moving import Mover, Progress
from manyhands.testing.contract import Peer

KEYS = Keyring("the source's key")
OTHER_KEYS = Keyring("another key")
LIMITS = Limits(lease_s=5.0, resume_s=0.1, max_body_bytes=100_000)
PATIENCE_S = 20.0


class Running:
    """A move in a thread of its own."""

    def __init__(self, mover: Mover) -> None:
        self.mover = mover
        self.seen = Progress()
        self.error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._see(self.mover.run(self._see))
        except BaseException as error:
            self.error = error

    def _see(self, progress: Progress) -> None:
        with self._changed:
            self.seen = progress
            self._changed.notify_all()

    def until(self, claim: Any) -> None:
        """Wait until what it says fits."""
        with self._changed:
            assert self._changed.wait_for(lambda: claim(self.seen), PATIENCE_S), self.seen

    def end(self) -> Progress:
        """Its last word; it must end by itself."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), self.seen
        if self.error is not None:
            raise self.error
        return self.seen

    def stop(self) -> Progress:
        self.mover.stop()
        return self.end()


class Stand:
    """The engines and everything at them."""

    def __init__(self, folder: Path) -> None:
        self.source: Engine = SqliteEngine(folder / "source.db", limits=LIMITS)
        self.target: Engine = MemoryEngine(LIMITS)
        self._clients: list[Client] = []
        self._moves: list[Running] = []

    def at_source(self) -> Peer:
        return Peer(self.source)

    def at_target(self) -> Peer:
        return Peer(self.target)

    def client(self, engine: Engine, keys: Keyring = KEYS) -> Client:
        client = Client(engine, keys)
        self._clients.append(client)
        return client

    def start(self, *queues: str, **options: Any) -> Running:
        """A move from source to target."""
        ends = {"source": self.source, "target": self.target, "source_keys": KEYS, "target_keys": KEYS, **options}
        running = Running(Mover(**ends, place="redis://elsewhere", queues=queues))
        self._moves.append(running)
        return running

    def move(self, *queues: str, **options: Any) -> Progress:
        """A whole move, to its end."""
        return self.start(*queues, **options).end()

    def close(self) -> None:
        for running in self._moves:
            running.mover.stop()
            running._thread.join(PATIENCE_S)
        for client in self._clients:
            client.close()
        self.source.close()
        self.target.close()


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    stand = Stand(tmp_path)
    yield stand
    stand.close()
