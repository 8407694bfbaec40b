"""Where the client's promises are tried: an engine in this process, and the same behind a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from manyhands.auth import Keyring
from manyhands.client import Client
from manyhands.client.session import ClientSession
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.model import Limits, QueueStats
from manyhands.server import SocketServer

KEY = "a key for tests"
LIMITS = Limits(lease_s=5.0, resume_s=0.1, recall_answer_s=0.3, max_body_bytes=1_000_000)


class Place:
    """An engine and any number of clients at it."""

    def __init__(self, is_remote: bool) -> None:
        self.keyring = Keyring(KEY)
        self.engine = MemoryEngine(LIMITS)
        self.server = SocketServer(self.engine, port=0, keyring=self.keyring) if is_remote else None
        if self.server is not None:
            self.server.start()
        self._clients: list[Client] = []

    @property
    def url(self) -> str:
        assert self.server is not None
        return self.server.url

    def client(self) -> Client:
        engine: Engine = self.engine if self.server is None else RemoteEngine(self.url, self.keyring)
        client = Client(engine, self.keyring, owns_engine=self.server is not None)
        self._clients.append(client)
        return client

    def end(self) -> None:
        for client in self._clients:
            client.close()
        if self.server is not None:
            self.server.stop()
        self.engine.close()


@pytest.fixture(params=["memory", "remote"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    place = Place(request.param == "remote")
    yield place
    place.end()


@pytest.fixture
def remote_place() -> Iterator[Place]:
    place = Place(True)
    yield place
    place.end()


@pytest.fixture
def memory_place() -> Iterator[Place]:
    place = Place(False)
    yield place
    place.end()


@pytest.fixture
def client(place: Place) -> Client:
    return place.client()


@pytest.fixture
def other(place: Place) -> Client:
    """A second program at the same engine."""
    return place.client()


def session_of(client: Client) -> ClientSession:
    session = client.session
    assert session is not None
    return session


def numbers(client: Client, name: str = "q") -> QueueStats:
    """What the engine says of a queue; it is made if need be."""
    client.queue(name).qsize()
    return client.stats(name).queues[0]


def die(client: Client) -> None:
    """End the client as a kill -9 would: the connection is gone without a goodbye."""
    session_of(client).port.detach(goodbye=False)


def until(claim: Callable[[], bool], limit_s: float = 5.0) -> None:
    """Wait until the claim holds."""
    deadline = time.monotonic() + limit_s
    while not claim():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.005)
