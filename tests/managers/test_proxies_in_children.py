"""Proxies go to other processes: as arguments, in items, in the tasks of a Pool, under every start method."""

from __future__ import annotations

import gc
import multiprocessing
from typing import Any

import pytest

from manyhands.managers import SyncManager
from manyhands.testing.contract.peer import eventually

METHODS = multiprocessing.get_all_start_methods()
KEY = "a key that is not the process's own"


class Shared(SyncManager):
    pass


def use(numbers: Any, lock: Any, tasks: Any, results: Any) -> None:
    with lock:
        numbers.append(tasks.get(timeout=20))
    extra = tasks.get(timeout=20)  # a proxy that came in an item
    extra["done"] = True
    results.put([1, numbers])


def add(arguments: tuple[Any, int]) -> int:
    numbers, n = arguments
    numbers.append(n)
    return len(numbers)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of a fork beside threads
@pytest.mark.parametrize("method", METHODS)
def test_proxies_work_in_children_as_arguments_in_items_and_in_tasks_of_a_pool(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Shared(("127.0.0.1", 0), KEY) as master:
        worker = Shared(master.address, KEY)
        worker.connect()
        for parent in (master, worker):
            numbers, extra, results = parent.list(), parent.dict(), parent.Queue()
            tasks = parent.Queue()
            child = context.Process(target=use, args=(numbers, parent.Lock(), tasks, results))
            child.start()
            tasks.put(7)
            tasks.put(extra)
            _, sent_back = results.get(timeout=20)
            child.join(20)
            assert (child.exitcode, list(numbers), list(sent_back), extra.copy()) == (0, [7], [7], {"done": True})
            with context.Pool(1) as pool:
                assert sorted(pool.map(add, [(numbers, n) for n in range(3)])) == [2, 3, 4]
        worker.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("method", METHODS)
def test_an_object_given_to_a_child_alone_lives_as_long_as_the_child_uses_it(method: str) -> None:
    context = multiprocessing.get_context(method)
    with Shared(("127.0.0.1", 0), KEY) as master:
        results = master.Queue()
        child = context.Process(target=use_for_a_while, args=(master.list([1]), master.Queue(), results))
        child.start()
        gc.collect()
        ident, own_queue = results.get(timeout=20)
        eventually(lambda: ident in master._debug_info(), "the child's own reference has arrived")
        master._master.objects._lingering.clear()  # type: ignore[union-attr]  # a minute has passed
        gc.collect()
        assert ident in master._debug_info()
        own_queue.put(3)
        assert results.get(timeout=20) == [1, 2, 3]
        child.join(20)
        del own_queue
        eventually(lambda: ident not in master._debug_info(), "it goes with the child")


def use_for_a_while(numbers: Any, own_queue: Any, results: Any) -> None:
    numbers.append(2)
    assert own_queue.empty()
    results.put((numbers._id, own_queue))
    numbers.append(own_queue.get(timeout=20))
    results.put(numbers._getvalue())
