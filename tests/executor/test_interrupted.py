"""Ctrl-C in a program with an Executor: it ends at once, and what it had begun is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from manyhands.worker.crew import Crew
from programs.lab import Program, until

pytestmark = pytest.mark.programs

KEY = "a key of these tests, long enough"
SOON_S = 30.0
"""Far below what a call of these programs takes, far above what a loaded machine needs to end a program."""
POSIX = pytest.mark.skipif(os.name != "posix", reason="Windows has no way to send Ctrl-C to one program alone")

BEGIN = """
import asyncio, os, pathlib, signal, sys, time
import manyhands as mh

def hold(path, n):
    pathlib.Path(path, f"pid{n}").write_text(str(os.getpid()))
    time.sleep(300)

def begun():
    while len(list(pathlib.Path(".").glob("pid*"))) < 2:
        time.sleep(0.01)

def submit(executor):
    return [executor.submit(hold, os.getcwd(), n) for n in range(4)]
"""
IN_A_BLOCK = """
try:
    with mh.Executor(2, **options) as executor:
        futures = submit(executor)
        begun()
        signal.raise_signal(signal.SIGINT)
finally:
    print([future.cancelled() for future in futures])
"""
WITHOUT_A_BLOCK = """
executor = mh.Executor(2, **options)
futures = submit(executor)
begun()
signal.raise_signal(signal.SIGINT)
"""
IN_A_MAP = """
executor = mh.Executor(2, **options)
for _ in executor.map(hold, [os.getcwd()] * 4, range(4)):
    pass
"""
AT_ITS_END = """
executor = mh.Executor(2, **options)
futures = submit(executor)
begun()
print("the end")
"""
IN_ASYNCIO = """
async def main():
    async with mh.aio.Executor(2, **options) as executor:
        calls = submit(executor)
        await asyncio.to_thread(begun)
        signal.raise_signal(signal.SIGINT)
        await calls[0]

asyncio.run(main())
"""


def run(start: Start, tmp_path: Path, program: str, **options: object) -> Program:
    path = tmp_path / "program.py"
    path.write_text(f"{BEGIN}\noptions = {options!r}\n{program}", encoding="utf-8")
    return start("program", path)


def pids(tmp_path: Path) -> list[int]:
    return [int(text) for path in tmp_path.glob("pid*") if (text := path.read_text())]


def is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return False  # a job object ends children with their parent there
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("program", [IN_A_BLOCK, WITHOUT_A_BLOCK, IN_ASYNCIO], ids=["block", "plain", "asyncio"])
def test_ctrl_c_ends_a_program_whose_calls_run_for_long(start: Start, tmp_path: Path, program: str) -> None:
    running = run(start, tmp_path, program)
    assert running.ends(SOON_S) != 0
    assert "KeyboardInterrupt" in running.err, running.report()
    assert running.err.count("Traceback") <= 2, running.report()  # children print none
    if program is IN_A_BLOCK:
        assert running.out == "[True, True, True, True]\n"
    until(lambda: not any(map(is_alive, pids(tmp_path))), "the children end")


@POSIX
@pytest.mark.parametrize("program", [IN_A_MAP, AT_ITS_END], ids=["map", "end"])
def test_ctrl_c_ends_a_program_that_waits_for_its_calls(start: Start, tmp_path: Path, program: str) -> None:
    running = run(start, tmp_path, program)
    until(lambda: len(pids(tmp_path)) == 2 and (program is IN_A_MAP or "the end" in running.out), "two calls run")
    running.process.send_signal(signal.SIGINT)
    running.ends(SOON_S)
    assert "Exception ignored" not in running.err, running.report()
    until(lambda: not any(map(is_alive, pids(tmp_path))), "the children end")


@pytest.mark.parametrize("keep_result_s", [0.0, 600.0], ids=["its own", "kept"])
def test_ctrl_c_stops_calls_of_a_cluster_unless_their_results_are_kept(
    start: Start, tmp_path: Path, keep_result_s: float
) -> None:
    with mh.serve("tcp://127.0.0.1:0", KEY) as server:
        crew = Crew(server.url, server._keyring, queues=["default"], size=2)
        crew.start()
        try:
            running = run(start, tmp_path, IN_A_BLOCK, url=server.url, authkey=KEY, keep_result_s=keep_result_s)
            assert running.ends(SOON_S) != 0
            if keep_result_s:
                until(lambda: {c.pid for c in crew.children if c.is_busy} == set(pids(tmp_path)), "both go on")
            else:
                until(lambda: len(pids(tmp_path)) == 2 and not any(c.is_busy for c in crew.children), "both are stopped")
        finally:
            crew.close()
    assert not [thread for thread in threading.enumerate() if "executor" in thread.name]
