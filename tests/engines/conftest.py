"""A real valkey-server that the tests of one module share, each with a space of its own."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator

import pytest

from manyhands.engines.base import Engine
from manyhands.model import Limits
from manyhands.testing.contract.peer import Peer
from redis_server import RedisServer


class Place:
    """One test's space at the server, and programs at it."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.url = f"{server.url}?space={secrets.token_hex(8)}"
        self._engines: list[Engine] = []

    def engine(self, limits: Limits | None = None) -> Engine:
        """One more program's engine."""
        from manyhands.engines.redis import RedisEngine  # here, because its driver is an extra

        engine = RedisEngine(self.url, limits=limits)
        self._engines.append(engine)
        return engine

    def peer(self, limits: Limits | None = None, *, name: str = "") -> Peer:
        """A session in a program of its own."""
        return Peer(self.engine(limits), name=name)

    def close(self) -> None:
        for engine in self._engines:
            engine.close()


Serve = Callable[..., RedisServer]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def place(server: RedisServer) -> Iterator[Place]:
    place = Place(server)
    yield place
    place.close()


@pytest.fixture
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Starts servers of the test's own, with settings of their own."""
    servers: list[RedisServer] = []

    def serve(*settings: str, fsync: str = "always") -> RedisServer:
        servers.append(RedisServer(tmp_path_factory.mktemp("valkey"), fsync=fsync, settings=settings))
        servers[-1].start()
        return servers[-1]

    yield serve
    for each in servers:
        each.stop()
