"""Our workers against a master that still runs the standard library: all that works there works, and nothing hangs."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing import managers as stock
from pathlib import Path
from typing import Any

import pytest

from manyhands.errors import (
    AuthenticationFailed,
    ProtocolError,
    ServerGone,
    ServerUnavailable,
    UnsupportedFeature,
    UsageError,
)
from manyhands.managers import BaseManager, SyncManager, stock_dialling, stock_master
from manyhands.managers import BaseProxy as OurBaseProxy
from programs.interpreters import Absent, bare_python
from programs.lab import freeze, until

MASTER = Path(__file__).parents[1] / "programs" / "masters" / "stock_objects.py"
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
KEY = "abc"

StartMaster = Callable[..., "StockMaster"]


class Worker(BaseManager):
    pass


for _name in ("get_tasks", "get_bounded", "get_plain_settings", "get_lock", "Counter", "Broken", "get_nothing"):
    Worker.register(_name)
Worker.register("get_settings", proxytype=stock.DictProxy)


class StockMaster:
    """One running master of the standard library."""

    def __init__(self, python: str | Path, port: int = 0, serializer: str = "pickle") -> None:
        command = [str(python), str(MASTER), KEY, str(port), serializer]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.address = ("127.0.0.1", int(self.process.stdout.readline()))

    def stop(self) -> str:
        """End it; what it printed on standard error."""
        if hasattr(signal, "SIGCONT"):
            self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        _, err = self.process.communicate()
        return err.decode()


@pytest.fixture
def start_master() -> Iterator[StartMaster]:
    masters: list[StockMaster] = []

    def start(python: str | Path = sys.executable, port: int = 0, serializer: str = "pickle") -> StockMaster:
        masters.append(StockMaster(python, port, serializer))
        return masters[-1]

    yield start
    for master in masters:
        master.stop()


@pytest.fixture
def manager(start_master: StartMaster) -> Iterator[Worker]:
    """A worker connected to a master of this Python's standard library."""
    made = connected(start_master())
    yield made
    made.shutdown()


def connected(master: StockMaster, key: str | bytes = KEY) -> Any:
    made = Worker(master.address, key)
    made.connect()
    return made


# -- everything of the standard library --------------------------------------------------------------------------------


@pytest.mark.programs
@pytest.mark.parametrize("version", VERSIONS)
def test_queues_and_objects_of_a_stock_master_work(version: str, start_master: StartMaster) -> None:
    try:
        master = start_master(bare_python(version))
    except Absent as absence:
        pytest.skip(str(absence))
    manager = connected(master)

    tasks, bounded = manager.get_tasks(), manager.get_bounded()
    tasks.put({"n": 1})
    tasks.put(bytes(3_000_000), timeout=5)
    assert tasks.qsize() == 2
    assert tasks.get(timeout=5) == {"n": 1}
    assert len(tasks.get()) == 3_000_000
    for ask in (lambda: tasks.get(timeout=0.01), lambda: tasks.get(False), tasks.get_nowait):
        with pytest.raises(queue.Empty):
            ask()
    bounded.put(1)
    with pytest.raises(queue.Full):
        bounded.put(2, timeout=0.01)
    for _ in range(2):
        tasks.task_done()
    tasks.join()
    with pytest.raises(ValueError, match="task_done"):
        tasks.task_done()

    settings, plain, lock = manager.get_settings(), manager.get_plain_settings(), manager.get_lock()
    settings["depth"] = 3
    assert (settings["depth"], plain.get("depth"), settings.copy()) == (3, 3, {"depth": 3})
    with pytest.raises(KeyError):
        settings["width"]
    assert lock.acquire()
    assert not lock.acquire(True, 0.01)
    lock.release()

    counter = manager.Counter(start=5)
    assert [counter.add(), counter.add(n=2)] == [6, 8]
    with pytest.raises(OSError, match="the disk is full"):
        counter.fail()
    with pytest.raises(stock.RemoteError, match="ZeroDivisionError"):
        manager.Broken()
    with pytest.raises(stock.RemoteError, match="get_nothing"):
        manager.get_nothing()
    with pytest.raises(AuthenticationFailed, match="another authkey"):
        connected(master, b"another")
    assert master.stop() == ""


def test_what_a_stock_master_cannot_promise_is_said_once_at_info(
    start_master: StartMaster, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "manyhands"):
        manager = connected(start_master())
        manager.get_tasks().put(1)
        manager.get_tasks().get()
    said = [record for record in caplog.records if record.name == stock_master.__name__]
    assert [record.levelname for record in said] == ["INFO"]
    assert "a task is lost with the worker" in said[0].getMessage()


def test_names_registered_after_connecting_are_known(manager: Any) -> None:
    type(manager).register("get_later")
    with pytest.raises(stock.RemoteError, match="get_later"):
        manager.get_later()


