"""What is no queue, through the standard library's own proxies: dicts, locks, ordered queues, objects that give objects."""

from __future__ import annotations

import gc
import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Client
from multiprocessing.managers import AcquirerProxy, DictProxy, RemoteError, dispatch
from multiprocessing.managers import BaseManager as StockManager
from typing import Any

import pytest

from manyhands.managers import BaseManager

from .conftest import KEY, WAIT_S, Peer


class Shelf:
    """A class of the master's program."""

    def __init__(self) -> None:
        self.books = ["one", "two"]

    def count(self) -> int:
        return len(self.books)

    def burn(self) -> None:
        raise LookupError("no matches")

    def leave(self) -> None:
        raise SystemExit(3)

    def unsendable(self) -> Any:
        return lambda: None

    def echo(self, *args: Any, **kwds: Any) -> Any:
        return args, kwds


class Hall:
    """A serving master of ours with objects."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.settings = {"a": 1}
        self.lock, self.owned, self.event = threading.Lock(), threading.RLock(), threading.Event()
        self.ordered: queue.PriorityQueue[Any] = queue.PriorityQueue()
        shelf = Shelf()

        class Master(BaseManager):
            pass

        Master.register("settings", callable=lambda: self.settings, exposed=DictProxy._exposed_)
        Master.register("lock", callable=lambda: self.lock)
        Master.register("owned", callable=lambda: self.owned)
        Master.register("event", callable=lambda: self.event)
        Master.register("ordered", callable=lambda: self.ordered)
        Master.register("shelf", callable=lambda: shelf)
        Master.register("new_shelf", callable=Shelf)
        self.manager = Master(("127.0.0.1", 0), authkey=KEY)
        self.manager.start()
        self.stock = self.connected()

    def connected(self) -> Any:
        class Worker(StockManager):
            pass

        Worker.register("settings", proxytype=DictProxy)
        for name in ("lock", "owned"):
            Worker.register(name, proxytype=AcquirerProxy)
        for name in ("event", "ordered", "shelf", "new_shelf"):
            Worker.register(name)
        worker = Worker(self.manager.address, authkey=KEY)
        worker.connect()
        return worker

    def thread(self) -> Peer:
        """One thread of a standard-library program."""
        peer = Peer(self.manager.address)
        self._stack.callback(peer.connection.close)
        return peer

    def ident(self, typeid: str) -> str:
        with Client(self.manager.address, authkey=KEY) as connection:
            return str(dispatch(connection, None, "create", (typeid,))[0])


@pytest.fixture
def hall() -> Any:
    with ExitStack() as stack:
        hall = Hall(stack)
        stack.callback(hall.manager.shutdown)
        stack.callback(gc.collect)  # proxies that an expected error still refers to would hold the master's end up
        yield hall


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


def test_a_shared_dict_is_one_dict_for_all(hall: Hall) -> None:
    one, other = hall.stock.settings(), hall.connected().settings()
    one["b"] = [1, {"c": 2}]
    other.update(a=5)
    assert dict(other.items()) == {"a": 5, "b": [1, {"c": 2}]}
    assert (len(one), "b" in one, one.copy() == hall.settings) == (2, True, True)
    assert str(one) == str(hall.settings)
    with pytest.raises(KeyError, match="missing"):
        one["missing"]


def test_an_objects_methods_raise_and_return_as_they_do(hall: Hall) -> None:
    shelf = hall.stock.shelf()
    assert shelf.count() == 2
    assert shelf.echo(1, [2], three={"x": (4,)}) == ((1, [2]), {"three": {"x": (4,)}})
    with pytest.raises(LookupError, match="no matches"):
        shelf.burn()
    with pytest.raises(RemoteError, match="SystemExit: 3"):
        shelf.leave()
    with pytest.raises(RemoteError, match="Unserializable"):
        shelf.unsendable()
    assert shelf.count() == 2


def test_an_object_lives_as_long_as_a_peer_has_its_proxy(hall: Hall) -> None:
    shelf = hall.stock.new_shelf()
    ident = shelf._id
    assert shelf.count() == 2
    call = hall.thread()
    assert call.ask(ident, "count") == 2
    del shelf
    until(lambda: hall.manager._master.objects.number_of_objects() == 0, "it goes with its last proxy")  # type: ignore[union-attr]
    with pytest.raises(RemoteError, match="last proxy of it is gone"):
        call.ask(ident, "count")


def test_a_lock_held_by_a_killed_peer_is_released(hall: Hall) -> None:
    for name in ("lock", "owned"):
        ident, holder, other = hall.ident(name), hall.thread(), hall.thread()
        assert holder.ask(ident, "acquire")
        assert not other.ask(ident, "acquire", True, 0.05)
        holder.is_killed()
        assert other.ask(ident, "acquire", True, WAIT_S)
        other.ask(ident, "release")


def test_a_wait_is_no_obstacle_to_others_and_an_interrupted_one_does_not_answer_the_next_call(hall: Hall) -> None:
    ident, shelf, waiting, other = hall.ident("event"), hall.ident("shelf"), hall.thread(), hall.thread()
    waiting.connection.send((ident, "wait", (), {}))
    assert other.ask(ident, "is_set") is False
    assert waiting.ask(shelf, "count") == 2  # Ctrl-C in wait, and then another call
    other.ask(ident, "set")
    assert waiting.ask(ident, "is_set") is True


def test_a_queue_with_an_order_of_its_own_keeps_it_and_a_killed_peer_loses_nothing(hall: Hall) -> None:
    ordered = hall.stock.ordered()
    for item in (3, 1, 2):
        ordered.put(item)
    ident, victim = hall.ident("ordered"), hall.thread()
    assert victim.ask(ident, "get") == 1
    victim.is_killed()
    until(lambda: hall.ordered.qsize() == 3, "it comes back")
    assert [ordered.get(timeout=WAIT_S) for _ in range(3)] == [1, 2, 3]
    with pytest.raises(queue.Empty):
        ordered.get_nowait()


def test_at_the_masters_end_a_wait_in_a_queue_that_is_an_object_finds_nothing(hall: Hall) -> None:
    ident, waiting = hall.ident("ordered"), hall.thread()
    waiting.connection.send((ident, "get", (), {}))
    until(lambda: hall.manager._master._callers.n_threads == 1, "it waits")  # type: ignore[union-attr]
    stopping = threading.Thread(target=hall.manager.shutdown)
    stopping.start()
    kind, error = waiting.answer()
    assert (kind, type(error)) == ("#ERROR", queue.Empty)
    waiting.connection.close()
    stopping.join(WAIT_S)
    assert not stopping.is_alive()


def test_threads_are_only_used_by_calls_that_run(hall: Hall) -> None:
    ident = hall.ident("shelf")
    calls = [hall.thread() for _ in range(40)]
    assert [call.ask(ident, "count") for call in calls] == [2] * 40
    assert hall.manager._master._callers.n_threads <= 3  # type: ignore[union-attr]
