"""A memory engine behind a socket, and clients at it; everything is closed at the end of each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from manyhands.auth import Keyring
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.model import Limits
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import Peer

KEYRING = Keyring("the key of these tests")


class Place:
    """One test's engine, server and clients."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.limits = Limits(resume_s=30.0)
        self.keyring = KEYRING

    def engine(self) -> MemoryEngine:
        engine = MemoryEngine(limits=self.limits)
        self._stack.callback(engine.close)
        return engine

    def serve(self, engine: Engine | None = None, port: int = 0) -> SocketServer:
        server = SocketServer(engine or self.engine(), port=port, keyring=KEYRING)
        self._stack.callback(server.stop)
        server.start()
        return server

    def remote(self, url: str, *, connect_timeout_s: float = 10.0) -> RemoteEngine:
        remote = RemoteEngine(url, KEYRING, connect_timeout_s=connect_timeout_s)
        self._stack.callback(remote.close)
        return remote

    def peer(self, url: str) -> Peer:
        return Peer(self.remote(url))


@pytest.fixture
def place() -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(stack)


@pytest.fixture
def server(place: Place) -> SocketServer:
    return place.serve()


@pytest.fixture
def peer(place: Place, server: SocketServer) -> Peer:
    return place.peer(server.url)


@pytest.fixture
def make_peer(place: Place, server: SocketServer) -> Callable[[], Peer]:
    """More clients of the same server, each with a session and a connection of its own."""
    return lambda: place.peer(server.url)
