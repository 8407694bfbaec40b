"""An Executor with a url: a cluster's workers run the calls, and results outlive their driver."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import manyhands as mh
from executor import jobs
from manyhands.errors import ServerUnavailable, WorkerCrashed
from manyhands.worker.crew import Crew

pytestmark = pytest.mark.programs

DEADLINE_S = 60.0
KEY = "a key of these tests, long enough"


class Cluster(NamedTuple):
    server: mh.Server
    crew: Crew

    def executor(self, **options: Any) -> mh.Executor:
        return mh.Executor(url=self.server.url, authkey=KEY, **options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with mh.serve("tcp://127.0.0.1:0", KEY) as server:
        crew = Crew(server.url, server._keyring, queues=["default", "other"], size=2)
        crew.start()
        yield Cluster(server, crew)
        crew.close()


def until(is_true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_calls_go_to_the_clusters_workers(cluster: Cluster) -> None:
    pids = {child.pid for child in cluster.crew.children}
    with cluster.executor() as executor:
        assert executor.submit(jobs.pid_after, 0).result(DEADLINE_S) in pids | {c.pid for c in cluster.crew.children}
        assert list(executor.map(abs, range(0, -20_000, -1))) == list(range(20_000))
    with cluster.executor(queue="other") as executor:
        assert executor.submit(abs, -1).result(DEADLINE_S) == 1


def test_the_workers_stay_when_an_executor_ends_and_no_thread_of_it_does(cluster: Cluster) -> None:
    before = set(threading.enumerate())
    with cluster.executor() as executor:
        pid = executor.submit(jobs.pid_after, 0).result(DEADLINE_S)
    until(lambda: set(threading.enumerate()) <= before, "a thread lives on")
    with cluster.executor() as executor:
        assert pid in {executor.submit(jobs.pid_after, 0.05).result(DEADLINE_S) for _ in range(8)}


def test_an_initializer_runs_once_in_each_child_for_each_executor(cluster: Cluster) -> None:
    with cluster.executor(initializer=jobs.set_up, initargs=("first",)) as executor:
        for _ in range(10):
            found = executor.submit(jobs.setting).result(DEADLINE_S)
            assert [value for value, _ in found].count("first") == 1
    with cluster.executor(initializer=jobs.set_up, initargs=("second",)) as executor:
        found = executor.submit(jobs.setting).result(DEADLINE_S)
        assert [value for value, _ in found].count("second") == 1


def test_an_initializer_that_fails_breaks_its_own_executor_only(cluster: Cluster) -> None:
    with cluster.executor(initializer=jobs.fail_to_set_up) as executor:
        with pytest.raises(WorkerCrashed) as caught:
            executor.submit(abs, 1).result(DEADLINE_S)
        assert isinstance(caught.value.__cause__, OSError)
        with pytest.raises(WorkerCrashed):
            executor.submit(abs, 1)
    with cluster.executor() as executor:
        assert executor.submit(abs, -1).result(DEADLINE_S) == 1


DRIVER = """
import os, sys
import manyhands as mh
from executor import jobs
executor = mh.Executor(url=sys.argv[1], authkey=sys.argv[2], keep_result_s=600)
list(executor.map(abs, range(20000)))  # so that calls share messages
futures = [executor.submit(abs, -n) for n in range(100)] + [executor.submit(jobs.die_or, 1, 2)]
print(*(future.id for future in futures), flush=True)
os._exit(1)
"""


def test_the_results_of_a_driver_that_died_are_found_by_id(cluster: Cluster, tmp_path: Path) -> None:
    driver = subprocess.run(
        [sys.executable, "-c", DRIVER, cluster.server.url, KEY],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    ids = driver.stdout.split()
    assert len(ids) == 101, driver.stderr
    assert any("." in one for one in ids), "no calls shared a message, so this shows nothing"
    with mh.connect(cluster.server.url, KEY) as client:
        assert [client.result(one, DEADLINE_S) for one in ids] == [*range(100), 1]


def test_a_client_submits_functions_and_finds_results(cluster: Cluster) -> None:
    with mh.connect(cluster.server.url, KEY) as client:
        future = client.submit(pow, 2, 8)
        assert future.result(DEADLINE_S) == 256
        with pytest.raises(ZeroDivisionError):
            client.submit(divmod, 1, 0).result(DEADLINE_S)


def test_asyncio_awaits_calls_and_maps(cluster: Cluster) -> None:
    async def main() -> None:
        async with mh.aio.Executor(url=cluster.server.url, authkey=KEY) as executor:
            assert await executor.submit(pow, 2, 8) == 256
            assert await asyncio.gather(*(executor.submit(abs, -n) for n in range(500))) == list(range(500))
            assert [one async for one in executor.map(abs, range(0, -5000, -1))] == list(range(5000))
            with pytest.raises(ZeroDivisionError):
                await executor.submit(divmod, 1, 0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await executor.submit(jobs.pid_after, 0.5)
            async for one in executor.map(abs, iter(range(10**6))):
                if one == 10:
                    break

    asyncio.run(main())


@pytest.mark.faults
@pytest.mark.parametrize("is_durable", [False, True])
def test_calls_outlive_the_restart_of_a_durable_server_and_end_with_a_sentence_at_one_in_memory(
    is_durable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.client.calling.helper.LOOK_S", 0.1)
    store = f"sqlite:///{tmp_path}/jobs.db" if is_durable else "memory://"
    server = mh.serve("tcp://127.0.0.1:0", KEY, store)
    crew = Crew(server.url, server._keyring, queues=["default"], size=1)
    crew.start()
    with mh.Executor(url=server.url, authkey=KEY) as executor:
        assert executor.submit(abs, -1).result(DEADLINE_S) == 1
        futures = [executor.submit(jobs.pid_after, 0.1) for _ in range(5)]
        assert futures[0].id
        server.stop()
        server = mh.serve(server.url, KEY, store)
        if is_durable:
            assert all(future.result(DEADLINE_S) for future in futures)
        else:
            with pytest.raises(ServerUnavailable, match="its queues were in its memory, so this call is lost"):
                futures[-1].result(DEADLINE_S)
        assert executor.submit(abs, -2).result(DEADLINE_S) == 2
    crew.close()
    server.stop()
