"""A master and its workers in one process, over a real socket."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from manyhands.managers import BaseManager

Pair = Callable[..., tuple[BaseManager, BaseManager]]


@pytest.fixture
def pair() -> Iterator[Pair]:
    """pair(name=callable, …) -> (serving master, connected worker); both are shut down after the test."""
    managers: list[BaseManager] = []

    def make(*, store: str = "memory://", **callables: Callable[..., Any]) -> tuple[BaseManager, BaseManager]:
        class Master(BaseManager):
            pass

        class Worker(BaseManager):
            pass

        for name, callable_ in callables.items():
            Master.register(name, callable=callable_)
            Worker.register(name)
        master = Master(address=("127.0.0.1", 0), authkey="abc", store=store)
        master.start()
        managers.append(master)
        worker = Worker(address=master.address, authkey=b"abc")
        worker.connect()
        managers.insert(0, worker)
        return master, worker

    yield make
    for manager in managers:
        manager.shutdown()
