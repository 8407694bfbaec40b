"""An Executor without a url: children of this process, behind an embedded server, and nothing left of them afterwards."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from executor import jobs
from manyhands.errors import UsageError, WorkerCrashed

pytestmark = pytest.mark.programs

DEADLINE_S = 60.0


@pytest.fixture(scope="module")
def executor() -> Iterator[mh.Executor]:
    with mh.Executor(2) as made:
        yield made


def until(is_true: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not is_true():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def test_calls_run_in_children_and_come_back(executor: mh.Executor) -> None:
    assert executor.submit(jobs.pid_after, 0).result(DEADLINE_S) != os.getpid()
    assert list(executor.map(pow, range(10), range(10))) == [n**n for n in range(10)]
    factor = 3
    assert executor.submit(lambda n, *, more: n * factor + more, 4, more=1).result(DEADLINE_S) == 13
    assert isinstance(executor, concurrent.futures.Executor)


def test_twenty_thousand_calls_of_every_way_are_all_answered_rightly(executor: mh.Executor) -> None:
    futures = [executor.submit(abs, -n) for n in range(10_000)]
    assert [future.result(DEADLINE_S) for future in futures] == list(range(10_000))
    assert list(executor.map(abs, range(0, -10_000, -1), timeout=DEADLINE_S)) == list(range(10_000))


def test_a_long_call_holds_no_short_ones(executor: mh.Executor) -> None:
    list(executor.map(abs, range(20_000)))  # so that calls are known to be short, and share messages
    seconds = [0.0] * 400
    seconds[10] = 1.5
    started = time.monotonic()
    long = executor.submit(jobs.pid_after, 1.5)
    short = [executor.submit(jobs.pid_after, 0.001) for _ in range(400)]
    concurrent.futures.wait(short, DEADLINE_S)
    assert not long.done() or time.monotonic() - started < 1.5
    assert long.result(DEADLINE_S)


def test_a_killer_costs_itself_only_and_the_pool_goes_on(executor: mh.Executor) -> None:
    list(executor.map(abs, range(20_000)))
    futures = [executor.submit(jobs.die_or, n, 150) for n in range(300)]
    with pytest.raises(WorkerCrashed) as caught:
        futures[150].result(DEADLINE_S)
    assert isinstance(caught.value, BrokenProcessPool)
    assert [futures[n].result(DEADLINE_S) for n in range(300) if n != 150] == [n for n in range(300) if n != 150]
    assert executor.submit(abs, -1).result(DEADLINE_S) == 1


def test_a_running_call_is_killed_by_cancel_and_its_child_replaced(executor: mh.Executor, tmp_path: Path) -> None:
    path = tmp_path / "job"
    future = executor.submit(jobs.appear, str(path), DEADLINE_S)
    until(path.with_suffix(".begun").exists, "it never began")
    assert not future.cancel()
    assert future.running()
    assert future.cancel(running=True)
    assert future.cancelled()
    assert not path.with_suffix(".ended").exists()
    assert executor.submit(abs, -1).result(DEADLINE_S) == 1


def test_children_are_started_as_they_are_needed_and_are_gone_after_shutdown() -> None:
    before = set(threading.enumerate())
    with mh.Executor(3) as executor:
        first = executor.submit(jobs.pid_after, 0).result(DEADLINE_S)
        assert executor.submit(jobs.pid_after, 0).result(DEADLINE_S) == first
        pids = {first, *executor.map(jobs.pid_after, [0.2] * 12)}
        assert len(pids) <= 3
    assert not any(_lives(pid) for pid in pids)
    until(lambda: set(threading.enumerate()) == before, "a thread lives on")
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(abs, 1)


def test_an_executor_that_is_garbage_finishes_its_calls_and_ends() -> None:
    before = set(threading.enumerate())
    executor = mh.Executor(1)
    futures = [executor.submit(jobs.pid_after, 0.05) for _ in range(4)]
    del executor
    gc.collect()
    (pid,) = {future.result(DEADLINE_S) for future in futures}
    until(lambda: not _lives(pid), "its child lives on")
    until(lambda: set(threading.enumerate()) == before, "a thread lives on")


def test_shutdown_cancels_what_nobody_has_begun_and_what_runs_ends() -> None:
    executor = mh.Executor(1)
    futures = [executor.submit(jobs.pid_after, 0.2) for _ in range(20)]
    futures[0].result(DEADLINE_S)
    executor.shutdown(cancel_futures=True)
    assert all(future.done() for future in futures)
    cancelled = [future for future in futures if future.cancelled()]
    assert 15 <= len(cancelled) < 20
    assert all(future.exception() is None for future in futures if not future.cancelled())


def test_map_results_that_nobody_took_are_there_after_shutdown() -> None:
    with mh.Executor(2) as executor:
        results = executor.map(abs, range(5000))
        endless = executor.map(abs, iter(range(3000)))
    assert list(results) == list(range(5000))
    assert list(endless) == list(range(3000))


def test_an_initializer_runs_once_in_each_child() -> None:
    with mh.Executor(2, initializer=jobs.set_up, initargs=("x",)) as executor:
        found = [executor.submit(jobs.setting).result(DEADLINE_S) for _ in range(10)]
    assert all(len(one) == 1 and one[0][0] == "x" for one in found)


def test_an_initializer_that_fails_breaks_the_executor_as_the_standard_library_does() -> None:
    with mh.Executor(1, initializer=jobs.fail_to_set_up) as executor:
        with pytest.raises(BrokenProcessPool, match="no licence"):
            executor.submit(abs, 1).result(DEADLINE_S)
        with pytest.raises(BrokenProcessPool):
            executor.submit(abs, 1)


@pytest.mark.parametrize("method", [one for one in multiprocessing.get_all_start_methods() if one != "fork"])
def test_a_start_method_is_honoured(method: str) -> None:
    with mh.Executor(1, multiprocessing.get_context(method)) as executor:
        assert executor.submit(jobs.process_name).result(DEADLINE_S) != "MainProcess"


def test_what_cannot_be_had_together_is_said() -> None:
    with pytest.raises(UsageError, match="max_tasks_per_child is about children"):
        mh.Executor(url="tcp://127.0.0.1:1", max_tasks_per_child=3)
    with pytest.raises(UsageError, match="mp_context is about children"):
        mh.Executor(url="tcp://127.0.0.1:1", mp_context=multiprocessing.get_context("spawn"))
    with pytest.raises(ValueError, match="max_workers must be greater than 0"):
        mh.Executor(0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        mh.Executor(initializer=1)  # type: ignore[arg-type]


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_program_without_a_guard_whose_functions_are_its_own_runs_to_its_end(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(done.stdout.split()) == ["42", "Point", "True", "late"]


PROGRAM = """
import time
import manyhands as mh

