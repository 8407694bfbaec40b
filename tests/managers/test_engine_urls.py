"""A manager whose address is an engine URL: the same program, its queues elsewhere, no server of its own."""

from __future__ import annotations

import logging
import multiprocessing
import queue
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.errors import EngineBusy, ServerUnavailable, TaskFailed, UnsupportedFeature, UsageError
from manyhands.managers import BaseManager, SyncManager

from .test_stock_master import KEY, StockMaster

Make = Callable[..., Any]


@pytest.fixture
def server() -> Iterator[mh.Server]:
    with mh.serve("tcp://127.0.0.1:0", KEY) as server:
        yield server


@pytest.fixture
def manager() -> Iterator[Make]:
    """manager(url, name=callable or None, …) -> a manager of a class of its own; shut down after the test."""
    made: list[BaseManager] = []

    def make(url: str, key: str | None = KEY, **callables: Callable[..., Any] | None) -> Any:
        class Manager(BaseManager):
            pass

        for name, callable_ in callables.items():
            Manager.register(name, callable=callable_)
        made.append(Manager(url, key))
        return made[-1]

    yield make
    for one in made:
        one.shutdown()


def started(make: Make, url: str, **callables: Any) -> Any:
    master = make(url, **callables)
    master.start()
    return master


def connected(make: Make, url: str, *names: str) -> Any:
    worker = make(url, **dict.fromkeys(names))
    worker.connect()
    return worker


def filled(*items: Any, maxsize: int = 0) -> queue.Queue[Any]:
    made: queue.Queue[Any] = queue.Queue(maxsize)
    for item in items:
        made.put(item)
    return made


def keeping(*items: Any) -> Callable[[], queue.Queue[Any]]:
    """A callable that returns the same queue each time."""
    kept = filled(*items)
    return lambda: kept


# -- queues ------------------------------------------------------------------------------------------------------------


def test_start_puts_the_queues_there_and_a_worker_finds_them_by_the_same_url(server: mh.Server, manager: Make) -> None:
    tasks, results = filled(1, 2, maxsize=3), filled()
    master = started(manager, server.url, get_tasks=lambda: tasks, get_results=lambda: results)
    worker = connected(manager, server.url, "get_tasks", "get_results")
    todo = worker.get_tasks()
    assert todo.maxsize == 3
    tasks.put(3)  # the object itself leads there
    with pytest.raises(queue.Full):
        master.get_tasks().put(4, timeout=0.01)
    assert [todo.get(timeout=5) for _ in range(3)] == [1, 2, 3]
    worker.get_results().put("done")
    assert results.get(timeout=5) == "done"
    assert master.address == worker.address == server.url


def test_the_queues_stay_when_the_master_leaves(server: mh.Server, manager: Make) -> None:
    tasks = filled(1)
    master = started(manager, server.url, get_tasks=lambda: tasks)
    master.shutdown()
    assert tasks.empty()
    tasks.put("nowhere else any more")
    assert connected(manager, server.url, "get_tasks").get_tasks().get(timeout=5) == 1


def test_a_queue_made_with_arguments_has_them_in_its_name(server: mh.Server, manager: Make) -> None:
    of: dict[str, queue.Queue[Any]] = {"a": filled("for a"), "b": filled("for b")}
    master = started(manager, server.url, get_tasks=lambda name: of[name])
    assert master.get_tasks("b").qsize() == 1
    worker = connected(manager, server.url, "get_tasks")
    assert worker.get_tasks("b").get(timeout=5) == "for b"
    assert server.queue("get_tasks('b')").qsize() == 0


def test_first_items_are_not_put_again_while_what_an_earlier_run_left_is_not_done(
    server: mh.Server, manager: Make, caplog: pytest.LogCaptureFixture
) -> None:
    started(manager, server.url, get_tasks=keeping(1, 2)).shutdown()
    with caplog.at_level(logging.INFO, "manyhands"):
        again = started(manager, server.url, get_tasks=keeping(1, 2))
    assert "not put again" in caplog.text
    worker = connected(manager, server.url, "get_tasks")
    tasks = worker.get_tasks()
    assert [tasks.get(timeout=5) for _ in range(2)] == [1, 2]
    again.shutdown()
    third = started(manager, server.url, get_tasks=keeping(1, 2))  # 2 is still in the worker's hand
    assert third.get_tasks().qsize() == 0
    worker.shutdown()
    third.shutdown()
    assert started(manager, server.url, get_tasks=keeping(1, 2)).get_tasks().qsize() == 2


