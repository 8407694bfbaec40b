"""What the worker's tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import manyhands as mh
from worker.stage import KEY, ChildAtWork, Producer, Session

StartChild = Callable[..., ChildAtWork]


@pytest.fixture
def server() -> Iterator[Any]:
    with mh.serve("tcp://127.0.0.1:0", authkey=KEY) as server:
        yield server


@pytest.fixture
def producer(server: Any) -> Iterator[Producer]:
    producer = Producer(server.url)
    yield producer
    producer.close()


@pytest.fixture
def parent(server: Any) -> Iterator[Session]:
    session = Session(server.url, "parent")
    yield session
    session.close()


@pytest.fixture
def start_child(server: Any, parent: Session) -> Iterator[StartChild]:
    """Starts children of that parent; ends those that still run."""
    started: list[ChildAtWork] = []

    def start(url: str = "", **changes: Any) -> ChildAtWork:
        child = ChildAtWork(url or server.url, parent.id, **changes)
        started.append(child)
        return child

    yield start
    for child in started:
        child.close()
