"""The tutorial's programs with an engine URL for an address: their queues live in a server that outlives all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from .lab import Lab, Program, program_text
from .test_killed_workers import WORKER, results, stop
from .test_troubles import MASTER, changed

pytestmark = [pytest.mark.programs, pytest.mark.faults]

SERVER = """
import sys
import manyhands
with manyhands.serve("tcp://127.0.0.1:5959", "abc"):
    print("serving")
    sys.stdin.read()
"""
URL = '"tcp://127.0.0.1:5959"'


def start(lab: Lab) -> tuple[Program, str]:
    """A server and a master; the worker's source."""
    lab.start("server", SERVER).prints("serving")
    return start_master(lab, "master"), changed(program_text(WORKER), "(server_addr, 5000)", URL)


def start_master(lab: Lab, name: str) -> Program:
    master = lab.start(name, changed(program_text(MASTER), '("127.0.0.1", 5000)', URL))
    master.prints("ready")
    return master


def test_the_tutorials_programs_run_with_their_queues_in_a_server_and_a_killed_worker_loses_nothing(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master, worker = start(lab)
        master.say("put 1 2 3 4")
        first = lab.start("first", worker)
        first.prints("run task", 2)
        first.kill()
        lab.start("second", worker)
        master.say("collect 4 10")
        master.prints("collected", timeout_s=60)
        assert sorted(results(master)) == [1, 2, 3, 4], master.report()
        stop(master)


def test_tasks_and_results_outlive_a_killed_master(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master, worker = start(lab)
        master.say("put 1 2 3")
        master.prints("put 1 2 3")
        first = lab.start("first", worker)
        first.prints("run task")
        master.kill()
        first.prints("run task", 3)
        again = start_master(lab, "again")
        again.say("collect 3 10")
        again.prints("collected", timeout_s=60)
        assert sorted(results(again)) == [1, 2, 3], again.report()
        stop(again)
