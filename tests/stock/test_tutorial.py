"""The tutorial's unmodified worker at our master, with the standard library's own import line and nothing of ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from programs.lab import Lab, Program, program_text
from programs.test_killed_workers import results, stop

pytestmark = [pytest.mark.programs]

WORKER = "seeds/task_worker_windows.py"


def begin(lab: Lab, *workers: bool) -> tuple[Program, list[Program]]:
    """Our master, and a worker for each argument: True runs our package, False the standard library."""
    master = lab.start("master", program_text("masters/commanded.py"))
    master.prints("ready")
    hands = [lab.start(f"worker{n}", program_text(WORKER, ours=ours)) for n, ours in enumerate(workers)]
    for hand in hands:
        hand.prints("Connect to server")
    return master, hands


def test_standard_library_workers_and_ours_share_one_queue_and_end_in_good_order(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master, workers = begin(lab, False, True)
        master.say("put 1 2 3 4")
        master.say("collect 4 20")
        master.prints("collected", timeout_s=60)
        assert sorted(results(master)) == [1, 2, 3, 4], master.report()
        assert all("run task" in worker.out for worker in workers)
        stop(master)
        workers[0].ends_quietly()  # not in an EOFError
        assert "worker exit." in workers[0].out


def test_a_standard_library_worker_in_the_middle_of_a_task_at_the_masters_end_ends_in_good_order_too(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master, (worker,) = begin(lab, False)
        master.say("put 1")
        worker.prints("run task")
        stop(master)
        worker.ends_quietly()
        assert "worker exit." in worker.out


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_our_worker_takes_over_from_a_killed_standard_library_one(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master, (worker,) = begin(lab, False)
        master.say("put 1 2 3")
        worker.prints("run task", 2)
        worker.kill()
        lab.start("successor", program_text(WORKER))
        master.say("collect 3 20")
        master.prints("collected", timeout_s=60)
        assert sorted(results(master)) == [1, 2, 3], master.report()
        stop(master)
