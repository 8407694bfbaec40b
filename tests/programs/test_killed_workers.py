"""The tutorial's worker, its source unchanged but for the import, killed with SIGKILL at the worst moments.

The same three moments are shown on the standard library, which loses the item in two of them: a test that cannot fail
proves nothing.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest

from .lab import Lab, Program, program_text

pytestmark = [
    pytest.mark.programs,
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL"),
]

WORKER = "seeds/task_worker_windows.py"
GET = "n = task.get(timeout=1)"


def start_master(lab: Lab, *, ours: bool) -> Program:
    master = lab.start("master", program_text("masters/commanded.py", ours=ours))
    master.prints("ready")
    return master


def results(master: Program) -> list[int]:
    """The numbers whose squares the master has printed, in order."""
    return [int(number) for number in re.findall(r"^Result: (\d+) \* ", master.out, re.MULTILINE)]


def stop(master: Program) -> None:
    master.say("stop")
    master.ends_quietly()


def kill_in_the_middle_of_a_task(lab: Lab, *, ours: bool) -> Program:
    """Six tasks, two workers, one killed while it runs its second task."""
    worker = program_text(WORKER, ours=ours)
    master = start_master(lab, ours=ours)
    first, second = lab.start("first", worker), lab.start("second", worker)
    first.prints("Connect to server")
    second.prints("Connect to server")
    master.say("put 1 2 3 4 5 6")
    first.prints("run task", 2)
    first.kill()
    master.say("collect 6 5")
    master.prints("collected", timeout_s=60)
    return master


def kill_while_blocked_in_get(lab: Lab, *, ours: bool) -> Program:
    """A worker killed while it waits in get; the task put a moment later finds its connection dead."""
    worker = program_text(WORKER, ours=ours)
    master = start_master(lab, ours=ours)
    first = lab.start("first", worker)
    first.prints("task queue is empty.")
    time.sleep(0.3)  # it waits for a second again, and nothing shows from when on
    first.kill()
    master.say("put 7")
    master.prints("put 7")
    lab.start("second", worker)
    master.say("collect 1 6")
    master.prints("collected")
    return master


def kill_between_a_put_and_the_next_get(lab: Lab, *, ours: bool) -> Program:
    """A worker that dies after its second result.put returned and before its third task.get began."""
    worker = program_text(WORKER, ours=ours)
    master = start_master(lab, ours=ours)
    master.say("put 1 2 3 4 5 6")
    first = lab.start("first", worker, die_at=(GET, 3))
    assert first.ends() == -9
    assert first.out.count("run task") == 2
    lab.start("second", worker)
    master.say("collect 6 5")
    master.prints("collected", timeout_s=60)
    return master


def test_a_worker_killed_in_the_middle_of_a_task_loses_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = kill_in_the_middle_of_a_task(lab, ours=True)
        assert sorted(results(master)) == [1, 2, 3, 4, 5, 6], master.report()
        stop(master)


def test_a_worker_killed_while_blocked_in_get_loses_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = kill_while_blocked_in_get(lab, ours=True)
        assert results(master) == [7], master.report()
        stop(master)


def test_a_worker_killed_between_a_put_and_its_next_get_loses_and_repeats_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = kill_between_a_put_and_the_next_get(lab, ours=True)
        assert sorted(results(master)) == [1, 2, 3, 4, 5, 6], master.report()
        master.say("collect 1 2")  # nothing may come twice
        master.prints("collected", 2)
        assert len(results(master)) == 6, master.report()
        stop(master)


def test_the_standard_library_loses_the_task_of_a_worker_killed_in_the_middle_of_it(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = kill_in_the_middle_of_a_task(lab, ours=False)
        assert master.out.count("missing") == 1, master.report()
        assert len(set(results(master))) == 5


def test_the_standard_library_loses_the_next_task_after_a_worker_killed_while_blocked_in_get(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = kill_while_blocked_in_get(lab, ours=False)
        assert results(master) == [], master.report()
        master.say("waiting")
        master.prints("waiting: 0")  # taken from the queue, and nobody has it