def test_each_thread_has_a_connection_of_its_own(manager: Any) -> None:
    tasks = manager.get_tasks()
    got: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: got.put(tasks.get(timeout=10)), daemon=True).start()
    tasks.put(7)
    assert got.get(timeout=10) == 7


def double(tasks: Any, settings: Any) -> None:
    settings["result"] = tasks.get(timeout=10) * 2


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of a fork beside threads
@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_proxies_go_to_a_child_as_arguments(method: str, manager: Any) -> None:
    tasks, settings = manager.get_tasks(), manager.get_settings()
    child = multiprocessing.get_context(method).Process(target=double, args=(tasks, settings))
    child.start()
    tasks.put(21)
    child.join(30)
    assert (child.exitcode, settings["result"]) == (0, 42)


def test_a_proxy_is_pickled_as_the_standard_librarys_own(manager: Any) -> None:
    _, (kind, *_) = manager.get_settings().__reduce__()
    assert kind is stock.DictProxy
    assert b"manyhands" not in pickle.dumps(manager.get_tasks())


TUTORIAL = """
import queue
try:
    tasks.get(timeout=0.01)
    handled = False
except Queue.Empty:
    handled = True
"""


def test_except_queue_empty_without_its_import_is_helped_here_too(manager: Any) -> None:
    namespace: dict[str, Any] = {"tasks": manager.get_tasks(), "__name__": "program"}
    exec(compile(TUTORIAL, "program.py", "exec"), namespace)
    assert namespace["handled"]


def test_after_shutdown_nothing_is_asked_any_more(manager: Any) -> None:
    manager.shutdown()
    with pytest.raises(UsageError, match="after shutdown"):
        manager.get_tasks()


class Own(OurBaseProxy):
    """A proxy class that a program derived from ours."""

    _exposed_ = ("add",)

    def add(self, n: int = 1) -> Any:
        return self._callmethod("add", (n,))


def test_a_sync_manager_has_all_of_its_kinds_at_a_stock_master(start_master: StartMaster) -> None:
    class Sync(SyncManager):
        pass

    Sync.register("Counter", proxytype=Own)
    manager: Any = Sync(start_master().address, KEY)
    manager.connect()
    numbers, settings, space = manager.list([1, 2]), manager.dict({"a": 1}), manager.Namespace(x=1)
    numbers += [3]
    settings["b"] = numbers  # travels as the standard library's own proxy: nothing of ours is there to rebuild it
    space.y = 2
    assert (list(numbers), sorted(settings.keys()), "a" in settings, next(iter(settings))) == (
        [1, 2, 3],
        ["a", "b"],
        True,
        "a",
    )
    assert (space.x, space.y) == (1, 2)
    lock, counter = manager.Lock(), manager.Counter(5)
    with lock:
        assert not lock.acquire(False)
    assert counter.add(2) == 7
    assert b"manyhands" not in b"".join(map(pickle.dumps, (numbers, settings, space, lock, counter)))
    rebuild, (kind, *_, options) = counter.__reduce__()
    assert (rebuild, kind, options["exposed"]) == (stock.RebuildProxy, stock.AutoProxy, ("add",))  # type: ignore[attr-defined]
    manager.shutdown()


# -- trouble -----------------------------------------------------------------------------------------------------------


def test_a_cut_connection_is_dialled_anew(manager: Any) -> None:
    tasks = manager.get_tasks()
    tasks.put(1)
    with socket.socket(fileno=os.dup(tasks._tls.connection.fileno())) as ours:
        ours.shutdown(socket.SHUT_RDWR)
    assert tasks.get(timeout=5) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="kills and stops by signals")
def test_a_master_that_ended_is_one_clear_error_each_time_in_time(start_master: StartMaster) -> None:
    master = start_master()
    manager = connected(master)
    tasks = manager.get_tasks()
    waiting: queue.Queue[Any] = queue.Queue()

    def wait() -> None:
        try:
            tasks.get(timeout=0.5)
        except Exception as error:
            waiting.put(error)

    threading.Thread(target=wait, daemon=True).start()
    master.stop()
    for ask in (lambda: tasks.put(1), lambda: tasks.get(timeout=0.2), tasks.qsize, manager.get_tasks):
        with pytest.raises(ServerGone, match=r"connect\(\)") as caught:
            ask()
        assert isinstance(caught.value, queue.Empty)
        assert isinstance(caught.value, EOFError)
    assert isinstance(waiting.get(timeout=5), ServerGone | queue.Empty)


