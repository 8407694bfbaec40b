"""Which queue a proxy leads to is decided by the identity of the object that the callable returns."""

from __future__ import annotations

import gc
import queue
import threading
from pathlib import Path
from typing import Any

import pytest

from manyhands.errors import ShutDown, TaskFailed, UnsupportedFeature
from manyhands.managers import BaseManager
from manyhands.testing.contract.peer import eventually

from .conftest import Pair


def test_master_worker_and_the_original_object_are_one_queue(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue()
    master, worker = pair(get_queue=lambda: original)
    in_master, in_worker = master.get_queue(), worker.get_queue()
    in_master.put(1)
    original.put(2)
    in_worker.put(3)
    assert [in_worker.get(timeout=5), original.get(timeout=5), in_master.get(timeout=5)] == [1, 2, 3]


def test_two_typeids_that_return_one_object_are_one_queue(pair: Pair) -> None:
    original: queue.Queue[str] = queue.Queue()
    _, worker = pair(get_jobs=lambda: original, get_tasks=lambda: original)
    worker.get_jobs().put("a")
    assert worker.get_tasks().get(timeout=5) == "a"


def test_two_objects_are_two_queues(pair: Pair) -> None:
    tasks: queue.Queue[int] = queue.Queue()
    results: queue.Queue[int] = queue.Queue()
    _, worker = pair(get_tasks=lambda: tasks, get_results=lambda: results)
    worker.get_tasks().put(1)
    assert worker.get_results().empty()
    assert (tasks.qsize(), results.qsize()) == (1, 0)


def test_one_typeid_whose_object_is_replaced_leads_to_the_new_one(pair: Pair) -> None:
    kept = [queue.Queue(), queue.Queue()]
    _, worker = pair(get_queue=lambda: kept[0])
    worker.get_queue().put("old")
    kept.reverse()
    assert worker.get_queue().empty()
    kept.reverse()
    assert worker.get_queue().get(timeout=5) == "old"


def test_bound_and_first_items_are_kept(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue(maxsize=2)
    original.put(1)
    original.put(2)
    _, worker = pair(get_queue=lambda: original)
    proxy = worker.get_queue()
    assert (proxy.maxsize, proxy.qsize(), proxy.full()) == (2, 2, True)
    with pytest.raises(queue.Full):
        proxy.put_nowait(3)
    assert [proxy.get(timeout=5), proxy.get(timeout=5)] == [1, 2]


def test_every_method_of_the_original_leads_to_the_engine(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue(maxsize=1)
    master, _ = pair(get_queue=lambda: original)
    proxy = master.get_queue()
    original.put_nowait(1)
    assert (original.qsize(), original.empty(), original.full()) == (1, False, True)
    assert proxy.get(timeout=5) == 1
    original.task_done()
    original.join()
    with pytest.raises(queue.Empty):
        original.get_nowait()
    original.shutdown()  # type: ignore[attr-defined]  # Python 3.13's, on every version
    with pytest.raises(ShutDown):
        proxy.put(2)


def test_the_original_is_an_ordinary_queue_again_after_shutdown(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue()
    master, _ = pair(get_queue=lambda: original)
    master.get_queue().put(1)
    master.shutdown()
    assert original.empty()
    original.put(2)
    assert original.get_nowait() == 2
    original.task_done()
    original.join()


@pytest.mark.parametrize("first_items", [[], [1]])
def test_a_thread_that_waits_in_the_originals_own_method_goes_on_at_the_engine(pair: Pair, first_items: list[int]) -> None:
    original: queue.Queue[Any] = queue.Queue(maxsize=1)
    for item in first_items:
        original.put(item)
    done: list[Any] = []

    def use() -> None:
        done.append(original.put(2) if first_items else original.get())

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    waiting = original.not_full if first_items else original.not_empty
    eventually(lambda: bool(waiting._waiters), "the thread waits in the original")  # type: ignore[attr-defined]
    _, worker = pair(get_queue=lambda: original)
    proxy = worker.get_queue()
    if first_items:
        assert [proxy.get(timeout=5), proxy.get(timeout=5)] == [1, 2]
    else:
        proxy.put("found")
    thread.join(5)
    assert not thread.is_alive()
    assert done == ([None] if first_items else ["found"])


def test_a_new_object_for_each_call_is_a_queue_of_the_callers_own(pair: Pair) -> None:
    master, worker = pair(make_queue=queue.Queue)
    proxies = [master.make_queue(), worker.make_queue(), worker.make_queue()]
    for n, proxy in enumerate(proxies):
        proxy.put(n)
    assert [proxy.get(timeout=5) for proxy in proxies] == [0, 1, 2]


def test_first_items_of_a_new_object_are_kept(pair: Pair) -> None:
    def filled() -> queue.Queue[str]:
        made: queue.Queue[str] = queue.Queue()
        made.put("first")
        return made

    _, worker = pair(make_queue=filled)
    assert worker.make_queue().get(timeout=5) == "first"


@pytest.mark.parametrize("at_master", [True, False])
def test_a_queue_of_the_callers_own_goes_with_its_last_proxy(pair: Pair, at_master: bool) -> None:
    master, worker = pair(make_queue=queue.Queue)
    owner = master if at_master else worker
    proxy = owner.make_queue()
    proxy.put(1)
    name = proxy.name
    assert stats_of(master, name).ready == 1
    del proxy
    gc.collect()
    owner.make_queue()  # a worker tells with its next request
    eventually(lambda: stats_of(master, name).ready == 0, "what it held is dropped")


def test_a_queue_of_a_workers_own_goes_when_the_worker_leaves(pair: Pair) -> None:
    master, worker = pair(make_queue=queue.Queue)
    proxy = worker.make_queue()
    proxy.put(1)
    worker.shutdown()
    eventually(lambda: stats_of(master, proxy.name).ready == 0, "what it held is dropped")


def stats_of(master: BaseManager, name: str) -> Any:
    assert master._master is not None
    return next(stats for stats in master._master._client.stats(name).queues if stats.name == name)


def test_arguments_choose_among_queues(pair: Pair) -> None:
    kept: dict[str, queue.Queue[str]] = {"mail": queue.Queue(), "print": queue.Queue()}
    master, worker = pair(get_queue=lambda kind, *, urgent=False: kept[kind])
    worker.get_queue("mail").put("letter")
    assert worker.get_queue("print").empty()
    assert master.get_queue("mail", urgent=True).get(timeout=5) == "letter"


def test_a_callable_may_ask_its_own_manager(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue()
    masters: list[Any] = []

    def filled() -> queue.Queue[int]:
        masters[0].get_queue().put(1)
        return original

    master, worker = pair(get_queue=lambda: original, get_filled=filled)
    masters.append(master)
    assert worker.get_filled().get(timeout=5) == 1


def test_a_callable_that_raises_is_told_to_the_worker_and_hurts_nobody_else(pair: Pair) -> None:
    original: queue.Queue[int] = queue.Queue()

    def broken() -> queue.Queue[int]:
        raise LookupError("no such tenant")

    _, worker = pair(get_queue=lambda: original, get_broken=broken)
    with pytest.raises(TaskFailed, match=r"get_broken.*LookupError: no such tenant.*broken"):
        worker.get_broken()
    worker.get_queue().put(1)


class _Named(queue.Queue):  # type: ignore[type-arg]
    """Overrides nothing that the engine would have to know."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.name = "tasks"


def test_a_subclass_that_overrides_nothing_is_an_engines_queue(pair: Pair) -> None:
    kept = _Named(maxsize=2)
    kept.put(1)
    _, worker = pair(get_it=lambda: kept)
    proxy = worker.get_it()
    kept.put(2)
    assert proxy.full()
    assert [proxy.get(timeout=5), kept.get(timeout=5)] == [1, 2]


@pytest.mark.parametrize(("kind", "order"), [(queue.PriorityQueue, [1, 2, 3]), (queue.LifoQueue, [2, 1, 3])])
def test_a_queue_with_an_order_of_its_own_keeps_it(pair: Pair, kind: type, order: list[int]) -> None:
    kept = kind()
    master, worker = pair(get_it=lambda: kept)
    in_master, in_worker = master.get_it(), worker.get_it()
    in_master.put(3)
    in_worker.put(1)
    kept.put(2)
    assert [in_worker.get(timeout=5), in_master.get(timeout=5), kept.get(timeout=5)] == order
    with pytest.raises(queue.Empty):
        in_worker.get_nowait()


def test_a_durable_store_refuses_queues_that_nobody_could_find_again(pair: Pair, tmp_path: Path) -> None:
    original: queue.Queue[int] = queue.Queue()
    _, worker = pair(store=f"sqlite:///{tmp_path / 'jobs.db'}", get_queue=lambda: original, make_queue=queue.Queue)
    worker.get_queue().put(1)
    with pytest.raises(UnsupportedFeature, match="memory://"):
        worker.make_queue()


def test_a_durable_store_has_the_queue_again_under_its_typeid(pair: Pair, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path / 'jobs.db'}"
    master, worker = pair(store=store, get_queue=lambda kept=queue.Queue(): kept)  # noqa: B008 - made once, on purpose
    worker.get_queue().put("kept")
    worker.shutdown()
    master.shutdown()
    _, later = pair(store=store, get_queue=lambda kept=queue.Queue(): kept)  # noqa: B008
    assert later.get_queue().get(timeout=5) == "kept"
