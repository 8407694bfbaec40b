"""The set-ups: memory, sqlite and Redis, and each of them behind a socket."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from manyhands.auth import Keyring
from manyhands.engines.base import Engine, Port, Sink
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.opening import open_engine
from manyhands.engines.remote import RemoteEngine
from manyhands.engines.sqlite import SqliteEngine
from manyhands.events import Attach
from manyhands.model import Limits
from manyhands.server import SocketServer
from nats_server import NatsCluster, NatsServer
from redis_server import RedisCluster, RedisServer

Stores = RedisServer | RedisCluster | NatsServer | NatsCluster


class Embedded(Protocol):
    def open(self, limits: Limits) -> Engine: ...

    def restart(self) -> Engine: ...

    def close(self) -> None: ...


class MemoryFactory:
    """A new engine has a new store."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    def open(self, limits: Limits) -> Engine:
        self._engine = MemoryEngine(limits=limits)
        return self._engine

    def restart(self) -> Engine:
        raise NotImplementedError("memory does not survive a restart")

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


class SqliteFactory:
    """A restart opens the same file again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "store.db"
        self._limits = Limits()
        self._engine: Engine | None = None

    def open(self, limits: Limits) -> Engine:
        self._limits = limits
        self._engine = SqliteEngine(self._path, limits=limits)
        return self._engine

    def restart(self) -> Engine:
        self.close()
        return self.open(self._limits)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


class SpaceFactory:
    """A space of its own at a store that many tests share; a restart ends its servers and starts them over the same files.

    Args:
        clients: how many programs take turns at attaching the sessions, so that each hears through the store what the
            others do.
    """

    def __init__(self, server: Stores, *, clients: int = 1) -> None:
        self._server = server
        self._space = secrets.token_hex(8)
        self._clients = clients
        self._limits = Limits()
        self._engine: Engine | None = None

    def open(self, limits: Limits) -> Engine:
        self._limits = limits
        engines = [open_engine(f"{self._server.url}?space={self._space}", limits=limits) for _ in range(self._clients)]
        self._engine = Programs(engines) if self._clients > 1 else engines[0]
        return self._engine

    def restart(self) -> Engine:
        self.close()
        self._server.stop()
        self._server.start()
        return self.open(self._limits)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()


class Programs:
    """Several programs' engines over one store, seen as one: each attach goes to the next of them."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self._engines = engines
        self._turns = itertools.cycle(engines)
        self.name = engines[0].name
        self.durability = engines[0].durability
        self.features = engines[0].features
        self.limits = engines[0].limits

    def attach(self, attach: Attach, sink: Sink) -> Port:
        return next(self._turns).attach(attach, sink)

    def close(self, *, closing_reason: str = "") -> None:
        for engine in self._engines:
            engine.close(closing_reason=closing_reason)


class RemoteFactory:
    """A server over another set-up, and the client's end of it. A restart ends both and listens on a new port."""

    def __init__(self, behind: Embedded) -> None:
        self._behind = behind
        self._keyring = Keyring("contract")
        self._server: SocketServer | None = None
        self._engine: RemoteEngine | None = None

    def open(self, limits: Limits) -> Engine:
        return self._serve(self._behind.open(limits))

    def restart(self) -> Engine:
        self._stop()
        return self._serve(self._behind.restart())

    def close(self) -> None:
        self._stop()
        self._behind.close()

    def _serve(self, engine: Engine) -> Engine:
        self._server = SocketServer(engine, port=0, keyring=self._keyring)
        self._server.start()
        self._engine = RemoteEngine(self._server.url, self._keyring)
        return self._engine

    def _stop(self) -> None:
        if self._engine is not None:
            self._engine.close()
        if self._server is not None:
            self._server.stop()
