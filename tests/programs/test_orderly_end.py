"""A master shuts down while its workers are in the middle of tasks and in get: how each of them ends.

The worker is the tutorial's, its source unchanged but for the import: it sleeps a second for each task and asks ten times.
The runs go side by side, each on a network of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from .lab import Lab, Program, own_network_kind, program_text, until
from .test_killed_workers import WORKER, start_master

pytestmark = pytest.mark.programs

WORKERS = (1, 2, 40)


def shut_down_under(folder: Path, n: int) -> list[Program]:
    """The ended programs, the master first."""
    with Lab(folder) as lab:
        master = start_master(lab, ours=True)
        workers = [lab.start(f"worker{number}", program_text(WORKER), is_held=True) for number in range(n)]
        until(lambda: all(worker.is_held() for worker in workers), "every worker's interpreter is up", 120)
        master.say("put " + " ".join(map(str, range(n // 2 + 1))))  # so that others are in get
        for worker in workers:
            worker.say("begin")
        for worker in workers:
            worker.prints("task", timeout_s=60)  # it runs one, or found none
        master.say("stop")
        for program in (master, *workers):
            program.ends()
        return [master, *workers]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[int, Future[list[Program]]]]:
    """All runs, begun side by side."""
    folder = tmp_path_factory.mktemp("ends")
    with ThreadPoolExecutor(len(WORKERS) if own_network_kind() else 1) as pool:
        yield {n: pool.submit(shut_down_under, folder / str(n), n) for n in WORKERS}


@pytest.mark.parametrize("n", WORKERS)
def test_the_tutorials_workers_end_in_order_when_their_master_shuts_down(
    runs: dict[int, Future[list[Program]]], n: int
) -> None:
    programs = runs[n].result(300)
    assert len(programs) == n + 1
    ends = [(program.name, program.process.returncode, program.err) for program in programs]
    assert [end for end in ends if end[1:] != (0, "")] == []
