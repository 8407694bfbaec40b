"""The standard library's own SyncManager as a client of ours: everything that it offers, proxies in proxies included."""

from __future__ import annotations

import gc
import multiprocessing
import pickle
from collections.abc import Iterator
from multiprocessing import process
from multiprocessing.managers import DictProxy, ListProxy
from multiprocessing.managers import SyncManager as StockManager
from typing import Any

import pytest

from manyhands.managers import SyncManager

from .conftest import KEY


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    # A proxy that arrives inside something is rebuilt with the process's own key, as the standard library says.
    monkeypatch.setattr(multiprocessing.current_process(), "authkey", process.AuthenticationString(KEY))  # type: ignore[attr-defined]
    ours = SyncManager(("127.0.0.1", 0), authkey=KEY)
    ours.start()
    theirs = StockManager(ours.address, authkey=KEY)
    theirs.connect()
    yield theirs
    gc.collect()
    ours.shutdown()


def test_containers(stock: Any) -> None:
    d, listed, array = stock.dict(a=1), stock.list([1, 2]), stock.Array("i", [1, 2])
    d["b"] = 2
    listed.append(3)
    listed += [4]
    array[0] = 7
    assert (dict(d), sorted(d), "a" in d, list(d.items())) == ({"a": 1, "b": 2}, ["a", "b"], True, [("a", 1), ("b", 2)])
    assert (listed[:], list(listed), len(listed), listed[1:3]) == ([1, 2, 3, 4], [1, 2, 3, 4], 4, [2, 3])
    assert (array[0], len(array), list(array[:])) == (7, 2, [7, 2])
    with pytest.raises(KeyError, match="missing"):
        d["missing"]
    assert "'a': 1" in str(d)


def test_values_and_namespaces(stock: Any) -> None:
    space, value = stock.Namespace(x=1), stock.Value("i", 3)
    space.y = [2]
    value.value += 1
    assert (space.x, space.y, value.value, str(space)) == (1, [2], 4, "Namespace(x=1, y=[2])")
    with pytest.raises(AttributeError):
        _ = space.z


def test_synchronisation(stock: Any) -> None:
    lock, owned, event, condition = stock.Lock(), stock.RLock(), stock.Event(), stock.Condition()
    with lock:
        assert not lock.acquire(False)
    with owned, owned:
        pass
    assert not event.wait(0.01)
    event.set()
    assert event.wait()
    with condition:
        assert not condition.wait(0.01)
        condition.notify_all()
    semaphore, barrier = stock.BoundedSemaphore(1), stock.Barrier(1)
    semaphore.acquire()
    semaphore.release()
    with pytest.raises(ValueError, match="released too many times"):
        semaphore.release()
    assert (barrier.wait(), barrier.parties) == (0, 1)


def test_queues_and_a_pool(stock: Any) -> None:
    queue, joinable, pool = stock.Queue(), stock.JoinableQueue(), stock.Pool(1)
    queue.put(1)
    assert (queue.get(), queue.empty()) == (1, True)
    joinable.put(1)
    joinable.get()
    joinable.task_done()
    joinable.join()
    assert (pool.map(abs, [-1, -2]), pool.apply(abs, (-3,)), list(pool.imap(abs, [-4]))) == ([1, 2], 3, [4])
    assert pool.apply_async(abs, (-5,)).get(20) == 5
    pool.terminate()


def test_a_proxy_may_be_kept_in_another_and_comes_back_as_a_proxy(stock: Any) -> None:
    outer, inner, queue = stock.dict(), stock.list([1]), stock.Queue()
    outer["list"] = inner
    outer["more"] = stock.list([stock.dict(x=1)])
    outer["queue"] = queue
    del inner
    gc.collect()
    back = outer["list"]
    assert isinstance(back, ListProxy)
    back.append(2)
    del back
    gc.collect()
    assert outer["list"][:] == [1, 2]
    last = outer.pop("list")  # the master's own proxy of it goes with the answer
    assert last[:] == [1, 2]
    assert isinstance(outer["more"][0], DictProxy)
    assert outer["more"][0]["x"] == 1
    outer["queue"].put("through the dict")
    assert queue.get(timeout=5) == "through the dict"


def test_a_pickled_proxy_finds_its_object_again(stock: Any) -> None:
    d = stock.dict(a=1)
    assert pickle.loads(pickle.dumps(d))["a"] == 1