class Point:
    def __init__(self, x):
        self.x = x

class Wrong(Exception):
    pass

def moved(point):
    return Point(point.x + 1)

def fails():
    raise Wrong("no")

def late():
    time.sleep(0.2)
    print("late", flush=True)

executor = mh.Executor(2)
point = executor.submit(moved, Point(41)).result()
print(point.x, type(point).__name__)
print(isinstance(executor.submit(fails).exception(), Wrong))
executor.submit(late)  # pending when the program ends
"""


def test_the_results_of_a_durable_executor_outlive_it(tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    with mh.Executor(1, store=store, authkey=KEY, keep_result_s=600) as executor:
        futures = [executor.submit(abs, -n) for n in range(200)]
        ids = [future.id for future in futures]
        assert [future.result(DEADLINE_S) for future in futures] == list(range(200))
    with mh.connect(store, KEY) as client:
        assert [client.result(one, DEADLINE_S) for one in ids] == list(range(200))


KEY = "a key of these tests, long enough"


def test_a_bar_shows_how_far_a_map_has_come(executor: mh.Executor, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(executor.map(abs, range(500), progress=True)) == list(range(500))
    shown = capsys.readouterr().out
    assert "500/500" in shown
    assert "/s" in shown


def test_large_arrays_go_there_and_back(executor: mh.Executor) -> None:
    data = bytes(range(256)) * 8192  # 2 MB
    futures = [executor.submit(bytes.swapcase, data) for _ in range(8)]
    assert all(future.result(DEADLINE_S) == data.swapcase() for future in futures)
    assert list(executor.map(len, [data] * 4)) == [len(data)] * 4
