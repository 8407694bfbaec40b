"""Many standard-library clients at once: everybody is served, by the same few threads, and costs little memory."""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Start
from manyhands.managers import BaseManager

pytestmark = [pytest.mark.programs]

CROWD = Path(__file__).parent / "programs" / "crowd.py"


@pytest.fixture
def port() -> Iterator[int]:
    task: queue.Queue[Any] = queue.Queue()

    class QueueManager(BaseManager):
        pass

    QueueManager.register("task", callable=lambda: task)
    manager: Any = QueueManager(("127.0.0.1", 0), authkey=b"abc")
    manager.start()
    manager.task()
    yield manager.address[1]
    manager.shutdown()


def test_150_clients_that_connect_at_the_same_moment_are_all_served(start: Start, port: int) -> None:
    before = threading.active_count()
    crowd = start("crowd", CROWD, port, "at-once", 150)
    peak = before
    while crowd.process.poll() is None:
        peak = max(peak, threading.active_count())
        threading.Event().wait(0.02)
    assert crowd.ends() == 0, crowd.report()
    assert crowd.out.startswith("served 150 in "), crowd.report()
    assert peak <= before + 2  # one opens sessions


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_1000_connected_clients_need_no_threads_and_little_memory(start: Start, port: int) -> None:
    import resource  # not on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 1_200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4_096, hard), hard))
    before, threads = _resident_bytes(), threading.active_count()
    crowd = start("crowd", CROWD, port, "connected", 1_000)
    crowd.prints("connected", timeout_s=60)
    each = (_resident_bytes() - before) / 1_000
    assert threading.active_count() <= threads + 2
    assert each < 20_000, f"{each:.0f} bytes for each client"
    crowd.say("go on")
    assert crowd.ends() == 0, crowd.report()
    assert "served 1000 in" in crowd.out


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
