"""The contract suite goes red for each bug that it guards against, and is green without."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def run_contract(which: str, *, planted: str = "") -> subprocess.CompletedProcess[str]:
    """The chosen tests of the suite in a process of their own, with one bug planted."""
    command = [sys.executable, "-m", "pytest", str(HERE / "test_contract.py"), "-q", "-p", "no:cacheprovider", "-k", which]
    environment = os.environ | {"MANYHANDS_PLANT": planted}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=HERE)


@pytest.mark.parametrize(
    ("bug", "which", "red"),
    [
        ("no_fencing", "TestMemory and woke_too_late", "test_a_worker_that_woke_too_late_cannot_settle"),
        ("no_fencing", "TestRemoteSqlite and woke_too_late", "test_a_worker_that_woke_too_late_cannot_settle"),
        ("dedupe_lost_at_restart", "TestSqlite and sent_again_after_a_restart", "test_a_put_sent_again_after_a_restart"),
        ("dedupe_lost_at_restart", "TestSqlite and callers_id", "test_a_callers_id_is_remembered_across_a_restart"),
    ],
)
def test_the_suite_is_red_with_the_bug_and_green_without(bug: str, which: str, red: str) -> None:
    green = run_contract(which)
    assert green.returncode == 0, green.stdout + green.stderr
    assert " passed" in green.stdout, "no test was chosen"
    sick = run_contract(which, planted=bug)
    assert sick.returncode == 1, f"{bug} was not found\n{sick.stdout}"
    failed = [line for line in sick.stdout.splitlines() if line.startswith("FAILED")]
    assert any(red in line for line in failed), sick.stdout
