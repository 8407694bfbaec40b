"""A master that offers a queue with an order of its own; workers of either library are killed in a task, or in a get."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .lab import Lab, Program, program_text, until
from .test_killed_workers import WORKER, results, stop
from .test_troubles import MASTER, changed

pytestmark = [pytest.mark.programs, pytest.mark.faults]

OURS, STOCK = True, False


def start_master(lab: Lab, kind: str) -> Program:
    text = program_text(MASTER)
    master = lab.start(
        "master", changed(text, "task_queue: queue.Queue[int] = queue.Queue()", f"task_queue = queue.{kind}()")
    )
    master.prints("ready")
    return master


def worker_text(is_ours: bool) -> str:
    return changed(program_text(WORKER, ours=is_ours), "time.sleep(1)", "time.sleep(0.3)")


def waiting(master: Program) -> int:
    """How many tasks nobody has taken."""
    asked = master.out.count("waiting:")
    master.say("waiting")
    master.prints("waiting:", asked + 1)
    return int(re.findall(r"waiting: (\d+)", master.out)[-1])


@pytest.mark.parametrize(
    ("is_ours", "kind", "order"),
    [(OURS, "PriorityQueue", [1, 2, 3]), (STOCK, "PriorityQueue", [1, 2, 3]), (OURS, "SimpleQueue", [3, 1, 2])],
)
def test_a_worker_killed_in_the_middle_of_a_task_loses_nothing_of_a_queue_that_stays_an_object(
    is_ours: bool, kind: str, order: list[int], tmp_path: Path
) -> None:
    with Lab(tmp_path) as lab:
        master = start_master(lab, kind)
        master.say("put 3 2 1")
        master.prints("put 3 2 1")
        first = lab.start("first", worker_text(is_ours))
        first.prints("run task", 2)
        first.kill()
        until(lambda: waiting(master) == 2, "the killed worker's task is back")
        lab.start("second", worker_text(is_ours))
        master.say("collect 3 10")
        master.prints("collected", timeout_s=60)
        assert results(master) == order, master.report()
        stop(master)


@pytest.mark.parametrize(("is_ours", "kind"), [(OURS, "SimpleQueue"), (STOCK, "SimpleQueue"), (STOCK, "PriorityQueue")])
def test_a_worker_killed_while_it_waits_takes_nothing_of_a_queue_that_stays_an_object(
    is_ours: bool, kind: str, tmp_path: Path
) -> None:
    with Lab(tmp_path) as lab:
        master = start_master(lab, kind)
        waits_long = changed(worker_text(is_ours), "task.get(timeout=1)", "task.get(timeout=60)")
        first = lab.start("first", changed(waits_long, "for i in range(10):", "print('waits')\nfor i in range(10):"))
        first.prints("waits")
        second = lab.start("second", worker_text(is_ours))
        second.prints("task queue is empty.")  # so the first one's get has been there for a second
        first.kill()
        master.say("put 7 8 9")  # while the second one works on the first, only the dead one's get would be there
        master.say("collect 3 5")
        master.prints("collected", timeout_s=60)
        assert sorted(results(master)) == [7, 8, 9], master.report()
        stop(master)
