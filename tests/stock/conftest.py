"""Our master, and the standard library's own clients in this process."""

from __future__ import annotations

import gc
import queue
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Client, Connection
from multiprocessing.managers import BaseManager as StockManager
from multiprocessing.managers import convert_to_error, dispatch  # type: ignore[attr-defined]
from typing import Any

import pytest

from manyhands.managers import BaseManager

KEY = b"abc"
WAIT_S = 20.0


class Office:
    """A serving master of ours with three queues: "task", "result" and (of at most two items) "small"."""

    def __init__(self, stack: ExitStack, **more: Any) -> None:
        self._stack = stack
        self.task: queue.Queue[Any] = queue.Queue()
        self.result: queue.Queue[Any] = queue.Queue()
        self.small: queue.Queue[Any] = queue.Queue(2)

        class Master(BaseManager):
            pass

        Master.register("task", callable=lambda: self.task)
        Master.register("result", callable=lambda: self.result)
        Master.register("small", callable=lambda: self.small)
        Master.register("own", callable=lambda *args: queue.Queue())
        Master.register("broken", callable=lambda: 1 / 0)
        self.kind = Master
        self.manager = Master(("127.0.0.1", 0), authkey=KEY, **more)
        self.manager.start()
        self.address = self.manager.address

    def stock(self, serializer: str = "pickle", authkey: bytes = KEY) -> Any:
        """A connected manager of the standard library."""

        class Worker(StockManager):
            pass

        for name in (*self.kind._registry, "missing"):
            Worker.register(name)
        self._stack.callback(gc.collect)  # proxies that a failed assertion still refers to would hold the master's end up
        worker = Worker(self.address, authkey=authkey, serializer=serializer)
        worker.connect()
        return worker

    def thread(self) -> Peer:
        """One thread of a standard-library program, by its bare connection."""
        peer = Peer(self.address)
        self._stack.callback(peer.connection.close)
        return peer

    def control(self, method: str, *args: Any) -> Any:
        """One request of the manager, as the standard library sends it."""
        with Client(self.address, authkey=KEY) as connection:
            return dispatch(connection, None, method, args)

    def status(self, name: str = "task") -> Any:
        """The engine's numbers of a queue."""
        return self.manager._master._client.queue(name)._stats()  # type: ignore[union-attr]


class Peer:
    """A connection after accept_connection."""

    def __init__(self, address: Any) -> None:
        self.connection: Connection = Client(address, authkey=KEY)
        dispatch(self.connection, None, "accept_connection", ("MainProcess",))

    def call(self, method: str, *args: Any, name: str = "task", **kwds: Any) -> Any:
        return self.ask("q:" + name, method, *args, **kwds)

    def ask(self, ident: str, method: str, *args: Any, **kwds: Any) -> Any:
        """A call of any object; unlike the standard library's own, it does not wait for ever."""
        self.connection.send((ident, method, args, kwds))
        kind, value = self.answer()
        if kind != "#RETURN":
            raise convert_to_error(kind, value)
        return value

    def begin(self, method: str, *args: Any, name: str = "task") -> None:
        """Send a call and leave its answer where it is."""
        self.connection.send(("q:" + name, method, args, {}))

    def answer(self) -> Any:
        assert self.connection.poll(WAIT_S)
        return self.connection.recv()

    def is_killed(self) -> None:
        """The connection ends, and nothing was let go before."""
        self.connection.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def office(stack: ExitStack) -> Office:
    office = Office(stack)
    stack.callback(office.manager.shutdown)
    office.manager.task()  # type: ignore[attr-defined]
    office.manager.result()  # type: ignore[attr-defined]
    office.manager.small()  # type: ignore[attr-defined]
    return office
