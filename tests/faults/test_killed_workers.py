"""Children, whole workers and multiprocessing's helpers are killed at random: every future is right, few runs repeat."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, as_completed
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.errors import WorkerCrashed

from . import work
from .cluster import until
from .crews import Crews, children_of, helper_of
from .programs import KEY

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not os.path.isdir("/proc"), reason="it finds the processes to kill in /proc"),
]

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
TASKS = int(os.environ.get("MANYHANDS_KILLED_TASKS", "20000" if IS_NIGHTLY else "4000"))
CHILD_KILLS = int(os.environ.get("MANYHANDS_KILLED_CHILDREN", "50" if IS_NIGHTLY else "12"))
WORKER_KILLS = int(os.environ.get("MANYHANDS_KILLED_WORKERS", "10" if IS_NIGHTLY else "3"))
SEED = int(os.environ.get("MANYHANDS_FAULT_SEED", "1"))
WORKERS, CONCURRENCY = 2, 2
IN_HAND = 20
"""How many tasks of no or a few milliseconds a child may have run and not yet settled."""
WAIT_S = 120.0


@pytest.fixture
def crews(tmp_path: Path) -> Iterator[Crews]:
    crews = Crews(tmp_path, WORKERS, CONCURRENCY)
    try:
        yield crews
    finally:
        crews.close()


class Ends:
    """How often each future was said to have ended."""

    def __init__(self) -> None:
        self.times: Counter[int] = Counter()

    def watch(self, number: int, future: Future[Any]) -> None:
        future.add_done_callback(lambda _: self.times.update([number]))


def test_every_future_is_right_though_children_and_workers_are_killed(crews: Crews) -> None:
    rng = random.Random(SEED)
    faults = ["child"] * CHILD_KILLS + ["worker"] * WORKER_KILLS
    rng.shuffle(faults)
    next_at = [TASKS * (n + 1) // (len(faults) + 2) for n in range(len(faults))]
    ends = Ends()
    with mh.connect(crews.url, KEY) as client, mh.Executor(url=crews.url, authkey=KEY) as executor:
        futures = {}
        for number in range(TASKS):  # none, a moment, and now and then long enough to be killed in the middle
            seconds = rng.choice((0.0, 0.0, 0.001, 0.003)) if number % 50 else 0.05
            future = executor.submit(work.square, str(crews.runs), number, seconds)
            ends.watch(number, future)
            futures[future] = number
        for n, future in enumerate(as_completed(futures, timeout=WAIT_S), start=1):
            assert future.result() == futures[future] ** 2
            if next_at and n >= next_at[0]:
                next_at.pop(0)
                if faults.pop() == "worker":
                    crews.kill_worker(rng)
                else:
                    until(lambda: crews.kill_child(rng), "there is a child to kill")
        assert not faults, "the tasks were over before the faults"
        assert client.dead("default").list() == []
    assert ends.times == Counter(range(TASKS)), "lost, or ended twice"
    runs = Counter(work.runs(crews.runs))
    assert runs.keys() == set(range(TASKS))
    repeats = sum(runs.values()) - TASKS
    print(f"{TASKS} tasks, {CHILD_KILLS} children and {WORKER_KILLS} workers killed, {repeats} runs repeated")
    assert repeats <= IN_HAND * (CHILD_KILLS + CONCURRENCY * WORKER_KILLS)
    assert crews.stop() == [0] * WORKERS, crews.errors()
    assert "Traceback" not in crews.errors()


def test_of_long_tasks_a_kill_repeats_exactly_the_one_that_was_running(crews: Crews) -> None:
    rng = random.Random(SEED)
    tasks, kills = 60, 4
    with mh.Executor(url=crews.url, authkey=KEY) as executor:
        futures = {executor.submit(work.square, str(crews.runs), number, 0.2): number for number in range(tasks)}
        for done, future in enumerate(as_completed(futures, timeout=WAIT_S), start=1):
            assert future.result() == futures[future] ** 2
            if done % (tasks // (kills + 1)) == 0 and done // (tasks // (kills + 1)) <= kills:
                until(lambda: crews.kill_child(rng), "there is a child to kill")
    runs = Counter(work.runs(crews.runs))
    assert runs.keys() == set(range(tasks))
    assert sum(runs.values()) - tasks <= kills
    assert max(runs.values()) <= 1 + kills


def test_a_task_that_always_kills_its_worker_is_a_dead_letter_after_three_and_takes_no_neighbour_along(crews: Crews) -> None:
    neighbours = 400
    with mh.connect(crews.url, KEY) as client, mh.Executor(url=crews.url, authkey=KEY) as executor:
        futures = []
        poison: list[Future[None]] = []
        for number in range(neighbours):
            if number in (50, 300):
                poison.append(executor.submit(work.kill_me, str(crews.runs), -number))
            futures.append(executor.submit(work.square, str(crews.runs), number, 0.0))
        for number, future in enumerate(futures):
            assert future.result(WAIT_S) == number * number
        for future in poison:
            with pytest.raises(WorkerCrashed):
                future.result(WAIT_S)
        letters = client.dead("default").list()
        assert len(letters) == len(poison)
    runs = Counter(work.runs(crews.runs))
    assert runs[-50] == runs[-300] == 3


FORKSERVER_PROGRAM = """
import multiprocessing, sys
import manyhands as mh
from faults import work