def test_a_restarted_master_knows_an_old_proxy_no_more_and_a_new_manager_works(start_master: StartMaster) -> None:
    master = start_master()
    tasks = connected(master).get_tasks()
    master.stop()
    again = start_master(port=master.address[1])
    with pytest.raises(ServerGone, match="restarted"):
        tasks.get(timeout=10)
    fresh = connected(again).get_tasks()
    fresh.put(1)
    assert fresh.get(timeout=5) == 1


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs SIGSTOP")
def test_a_frozen_master_holds_no_call_that_has_a_timeout(
    start_master: StartMaster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_master, "_ANSWER_S", 0.2)
    monkeypatch.setattr(stock_dialling, "HANDSHAKE_S", 0.2)
    master = start_master()
    manager = connected(master)
    tasks = manager.get_tasks()
    assert tasks.qsize() == 0  # this thread has its connection
    freeze(master.process.pid)
    for ask in (lambda: tasks.get(timeout=0.1), lambda: tasks.put(1, timeout=0.1), manager.get_tasks):
        with pytest.raises(ServerGone):
            ask()
    monkeypatch.undo()
    master.process.send_signal(signal.SIGCONT)
    assert tasks.qsize() in (0, 1)  # whether the put was done nobody could know, nor who took what it put


def interrupted(call: Callable[[], Any], waits: Callable[[], bool]) -> None:
    def interrupt() -> None:
        until(waits, "the call waits")
        signal.pthread_kill(main, signal.SIGINT)

    main = threading.get_ident()
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        call()


@pytest.mark.skipif(sys.platform == "win32", reason="a blocked read there ends no sooner for Ctrl-C")
def test_an_interrupted_call_leaves_no_answer_for_the_next(manager: Any) -> None:
    tasks, bounded = manager.get_tasks(), manager.get_bounded()
    began = time.monotonic()
    interrupted(lambda: tasks.get(timeout=1), lambda: time.monotonic() > began + 0.3)
    until(lambda: time.monotonic() > began + 1.2, "the answer to the interrupted get has come")
    assert bounded.qsize() == 0


def test_a_worker_started_before_its_stock_master_waits_for_it(start_master: StartMaster) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    worker: Any = Worker(address, KEY)
    connecting = threading.Thread(target=worker.connect, daemon=True)
    connecting.start()
    start_master(port=address[1])
    connecting.join(10)
    assert not connecting.is_alive()
    assert worker.get_tasks().qsize() == 0


def test_nobody_there_is_said_within_the_connect_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands.managers.connection.CONNECT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
    with pytest.raises(ServerUnavailable, match="check that"):
        Worker(address, KEY).connect()


def test_another_serializer_is_refused_on_either_side(start_master: StartMaster) -> None:
    with pytest.raises(UnsupportedFeature, match="leave it out"):
        Worker(start_master().address, KEY, "xmlrpclib").connect()
    with pytest.raises(ProtocolError, match="xmlrpclib"):
        connected(start_master(serializer="xmlrpclib"))


# -- masters that misbehave, one step of the handshake at a time -------------------------------------------------------

FRAMED_CHALLENGE = b"\x00\x00\x00\x1f#CHALLENGE#" + bytes(20)


class Misbehaving:
    """Accepts connections; greets the first as a stock master does, and does something else to the later ones."""

    def __init__(self, later: Callable[[socket.socket], None]) -> None:
        self._later = later
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = self._server.getsockname()
        self._kept: list[socket.socket] = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            is_first = True
            while True:
                connection, _ = self._server.accept()
                self._kept.append(connection)
                if is_first:
                    connection.sendall(FRAMED_CHALLENGE)
                else:
                    self._later(connection)
                is_first = False

    def close(self) -> None:
        self._server.close()
        for connection in self._kept:
            connection.close()


def silent(_: socket.socket) -> None:
    pass


def torn(connection: socket.socket) -> None:
    connection.sendall(FRAMED_CHALLENGE[:20])


def silent_after_the_challenge(connection: socket.socket) -> None:
    connection.sendall(FRAMED_CHALLENGE)


def wrong_answer(connection: socket.socket) -> None:
    connection.sendall(FRAMED_CHALLENGE)
    connection.recv(4096)
    connection.sendall(b"\x00\x00\x00\x09#WELCOME#")
    connection.recv(4096)
    connection.sendall(b"\x00\x00\x00\x10" + bytes(16))


def web_page(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    ("later", "error", "says"),
    [
        (silent, ServerUnavailable, "stopped|timed out"),
        (torn, ServerUnavailable, "stopped|timed out"),
        (silent_after_the_challenge, ServerUnavailable, "stopped|timed out"),
        (socket.socket.close, ServerUnavailable, "closed"),
        (wrong_answer, ProtocolError, "could not prove"),
        (web_page, ProtocolError, "no master"),
    ],
)
def test_no_step_of_the_handshake_hangs(
    later: Callable[[socket.socket], None], error: type[Exception], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stock_dialling, "HANDSHAKE_S", 0.2)
    monkeypatch.setattr("manyhands.managers.base.CONNECT_S", 0.5)
    master = Misbehaving(later)
    try:
        with pytest.raises(error, match=says):
            Worker(master.address, KEY).connect()
    finally:
        master.close()