def test_a_store_of_a_serving_master_has_its_first_items_once(tmp_path: Path) -> None:
    class Manager(BaseManager):
        pass

    Manager.register("get_tasks", callable=lambda: tasks)
    for _ in range(2):
        tasks = filled(1, 2)
        with Manager(("127.0.0.1", 0), KEY, store=f"sqlite:///{tmp_path / 'jobs.db'}") as master:
            assert master.get_tasks().qsize() == 2  # type: ignore[attr-defined]


def test_a_bound_that_differs_from_the_one_there_is_refused(server: mh.Server, manager: Make) -> None:
    server.queue("get_tasks", maxsize=5)
    tasks = filled(1, maxsize=3)
    with pytest.raises(UsageError, match="5"):
        started(manager, server.url, get_tasks=lambda: tasks)
    assert tasks.get(block=False) == 1


def test_a_worker_may_come_first_and_a_name_that_is_not_there_is_said(
    server: mh.Server, manager: Make, caplog: pytest.LogCaptureFixture
) -> None:
    server.queue("get_results").put(1)
    worker = connected(manager, server.url, "get_tasks")
    got: queue.Queue[Any] = queue.Queue()
    with caplog.at_level(logging.INFO, "manyhands"):
        todo = worker.get_tasks()
    assert "No queue is called 'get_tasks'" in caplog.text
    assert "get_results" in caplog.text
    threading.Thread(target=lambda: got.put(todo.get(timeout=10)), daemon=True).start()
    started(manager, server.url, get_tasks=keeping(7))
    assert got.get(timeout=10) == 7


def test_the_initializer_runs_before_the_queues_are_there(server: mh.Server, manager: Make) -> None:
    tasks = filled()
    master = manager(server.url, get_tasks=lambda: tasks)
    master.start(tasks.put, (1,))
    assert server.queue("get_tasks").get(timeout=5) == 1


def double(tasks: Any, results: Any) -> None:
    results.put(tasks.get(timeout=10) * 2)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of a fork beside threads
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_proxies_go_to_a_child_as_arguments(method: str, server: mh.Server, manager: Make) -> None:
    master = started(manager, server.url, get_tasks=keeping(21), get_results=keeping())
    child = multiprocessing.get_context(method).Process(target=double, args=(master.get_tasks(), master.get_results()))
    child.start()
    assert master.get_results().get(timeout=30) == 42
    child.join(30)
    assert child.exitcode == 0


def test_the_serializer_narrows_what_travels_here_too(server: mh.Server) -> None:
    class Manager(BaseManager):
        pass

    Manager.register("get_tasks", callable=keeping())
    with Manager(server.url, KEY, "xmlrpclib") as master:
        master.get_tasks().put((1, 2))  # type: ignore[attr-defined]
        assert master.get_tasks().get(timeout=5) == [1, 2]  # type: ignore[attr-defined]


def test_after_shutdown_nothing_is_asked_any_more(server: mh.Server, manager: Make) -> None:
    master = started(manager, server.url, get_tasks=keeping())
    master.shutdown()
    with pytest.raises(UsageError, match="after shutdown"):
        master.get_tasks()


def test_a_sync_manager_there_offers_no_objects(server: mh.Server) -> None:
    class Manager(SyncManager):
        pass

    Manager.register("get_tasks", callable=keeping(1))
    for enter in (Manager.start, Manager.connect):
        manager: Any = Manager(server.url, KEY)
        enter(manager)
        for name in ("dict", "Lock", "Queue"):
            with pytest.raises(UnsupportedFeature, match=r"\(host, port\)"):
                getattr(manager, name)()
        assert manager.get_tasks().qsize() == 1
        manager.shutdown()


# -- other engines -----------------------------------------------------------------------------------------------------


