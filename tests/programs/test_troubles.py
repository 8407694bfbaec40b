"""What befalls the tutorial's programs in practice: a wrong key, a worker that is early or left alone, a master killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from .lab import Lab, Program, program_text
from .test_killed_workers import WORKER, results, start_master, stop

pytestmark = pytest.mark.programs

MASTER = "masters/commanded.py"


def changed(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, f"{old!r} must be there exactly once"
    return text.replace(old, new)


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def test_a_worker_with_another_key_does_not_get_in_and_both_sides_say_why(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = start_master(lab, ours=True)
        master.say("put 1")
        stranger = lab.start("stranger", changed(program_text(WORKER), "b'abc'", "b'another'"))
        began = time.monotonic()
        assert stranger.ends() == 1
        assert time.monotonic() - began < 8, "a wrong key must not be tried again and again"
        assert "AuthenticationFailed" in last_line(stranger.err)
        assert "authkey" in last_line(stranger.err)
        assert "run task" not in stranger.out
        master.say("waiting")
        master.prints("waiting: 1")
        master.say("stop")
        assert master.ends() == 0
        said = master.err.strip().splitlines()
        assert len(said) == 1, master.report()
        assert "authkey" in said[0]


def test_a_worker_started_before_its_master_waits_for_it(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        worker = lab.start("worker", program_text(WORKER))
        worker.prints("Connect to server")
        # The wait itself is the point: the standard library's worker would have ended by now.
        time.sleep(3)
        assert worker.process.poll() is None, worker.report()
        master = start_master(lab, ours=True)
        master.say("put 3 4")
        master.say("collect 2 8")
        master.prints("collected")
        assert sorted(results(master)) == [3, 4]
        stop(master)
        assert worker.ends() == 0, worker.report()
        assert all("Nobody answers at 127.0.0.1:5000 yet" in line for line in worker.err.splitlines()), worker.report()


def test_a_worker_without_a_master_ends_with_one_sentence_that_says_what_to_check(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        began = time.monotonic()
        worker = lab.start("worker", program_text(WORKER))
        assert worker.ends(30) == 1
        assert time.monotonic() - began > 9
        assert "ServerUnavailable" in last_line(worker.err), worker.report()
        assert "127.0.0.1:5000" in last_line(worker.err)


def test_a_worker_left_alone_after_shutdown_ends_quietly(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = start_master(lab, ours=True)
        worker = lab.start("worker", program_text(WORKER))
        master.say("put 5")
        master.say("collect 1 10")
        master.prints("collected")
        stop(master)
        worker.ends_quietly()
        assert worker.out.count("task queue is empty.") == 9, worker.report()


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_master_killed_and_restarted_on_sqlite_loses_nothing_and_its_worker_goes_on_by_itself(tmp_path: Path) -> None:
    text = changed(program_text(MASTER), 'authkey=b"abc"', 'authkey=b"abc", store="sqlite:///jobs.db"')
    with Lab(tmp_path) as lab:
        first = lab.start("first_master", text)
        first.prints("ready")
        worker = lab.start("worker", program_text(WORKER))
        first.say("put 1 2 3 4 5 6")
        first.say("collect 2 8")
        first.prints("collected")
        worker.prints("run task", 3)
        first.kill()
        second = lab.start("second_master", text)
        second.prints("ready")
        collect_all(second, 6 - len(results(first)) + 1)
        assert set(results(first)) | set(results(second)) == {1, 2, 3, 4, 5, 6}, first.report() + second.report()
        # The last result that the first master got was in its hands when it died, so it may come again; no other may.
        repeated = set(results(first)) & set(results(second))
        assert repeated <= {results(first)[-1]}
        assert len(results(second)) == len(set(results(second)))
        second.say("stop")
        assert second.ends() == 0
        # It asked for one more than there was, for longer than the worker stayed.
        assert all("no worker is connected" in line for line in second.err.splitlines()), second.report()
        worker.ends_quietly()


def collect_all(master: Program, at_most: int) -> None:
    master.say(f"collect {at_most} 6")
    master.prints("collected", timeout_s=60)
