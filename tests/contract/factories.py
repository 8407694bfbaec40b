"""The four set-ups: memory, sqlite, and each of them behind a socket."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from manyhands.auth import Keyring
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.engines.sqlite import SqliteEngine
from manyhands.model import Limits
from manyhands.server import SocketServer


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
