"""Workers inside a process: threads, and one event loop."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.errors import TaskCancelled, TaskTimedOut
from worker import chores, errands
from worker.caller import eventually
from worker.cluster import KEY, Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    errands.begun.clear()
    errands.go_on.clear()
    errands.arrived.clear()
    with Cluster(tmp_path) as made:
        yield made


def own_threads() -> set[threading.Thread]:
    """All but those that the server starts when it is first asked."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith("manyhands-attach")}


@contextmanager
def working(cluster: Cluster, pool: str, concurrency: int = 3, **options: Any) -> Iterator[mh.Worker]:
    """A worker in a thread; it has ended, and so has every thread of it, when the block has."""
    before = own_threads()
    worker = mh.Worker(cluster.url, authkey=KEY, pool=pool, concurrency=concurrency, **options)
    started = threading.Event()
    thread = threading.Thread(target=worker.run, kwargs={"on_start": started.set})
    thread.start()
    assert started.wait(20)
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()
    eventually(lambda: own_threads() <= before, "no thread of the worker is left")


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_calls_and_packs_are_run(cluster: Cluster, pool: str) -> None:
    with working(cluster, pool):
        ids = cluster.caller.submit_pack(chores.add, [(n, 1) for n in range(50)])
        assert [cluster.caller.result(call) for call in ids] == list(range(1, 51))
        assert cluster.caller.result(cluster.caller.submit(chores.add, 1, 2)) == 3


@pytest.mark.parametrize(("pool", "task"), [("thread", errands.meet), ("async", errands.meet_in_the_loop)])
def test_as_many_run_side_by_side_as_were_asked_for(cluster: Cluster, pool: str, task: Any) -> None:
    with working(cluster, pool):
        ids = [cluster.caller.submit_task(task, name) for name in "abc"]
        assert [cluster.caller.result(call) for call in ids] == ["a", "b", "c"]


def test_an_async_pool_runs_no_more_than_that(cluster: Cluster) -> None:
    with working(cluster, "async", concurrency=2):
        ids = [cluster.caller.submit_task(errands.meet_in_the_loop, name) for name in "abc"]
        eventually(lambda: len(errands.arrived) == 2, "two have begun")
        assert cluster.caller.stats().ready == 1
        errands.arrived.append("the test")
        assert [cluster.caller.result(call) for call in ids] == ["a", "b", "c"]


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_what_runs_ends_before_the_worker_does_and_nothing_more_is_taken(cluster: Cluster, pool: str) -> None:
    with working(cluster, pool, concurrency=1) as worker:
        call = cluster.caller.submit_task(errands.wait_for_the_test)
        assert errands.begun.wait(20)
        left = cluster.caller.submit(chores.add, 1, 2)
        worker.stop()
        errands.go_on.set()
        assert cluster.caller.result(call) == "went on"
    assert not cluster.caller.is_over(left)
    assert cluster.caller.stats().ready == 1


def test_a_limit_that_a_thread_cannot_keep_is_said_once(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    with working(cluster, "thread"):
        for _ in range(2):
            call = cluster.caller.submit_task(errands.limited)
            assert cluster.caller.result(call) == 5
    assert [record.message for record in caplog.records if "time limit of 60 s" in record.message] == [
        "a call has a time limit of 60 s and runs in a thread, which cannot be stopped; the pool 'process' keeps limits"
    ]


def test_a_coroutine_is_stopped_at_its_limit(cluster: Cluster) -> None:
    with working(cluster, "async"), pytest.raises(TaskTimedOut):
        cluster.caller.result(cluster.caller.submit_task(errands.sleep_for_ever))


def test_a_coroutine_is_cancelled(cluster: Cluster) -> None:
    with working(cluster, "async"):
        call = cluster.caller.submit_task(errands.wait_in_the_loop)
        assert errands.begun.wait(20)
        cluster.caller.cancel_running(call)
        with pytest.raises(TaskCancelled):
            cluster.caller.result(call)


def test_a_coroutine_that_outlasts_the_grace_goes_back(cluster: Cluster) -> None:
    with working(cluster, "async", grace_s=0.1):
        cluster.caller.submit_task(errands.wait_in_the_loop)
        assert errands.begun.wait(20)
    eventually(lambda: cluster.caller.stats().ready == 1, "it is back")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"pool": "fibers"}, "no pool of the kind 'fibers'"),
        ({"queues": "mail"}, "not one text"),
        ({"concurrency": 0}, "at least 1"),
        ({"pool": "thread", "max_memory_bytes": 1}, "no children"),
        ({"url": "memory://"}, "this worker's own"),
        ({"url": "tcp://0.0.0.0:5959"}, "cannot be dialled"),
        (
            {"url": "tcp://127.0.0.1:1", "pool": "thread", "imports": ["no_such_module"]},
            "'no_such_module' cannot be imported",
        ),
        (
            {"url": "tcp://127.0.0.1:1", "pool": "thread", "imports": ["worker.task_jobs"], "queues": ["mail"]},
            r"_long of queue 'mail' has timeout_s=0\.3, and a thread cannot be stopped; use the pool 'process'",
        ),
        (
            {"url": "tcp://127.0.0.1:1", "pool": "async", "imports": ["worker.task_jobs"], "queues": ["mail"]},
            "a thread cannot be stopped",
        ),
        ({"url": "tcp://127.0.0.1:1", "pool": "thread", "healthz": "nowhere"}, "no address for /healthz"),
    ],
)
def test_what_cannot_work_is_said_in_a_sentence(options: dict[str, Any], says: str) -> None:
    with pytest.raises(mh.UsageError, match=says):
        mh.Worker(**{"authkey": KEY, **options}).run()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this platform has no fork")
def test_a_parent_with_threads_is_not_forked() -> None:
    with pytest.raises(mh.UsageError, match="forkserver"):
        mh.Worker("tcp://127.0.0.1:1", authkey=KEY, mp_context=multiprocessing.get_context("fork"))
