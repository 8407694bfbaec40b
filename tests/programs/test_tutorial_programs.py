"""The tutorial's three pairs with one import line changed, as separate processes: every start method, version and number
of workers.

Each run sleeps ten seconds and more (the programs do), so all selected runs of the matrix go side by side, and each test
waits for its own.
"""

from __future__ import annotations

import itertools
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from .interpreters import Absent, python_with_the_package
from .lab import Lab, Program, own_network_kind, program_text, until

PAIRS = {
    "taskmanager": ("taskmanager.py", "taskworker.py"),
    "task_master": ("task_master.py", "task_worker.py"),
    "task_master_windows": ("task_master_windows.py", "task_worker_windows.py"),
}
METHODS = ("spawn",) if sys.platform == "win32" else ("fork", "spawn", "forkserver")
VERSIONS = ("3.11", "3.12", "3.13")
WORKERS = (1, 2, 4)
SIDE_BY_SIDE = 16


class Case(NamedTuple):
    pair: str
    method: str
    version: str
    workers: int


CASES = [Case(*values) for values in itertools.product(PAIRS, METHODS, VERSIONS, WORKERS)]

# Programs start one group after another, and the workers of a group at the same moment: sixteen interpreters starting at
# once on two cores take seconds, and a worker that begins a second after the other finds less than half of the tasks.
_starting = threading.Lock()


class Finished(NamedTuple):
    """What one run left behind."""

    master: Program
    workers: list[Program]

    def report(self) -> str:
        return "\n" + "\n".join(program.report() for program in (self.master, *self.workers))


def run_case(case: Case, folder: Path) -> Finished:
    """Start the master, then its workers, and wait until all have ended."""
    master_name, worker_name = PAIRS[case.pair]
    with Lab(folder, python_with_the_package(case.version), case.method) as lab:
        with _starting:
            master = lab.start("master", program_text(f"seeds/{master_name}"))
            master.prints("Try get results")
            worker_text = program_text(f"seeds/{worker_name}")
            workers = [lab.start(f"worker{n}", worker_text, is_held=True) for n in range(1, case.workers + 1)]
            until(lambda: all(worker.is_held() for worker in workers), "every worker's interpreter is up")
            for worker in workers:
                worker.say("begin")
            for worker in workers:
                worker.prints("run task")
        for program in (master, *workers):
            program.ends()
        return Finished(master, workers)


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Case, Future[Finished]]]:
    """Every selected run of the matrix, begun side by side."""
    folder = tmp_path_factory.mktemp("matrix")
    chosen = {item.callspec.params["case"] for item in request.session.items if "case" in getattr(item, "fixturenames", ())}
    with ThreadPoolExecutor(SIDE_BY_SIDE if own_network_kind() else 1) as pool:
        yield {case: pool.submit(run_case, case, folder / "-".join(map(str, case))) for case in CASES if case in chosen}
        pool.shutdown(cancel_futures=True)


@pytest.mark.programs
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_the_tutorials_pair_runs_with_one_import_changed(case: Case, runs: dict[Case, Future[Finished]]) -> None:
    try:
        run = runs[case].result(timeout=600)
    except Absent as absence:
        pytest.skip(str(absence))
    programs = (run.master, *run.workers)
    assert [(program.process.returncode, program.err) for program in programs] == [(0, "")] * len(programs), run.report()
    put = re.findall(r"^Put task (\d+)\.\.\.$", run.master.out, re.MULTILINE)
    got = re.findall(r"^Result: (\d+) \* \1 = (\d+)$", run.master.out, re.MULTILINE)
    assert sorted(number for number, _ in got) == sorted(put), run.report()
    assert len(put) == 10
    assert all(int(square) == int(number) ** 2 for number, square in got)
    ran = [worker.out.count("run task") for worker in run.workers]
    assert sum(ran) == 10, run.report()
    if case.workers == 2:
        assert ran == [5, 5], run.report()


@pytest.mark.parametrize("name", [name for pair in PAIRS.values() for name in pair])
def test_one_line_of_a_tutorial_program_is_changed_and_nothing_else(name: str) -> None:
    before = program_text(f"seeds/{name}", ours=False).splitlines()
    after = program_text(f"seeds/{name}").splitlines()
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
