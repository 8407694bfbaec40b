"""Unmodified standard-library programs of every Python that this machine has, at our master."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from manyhands.managers import BaseManager
from manyhands.managers.stock import hosts
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
def run(tmp_path: Path, python: Path) -> Iterator[Run]:
    """Starts a program with the Python of the test, which has nothing but its standard library."""
    with ExitStack() as stack:

        def run(program: str, *arguments: object) -> Program:
            environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
            command = [str(python), str(HERE / f"{program}.py"), *map(str, arguments)]
            made = Program(program, command, tmp_path, environment)
            stack.callback(made.sweep)
            return made

        yield run


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def blocks_in_get(worker: Program) -> None:
    """Wait until a worker that has said that it asks sleeps in the answer's read."""
    worker.prints("asks")
    stat, quiet = Path(f"/proc/{worker.process.pid}/stat"), 0
    while quiet < 10:
        quiet = quiet + 1 if stat.read_text().rpartition(") ")[2].startswith("S") else 0
        time.sleep(0.01)


def test_a_standard_library_client_of_any_version_does_all_that_queues_can(run: Run, master: Master) -> None:
    client = run("round_trips", master.port)
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
    worker = run("worker", master.port)
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
    worker = run("worker", master.port, 60)
    proxy = master.manager.task()
    until(lambda: proxy._stats().waiting == 1, "it waits")
    worker.kill()
    until(lambda: proxy._stats().waiting == 0, "it is withdrawn")
    master.task.put(7)
    assert master.task.get(timeout=30) == 7


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="kills, and reads /proc")
def test_the_standard_librarys_own_master_loses_both(run: Run) -> None:
    """The same two deaths, which the two tests above must be able to fail at."""
    port = free_port()
    master = run("stock_master", port)
    master.prints("ready")
    first = run("worker", port)
    first.prints("connected")
    master.say("put slow")
    first.prints("begins slow")
    first.kill()
    second = run("worker", port, 60)
    blocks_in_get(second)  # "slow" did not come back for it
    second.kill()
    master.say("put 7")
    master.prints("put", 2)
    master.say("left")
    master.prints("left: 0 tasks, 0 results")
    master.say("stop")
    master.ends()


def test_a_standard_library_worker_interrupted_by_ctrl_c_acknowledges_what_it_had_let_go(
    run: Run, master: Master, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosts, "RECENT_S", 20.0)  # on a machine that does more than this test
    worker = run("worker", master.port)
    master.task.put("slow")
    worker.prints("begins slow")
    worker.process.send_signal(signal.SIGINT)
    worker.ends()
    # An exception unwinds the program, which lets its proxies go as at any other end: it cannot be told apart.
    proxy = master.manager.task()
    until(lambda: proxy._stats().leased == 0, "its lease ends")
    assert master.task.empty()
