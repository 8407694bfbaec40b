"""Dozens of machines: workers in network namespaces of their own share one master's tasks, come late, leave early."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from examples.test_machines import why_not

PROGRAM = Path(__file__).with_name("many_machines.py")
IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
MACHINES = 24
TASKS = int(os.environ.get("MANYHANDS_MACHINES_TASKS", "24000" if IS_NIGHTLY else "4800"))


@pytest.mark.programs
def test_twenty_four_machines_share_the_work_fairly_and_come_and_go_without_loss() -> None:
    if reason := why_not():
        pytest.skip(f"{MACHINES} machines cannot be made here: {reason}")
    done = subprocess.run(
        ["unshare", "--net", "--mount", sys.executable, str(PROGRAM), str(MACHINES), str(TASKS)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    report = json.loads(done.stdout)
    print({key: value for key, value in report.items() if key != "ends"})
    assert (report["seen"], report["wrong"]) == (TASKS, 0), "lost, invented or run for another"
    shares = report["shares"]
    assert len(shares) == MACHINES - 2
    fair = statistics.mean(shares.values())
    assert all(abs(share / fair - 1) <= 0.10 for share in shares.values()), shares
    assert report["late_busy_after_ready_s"] < 1.0
    assert report["counts"][f"m{MACHINES - 1}"] > 0
    assert report["ran_after_leaving_s"] < 1.0, "it took more than it had in hand after it was told to leave"
    assert {name: end for name, end in report["ends"].items() if end != {"code": 0, "stderr": ""}} == {}