def test_sqlite_keeps_the_queues_for_the_next_run_and_belongs_to_one_process(manager: Make, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    master = started(manager, url, get_tasks=keeping())
    master.get_tasks().put("kept")
    worker = manager(url, get_tasks=None)
    with pytest.raises(EngineBusy, match="serve"):
        worker.connect()
    master.shutdown()
    worker.connect()
    assert worker.get_tasks().get(timeout=5) == "kept"


def test_memory_is_for_one_process(manager: Make) -> None:
    master = started(manager, "memory://", get_tasks=keeping(1))
    assert master.get_tasks().get(timeout=5) == 1
    with pytest.raises(UsageError, match="tcp://"):
        manager("memory://").connect()


@pytest.mark.parametrize("url", ["http://host", "tcp:/host://"])
def test_a_url_that_is_no_engines_says_what_to_write(url: str, manager: Make) -> None:
    with pytest.raises(UsageError, match=r"address=.*tcp://host:port"):
        manager(url)


def test_a_url_and_a_store_are_said_once(server: mh.Server) -> None:
    with pytest.raises(UsageError, match="leave store="):
        BaseManager(server.url, KEY, store="sqlite:///jobs.db")


def test_there_is_nothing_to_serve(server: mh.Server, manager: Make) -> None:
    with pytest.raises(UsageError, match=r"use start\(\)"):
        manager(server.url).get_server()


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_store_and_a_server_elsewhere_need_a_key_that_is_given(
    manager: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for url in (f"sqlite:///{tmp_path / 'jobs.db'}", "tcp://192.0.2.1:5959"):
        with pytest.raises(UsageError, match="authkey"):
            manager(url, None).start()
    monkeypatch.setenv("MANYHANDS_AUTHKEY", KEY)
    manager(f"sqlite:///{tmp_path / 'jobs.db'}", None).start()


def test_on_loopback_the_users_kept_key_is_the_servers_too(manager: Make) -> None:
    with mh.serve("tcp://127.0.0.1:0") as server:
        tasks = filled(1)
        master = manager(server.url, None, get_tasks=lambda: tasks)
        master.start()
        assert server.queue("get_tasks").qsize() == 1


# -- what cannot live there --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [{"depth": 1}, queue.PriorityQueue(), threading.Lock()])
def test_an_object_cannot_live_there_and_start_says_so(kept: Any, server: mh.Server, manager: Make) -> None:
    tasks = filled(1)
    with pytest.raises(UnsupportedFeature, match=rf"'get_it' returns a {type(kept).__name__}.*\(host, port\)"):
        started(manager, server.url, get_tasks=lambda: tasks, get_it=lambda: kept)
    assert (tasks.qsize(), server.queue("get_tasks").qsize()) == (1, 0)


@pytest.mark.parametrize("is_master", [True, False])
def test_what_is_made_anew_for_each_call_is_refused_on_both_sides(is_master: bool, server: mh.Server, manager: Make) -> None:
    one = manager(server.url, Queue=queue.Queue, Thing=dict)
    one.start() if is_master else one.connect()
    for name in ("Queue", "Thing"):
        with pytest.raises(UnsupportedFeature, match=r"\(host, port\)"):
            getattr(one, name)()


def test_an_alias_is_refused(server: mh.Server, manager: Make) -> None:
    tasks = filled()
    with pytest.raises(UnsupportedFeature, match="register it once"):
        started(manager, server.url, get_tasks=lambda: tasks, get_jobs=lambda: tasks)


def test_a_callable_that_raises_is_named(server: mh.Server, manager: Make) -> None:
    with pytest.raises(TaskFailed, match=r"get_tasks.*ZeroDivisionError"):
        started(manager, server.url, get_tasks=lambda: 1 / 0)


# -- whoever answers there ---------------------------------------------------------------------------------------------


def test_a_worker_connects_by_url_to_a_master_too(manager: Make) -> None:
    class Master(BaseManager):
        pass

    tasks = filled(1)
    Master.register("get_tasks", callable=lambda: tasks)
    with Master(("127.0.0.1", 0), KEY) as master:
        url = f"tcp://127.0.0.1:{master.address[1]}"
        worker = connected(manager, url, "get_tasks", "get_others")
        assert worker.get_tasks().get(timeout=5) == 1
        with pytest.raises(UsageError, match="it offers: get_tasks"):
            worker.get_others()
        with pytest.raises(UsageError, match="manyhands serve"):
            manager(url).start()


def test_a_worker_connects_by_url_to_a_stock_master_too(manager: Make) -> None:
    master = StockMaster(sys.executable)
    try:
        worker = connected(manager, f"tcp://127.0.0.1:{master.address[1]}", "get_tasks")
        worker.get_tasks().put(1)
        assert worker.get_tasks().get(timeout=5) == 1
    finally:
        master.stop()


def test_nobody_there_is_said(manager: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands.client.connecting.connect.__kwdefaults__", {"timeout_s": 0.2})
    with pytest.raises(ServerUnavailable, match="check that"):
        manager("tcp://127.0.0.1:1").start()