if __name__ == "__main__":
    folder, tasks = sys.argv[1], int(sys.argv[2])
    with mh.Executor(2, mp_context=multiprocessing.get_context("forkserver")) as executor:
        futures = [executor.submit(work.square, folder, n, 0.002) for n in range(tasks)]
        for n, future in enumerate(futures):
            assert future.result(120) == n * n, (n, future.result())
            if n % 50 == 0:
                print(n, flush=True)
    print("all right", flush=True)
"""


def test_every_future_is_right_though_the_forkserver_and_the_resource_tracker_are_killed(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    tasks = max(1_500, TASKS // 5)
    runs_folder = tmp_path / "runs"
    runs_folder.mkdir()
    (tmp_path / "program.py").write_text(FORKSERVER_PROGRAM, encoding="utf-8")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with (tmp_path / "err").open("wb") as err:
        program = subprocess.Popen(
            [sys.executable, str(tmp_path / "program.py"), str(runs_folder), str(tasks)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            text=True,
            env=environ,
        )
    killed: Counter[str] = Counter()
    try:
        assert program.stdout is not None
        plan = {0.2: "forkserver", 0.4: "resource tracker", 0.6: "child", 0.7: "forkserver", 0.8: "child"}
        for line in program.stdout:
            if not line.strip().isdigit():
                assert line == "all right\n"
                break
            for share in [share for share in plan if int(line) >= tasks * share]:
                what = plan.pop(share)
                victim = rng.choice(children_of(program.pid) or [0]) if what == "child" else helper_of(program.pid, what)
                if victim:
                    with suppress(ProcessLookupError):
                        os.kill(victim, signal.SIGKILL)
                        killed[what] += 1
        else:
            pytest.fail(f"it ended early: {(tmp_path / 'err').read_text()}")
        assert program.wait(60) == 0
    finally:
        program.kill()
        program.communicate()
    assert killed["forkserver"] >= 1, killed
    assert killed["resource tracker"] == 1, killed
    runs = Counter(work.runs(runs_folder))
    assert runs.keys() == set(range(tasks))
    assert sum(runs.values()) - tasks <= IN_HAND * sum(killed.values()) * 2
    assert "Traceback" not in (tmp_path / "err").read_text()


def test_killed_processes_leave_no_others_behind(crews: Crews) -> None:
    until(lambda: all(len(children_of(worker.pid)) == CONCURRENCY for worker in crews.workers), "all children are there")
    victim = crews.workers[0]
    orphans = children_of(victim.pid)
    victim.kill()
    victim.wait()
    started = time.monotonic()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orphans), "children end with their parent", 10.0)
    assert time.monotonic() - started < 5.0
