"""A real process dies at each named place of the writer, or is killed anywhere; the store is opened and nothing is missing.

The same workload and the same checker as for the power cuts, but on every platform: a process that dies takes nothing
along that it had given to the operating system.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from manyhands.engines.sqlite.store import Store
from powercut.checker import complaints, told_in
from powercut.tracing import HERE, MARKS

pytestmark = pytest.mark.faults

FIRST_PUT = 4  # the commit that holds it: the three before are the three peers attaching
DIED = 137  # what _faults.crashpoint exits with


def start(folder: Path, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "workload.py"), str(folder), "7"]
    return subprocess.Popen(command, env={**os.environ, **environment}, stderr=subprocess.PIPE, text=True)


def stored_ids(folder: Path) -> set[str]:
    store = Store.open(folder / "jobs.db")
    try:
        return {stored.message.id for stored in store.load(0.0, watermark_kept_s=3600.0).messages}
    finally:
        store.close()


@pytest.mark.parametrize("nth", [1, 7, 40])
@pytest.mark.parametrize("place", ["commit.before", "commit.after", "effects.after", "checkpoint.before"])
def test_a_death_at_a_named_place_loses_and_doubles_nothing(tmp_path: Path, place: str, nth: int) -> None:
    if place == "checkpoint.before":
        nth = min(nth, 5)

    child = start(tmp_path, MANYHANDS_CRASH=f"{place}:{nth}")
    _, errors = child.communicate(timeout=60)

    assert child.returncode == DIED, errors
    assert list(complaints(tmp_path, told_in(tmp_path / MARKS))) == []


def test_between_the_commit_and_its_answers_the_disk_knows_more_than_anybody_was_told(tmp_path: Path) -> None:
    start(tmp_path, MANYHANDS_CRASH=f"commit.after:{FIRST_PUT}").communicate(timeout=60)

    known = told_in(tmp_path / MARKS)
    assert stored_ids(tmp_path) - known.puts, "the crash did not come between commit and answers"


def test_before_the_commit_the_disk_knows_nothing_that_nobody_was_told(tmp_path: Path) -> None:
    start(tmp_path, MANYHANDS_CRASH=f"commit.before:{FIRST_PUT}").communicate(timeout=60)

    known = told_in(tmp_path / MARKS)
    assert stored_ids(tmp_path) <= known.puts


@pytest.mark.parametrize("after_marks_bytes", [4_000, 20_000, 60_000])
def test_a_process_killed_in_full_work_loses_nothing(tmp_path: Path, after_marks_bytes: int) -> None:
    child = start(tmp_path)
    marks = tmp_path / MARKS
    deadline = time.monotonic() + 30
    while not (marks.exists() and marks.stat().st_size > after_marks_bytes):
        assert time.monotonic() < deadline, "the workload does not get on"
        time.sleep(0.001)
    child.kill()
    child.communicate(timeout=30)

    known = told_in(marks)
    assert known.puts
    assert list(complaints(tmp_path, known)) == []
