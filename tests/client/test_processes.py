"""How a process ends decides what becomes of the message it had; and no process ever uses another's session."""

from __future__ import annotations

import multiprocessing
import os
import queue as stdlib_queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.auth import Keyring
from manyhands.client import Client, Queue
from manyhands.engines.memory import MemoryEngine
from manyhands.server import SocketServer
from manyhands.serving import Server

from .conftest import KEY, LIMITS, Place, numbers, session_of, until

METHODS = multiprocessing.get_all_start_methods()

WORKER = """
import os, signal, sys
import manyhands as mh
queue = mh.connect({url!r}, {key!r}).queue("q")
print(queue.get(timeout=10), flush=True)
{end}
"""


def run_worker(place: Place, end: str) -> subprocess.CompletedProcess[str]:
    program = WORKER.format(url=place.url, key=KEY, end=end)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)


@pytest.mark.programs
@pytest.mark.parametrize("end", ["pass", "sys.exit()", "sys.exit(0)", "exit(0)"])
def test_a_program_that_ends_normally_is_done_with_its_last_message(remote_place: Place, end: str) -> None:
    client = remote_place.client()
    client.queue("q").put("item")
    done = run_worker(remote_place, end)
    assert (done.stdout, done.stderr, done.returncode) == ("item\n", "", 0)
    assert (numbers(client).done_total, numbers(client).ready) == (1, 0)


@pytest.mark.programs
@pytest.mark.parametrize(
    ("end", "attempt"),
    [
        ("sys.exit(3)", 2),
        ("sys.exit('what went wrong')", 2),
        ("raise RuntimeError('boom')", 2),
        ("os._exit(0)", 2),
        ("raise KeyboardInterrupt", 1),
    ],
)
def test_a_program_that_fails_gives_its_message_back(remote_place: Place, end: str, attempt: int) -> None:
    client = remote_place.client()
    client.queue("q").put("item")
    run_worker(remote_place, end)
    with client.queue("q").receive(timeout=5) as received:
        assert (received.value, received.attempt) == ("item", attempt)


@pytest.mark.programs
@pytest.mark.faults
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL; os._exit above is the same to us")
def test_a_program_killed_in_the_middle_of_a_task_loses_nothing(remote_place: Place) -> None:
    client = remote_place.client()
    client.queue("q").put_many(["first", "second"])
    run_worker(remote_place, "os.kill(os.getpid(), signal.SIGKILL)")
    until(lambda: numbers(client).leased == 0)
    assert [client.queue("q").get(timeout=5) for _ in range(2)] == ["first", "second"]


@pytest.mark.programs
@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT is sent as on POSIX")
def test_ctrl_c_in_a_waiting_get_leaves_no_ghost(remote_place: Place) -> None:
    client = remote_place.client()
    program = WORKER.format(url=remote_place.url, key=KEY, end="")
    worker = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    until(lambda: numbers(client).waiting == 1, 20)
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=20)
    until(lambda: numbers(client).waiting == 0)
    client.queue("q").put("for the living")
    assert client.queue("q").get(timeout=5) == "for the living"


DAEMONS = """
import threading, time
import manyhands as mh
client = mh.connect({url!r}, {key!r})
client.queue("q").put_many(range(3))
def work():
    while True:
        client.queue("q").get()
        client.queue("q").task_done()
for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
client.queue("q").join()
"""


@pytest.mark.programs
def test_daemon_threads_that_wait_at_the_end_of_a_program_leave_no_traceback(remote_place: Place) -> None:
    program = DAEMONS.format(url=remote_place.url, key=KEY)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


# -- multiprocessing ---------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[Server]:
    engine, keyring = MemoryEngine(LIMITS), Keyring(KEY)
    with Server(engine, SocketServer(engine, port=0, keyring=keyring), keyring) as server:
        yield server


def take_and_end(queue: Queue, end: str) -> None:
    queue.get(timeout=10)
    if end == "raise":
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - the traceback is expected
        raise RuntimeError("boom")
    if end != "return":
        sys.exit(int(end))


@pytest.mark.programs
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("end", "is_done"), [("return", True), ("0", True), ("3", False), ("raise", False)])
def test_in_multiprocessing_children_the_exit_code_decides(server: Server, method: str, end: str, is_done: bool) -> None:
    queue = server.queue("q")
    queue.put("item")
    child = multiprocessing.get_context(method).Process(target=take_and_end, args=(queue, end))
    child.start()
    child.join(30)
    if is_done:
        with pytest.raises(stdlib_queue.Empty):
            queue.get(timeout=0.2)
    else:
        with queue.receive(timeout=5) as received:
            assert (received.value, received.attempt) == ("item", 2)


def echo(queue: Queue, results: Queue) -> None:
    results.put((os.getpid(), queue.get(timeout=10)))


@pytest.mark.programs
@pytest.mark.parametrize("method", METHODS)
def test_a_child_uses_a_session_of_its_own_and_leaves_its_parents_lease_alone(server: Server, method: str) -> None:
    queue, results = server.queue("q"), server.queue("r")
    queue.put_many([1, 2])
    assert queue.get() == 1
    child = multiprocessing.get_context(method).Process(target=echo, args=(queue, results))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert results.get(timeout=5) == (child.pid, 2)
    client = server.client()
    until(lambda: numbers(client).done_total == 1)
    assert numbers(client).leased == 1  # the parent's, untouched by the child's end
    client.close()


@pytest.mark.programs
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn that threads are running
def test_a_fork_while_other_threads_use_the_client_does_not_hang(server: Server) -> None:
    queue = server.queue("q")
    stop = threading.Event()

    def keep_busy() -> None:
        while not stop.is_set():
            queue.put(0)
            queue.get()

    threads = [threading.Thread(target=keep_busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for i in range(5):
            pid = os.fork()
            if pid == 0:
                try:
                    server.queue("from children").put(i)
                    queue._client.close()
                    os._exit(0)
                finally:
                    os._exit(1)
            deadline = time.monotonic() + 20
            while os.waitpid(pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    pytest.fail("the child hangs")
                time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(10)
    children = server.queue("from children")
    assert sorted(children.get(timeout=5) for _ in range(5)) == list(range(5))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_that_ends_says_nothing_for_its_parent(remote_place: Place) -> None:
    client: Client = remote_place.client()
    client.queue("q").put(1)
    client.queue("q").get()
    pid = os.fork()
    if pid == 0:
        try:
            client.close()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert session_of(client).port.attached
    other: Any = remote_place.client()
    time.sleep(0.2)  # longer than resume_s: a broken connection would have given it back by now
    assert numbers(other).leased == 1
    client.close()
    assert numbers(other).done_total == 1
