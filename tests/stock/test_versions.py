"""Unmodified standard-library programs of every Python that this machine has, at our master."""

from __future__ import annotations

import os
import queue
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from manyhands.managers import BaseManager
from programs.interpreters import Absent, bare_python
from programs.lab import Program, until

pytestmark = [pytest.mark.programs]

HERE = Path(__file__).parent / "programs"
VERSIONS = ["3.8", "3.9", "3.10", "3.11", "3.12", "3.13", "3.14"]
Run = Callable[..., Program]


@pytest.fixture(params=VERSIONS)
def python(request: pytest.FixtureRequest) -> Path:
    try:
        return bare_python(request.param)
    except Absent as absent:
        pytest.skip(str(absent))


class Master:
    """Our master in this process, with three queues."""

    def __init__(self) -> None:
        self.task: queue.Queue[Any] = queue.Queue()
        self.result: queue.Queue[Any] = queue.Queue()
        self.small: queue.Queue[Any] = queue.Queue(2)

        class QueueManager(BaseManager):
            pass

        for name in ("task", "result", "small"):
            QueueManager.register(name, callable=lambda name=name: getattr(self, name))
        self.manager: Any = QueueManager(("127.0.0.1", 0), authkey=b"abc")
        self.manager.start()
        for name in ("task", "result", "small"):
            getattr(self.manager, name)()
        self.port = self.manager.address[1]


@pytest.fixture
def master() -> Iterator[Master]:
    master = Master()
    yield master
    master.manager.shutdown()


@pytest.fixture
def run(tmp_path: Path, master: Master, python: Path) -> Iterator[Run]:
    """Starts a program with the standard library's Python of the test."""
    with ExitStack() as stack:

        def run(name: str, program: str) -> Program:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
            made = Program(name, [str(python), str(HERE / program), str(master.port)], tmp_path, environment)
            stack.callback(made.sweep)
            return made

        yield run


def test_a_standard_library_client_of_any_version_does_all_that_queues_can(run: Run, master: Master) -> None:
    client = run("client", "round_trips.py")
    assert master.result.get(timeout=30) == "ready", client.report()
    master.small.put(b"raw")
    master.small.put({"from": "the master"})
    master.small.put("x" * 3_000_000)
    assert master.result.get(timeout=30) == "stop", client.report()
    master.task.shutdown()  # type: ignore[attr-defined]
    master.small.shutdown()  # type: ignore[attr-defined]
    assert client.ends() == 0, client.report()
    assert (client.out, client.err) == ("all is well\n", "")


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_standard_library_worker_of_any_version_killed_in_the_middle_of_a_task_loses_nothing(
    run: Run, master: Master
) -> None:
    worker = run("worker", "worker.py")
    worker.prints("connected")
    for n in (1, "slow", 3):
        master.task.put(n)
    assert master.result.get(timeout=30) == 1
    worker.prints("begins slow")
    worker.kill()
    until(lambda: master.task.qsize() == 2, "what it had comes back")
    assert [master.task.get(timeout=30), master.task.get(timeout=30)] == ["slow", 3]  # in their old order
    assert master.task.empty()


@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_standard_library_worker_of_any_version_killed_while_blocked_in_get_loses_nothing(
    run: Run, master: Master
) -> None:
    worker = run("worker", "worker.py")
    worker.prints("empty")
    worker.process.send_signal(signal.SIGSTOP)  # so that it dies within a get, whatever the moment
    worker.process.send_signal(signal.SIGKILL)
    worker.process.wait()
    master.task.put(7)
    assert master.task.get(timeout=30) == 7


def test_a_standard_library_worker_interrupted_by_ctrl_c_acknowledges_what_it_had_let_go(run: Run, master: Master) -> None:
    worker = run("worker", "worker.py")
    master.task.put("slow")
    worker.prints("begins slow")
    worker.process.send_signal(signal.SIGINT)
    worker.ends()
    # An exception unwinds the program, which lets its proxies go as at any other end: it cannot be told apart.
    proxy = master.manager.task()
    until(lambda: proxy._stats().leased == 0, "its lease ends")
    assert master.task.empty()
