"""A crew in a program of its own: how its children are started, and that it leaves nothing."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Start
from manyhands.auth import Keyring
from manyhands.worker import block
from manyhands.worker.crew import Crew
from worker import chores
from worker.caller import eventually
from worker.cluster import Cluster, children_of, is_alive

pytestmark = pytest.mark.programs


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path) as made:
        yield made


def crew_of(cluster: Cluster, size: int = 1, **options: Any) -> Crew:
    return Crew(cluster.server.address, cluster.keyring, engine=cluster.engine, queues=["default"], size=size, **options)


METHODS = [name for name in multiprocessing.get_all_start_methods() if name != "fork"]


@pytest.mark.parametrize("method", METHODS)
def test_children_are_started_by_a_context_that_is_given(cluster: Cluster, method: str) -> None:
    crew = crew_of(cluster, context=multiprocessing.get_context(method), initializer=chores.remember, initargs=(method,))
    crew.start()
    try:
        assert cluster.caller.result(cluster.caller.submit(chores.remembered)) == method
        (child,) = crew.children
        assert child.pid == cluster.caller.result(cluster.caller.submit(chores.pid))
    finally:
        crew.close()
    assert crew.children == []


def test_children_are_started_as_they_are_wanted(cluster: Cluster) -> None:
    crew = crew_of(cluster, size=3)
    crew.start(1)
    try:
        cluster.caller.result(cluster.caller.submit(chores.add, 1, 2))
        assert len(crew.children) == 1
        crew.start(9)
        eventually(lambda: [child.state for child in crew.children] == ["ready"] * 3, "all three work")
    finally:
        crew.close()


def test_an_initializer_that_raises_is_told_in_one_sentence_and_tried_with_pauses(cluster: Cluster) -> None:
    heard = threading.Event()
    crew = crew_of(cluster, size=4, initializer=chores.refuse, on_change=lambda: heard.set() if crew.failure else None)
    crew.start()
    try:
        assert heard.wait(20)
        assert "the license server said no" in crew.failure
        assert not crew.has_been_ready
        assert "\n" not in crew.failure
    finally:
        crew.close()


def test_a_system_that_starts_no_process_is_told_and_tried_again(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tries = threading.Semaphore(0)

    def refuse(settings: object) -> None:
        tries.release()
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("manyhands.worker.crew.starter", lambda context: refuse)
    monkeypatch.setattr(block, "_folder", lambda: str(tmp_path))
    crew = crew_of(cluster)
    crew.start()
    try:
        assert all(tries.acquire(timeout=20) for _ in range(2))
        assert "could not be started (BlockingIOError: [Errno 11] Resource temporarily" in crew.failure
    finally:
        crew.close()
    assert not list(tmp_path.glob("*.block"))


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc to see what is left")
def test_a_closed_crew_leaves_no_process_no_thread_no_descriptor_and_no_file(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block, "_folder", lambda: str(tmp_path))
    left: list[Any] = []
    for _ in range(2):  # after the first, the server has what it makes when it is first asked
        crew = crew_of(cluster, size=2)
        crew.start()
        cluster.caller.result(cluster.caller.submit(chores.add, 1, 2))
        pids = [child.pid for child in crew.children]
        assert len(pids) == 2
        assert set(pids) <= set(children_of(os.getpid()))
        crew.close()
        crew.close()
        assert not any(map(is_alive, pids))
        assert not list(tmp_path.glob("*.block"))
        left.append((set(threading.enumerate()), len(os.listdir("/proc/self/fd"))))
    assert left[0] == left[1]


FORKS = """
import os, sys, time
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.server import SocketServer
from manyhands.worker.crew import Crew
keyring = Keyring("a key")
engine = MemoryEngine()
server = SocketServer(engine, host="127.0.0.1", port=0, keyring=keyring)
server.start()
crew = Crew(server.address, keyring, engine=engine, queues=["default"], size=2)
crew.start()
while [child.state for child in crew.children] != ["ready", "ready"]:
    time.sleep(0.01)
forked = os.fork()
if forked:
    print(*[child.pid for child in crew.children], flush=True)
time.sleep(60)
"""


@pytest.mark.faults
@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc to see what is left")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_children_die_with_their_parent_though_a_copy_of_it_lives_on(start: Start) -> None:
    program = start("forks", "-W", "ignore::DeprecationWarning", "-c", FORKS)
    program.prints("\n")
    pids = list(map(int, program.out.split()))
    (copy,) = set(children_of(program.process.pid)) - set(pids)
    program.kill()
    eventually(lambda: not any(map(is_alive, pids)), "no child is left", timeout_s=5.0)
    assert is_alive(copy)


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="elsewhere this is the only way")
def test_without_a_pidfd_the_end_of_a_child_is_seen_as_well(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    crew = crew_of(cluster)
    crew.start()
    try:
        first = cluster.caller.result(cluster.caller.submit(chores.pid))
        os.kill(first, 9)
        eventually(lambda: [child.pid for child in crew.children if child.state == "ready"] not in ([], [first]), "another")
        assert cluster.caller.result(cluster.caller.submit(chores.pid)) != first
    finally:
        crew.close()


def test_a_crew_that_was_never_started_closes() -> None:
    with pytest.raises(ValueError, match="at least one child"):
        Crew("tcp://127.0.0.1:1", Keyring("a key"), queues=["default"], size=0)
    crew = Crew("tcp://127.0.0.1:1", Keyring("a key"), queues=["default"], size=1)
    crew.close()
    assert crew.wait(0)
