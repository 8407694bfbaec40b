"""Children: a forked one never touches its parent's connections, any other opens its own."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from manyhands import errors, events
from manyhands.auth import Keyring
from manyhands.engines.remote import RemoteEngine, RemotePort
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import PATIENCE_S, Peer, eventually

from .conftest import Place

KEY = "the key of these tests"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform does not fork")
# 3.12 warns of any fork in a process with threads; that it is safe here is what these tests show.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def in_fork(work: Callable[[], object]) -> int:
    """Run work in a forked child; the child's exit code, 0 when it returned."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException as error:
            sys.stderr.write(f"child: {error!r}\n")
        os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@needs_fork
def test_a_forked_child_cannot_use_its_parents_port_and_is_told_so(peer: Peer) -> None:
    peer.put_bodies("q", b"x")
    delivery = peer.take("q")

    def child() -> None:
        assert isinstance(peer.port, RemotePort)
        assert peer.port.is_foreign
        with pytest.raises(errors.ServerUnavailable, match="parent process"):
            peer.ping()
        assert peer.port._link.transport is not None
        assert peer.port._link.transport._sock.fileno() == -1  # or the connection would outlive a killed parent
        peer.goodbye()  # says nothing: the session is the parent's

    assert in_fork(child) == 0
    assert peer.ack(delivery)


@needs_fork
def test_a_forked_child_opens_a_session_of_its_own(server: SocketServer, peer: Peer) -> None:
    peer.put_bodies("q", b"x")

    def child() -> None:
        own = Peer(RemoteEngine(server.url, Keyring(KEY)))
        assert own.ack(own.take("q"))
        own.goodbye()

    assert in_fork(child) == 0
    assert peer.size("q").done_total == 1


@needs_fork
def test_a_forked_child_lets_go_of_the_listener_and_the_connections(place: Place) -> None:
    """The child lives on; still the parent's stop frees the port, and its clients see their connections end."""
    server = place.serve()
    peer = place.peer(server.url)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)  # until the parent has looked
        os._exit(0)
    try:
        os.close(read_end)
        server.stop()
        eventually(lambda: bool(peer.closings), "the client is told")
        again = place.serve(port=server.address.port)
        assert again.address == server.address
    finally:
        os.close(write_end)
        os.waitpid(pid, 0)


@needs_fork
def test_the_parent_goes_on_serving_after_children_came_and_went(server: SocketServer, peer: Peer) -> None:
    for _ in range(5):
        assert in_fork(lambda: None) == 0
        peer.ping()


FORKS_AND_EXITS = """
import os, sys
from manyhands import _bridge
if sys.argv[1] == "asyncio":
    import asyncio
    _bridge.new_loop = asyncio.new_event_loop
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import Peer

engine = MemoryEngine()
server = SocketServer(engine, port=0, keyring=Keyring("k"))
server.start()
peer = Peer(RemoteEngine(server.url, Keyring("k")))
peer.ping()
pid = os.fork()
if pid == 0:
    opened = [open(os.devnull) for _ in range(20)]   # take the numbers of the descriptors that the child closed
    sys.exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
peer.ping()
peer.goodbye()
server.stop()
engine.close()
print("served on")
"""


@needs_fork
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_child_that_ends_as_a_whole_interpreter_leaves_the_parent_alone(loop: str) -> None:
    """Not os._exit: finalisation runs, with the parent's loop and sockets as garbage in it."""
    # From 3.12 on Python warns of any fork beside threads; here that is the point.
    python = [sys.executable, "-W", "ignore:This process:DeprecationWarning"]
    done = subprocess.run([*python, "-c", FORKS_AND_EXITS, loop], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "served on\n", "")


@needs_fork
def test_forks_while_threads_use_the_port_block_nobody(peer: Peer) -> None:
    stop = threading.Event()
    failed: list[BaseException] = []

    def use() -> None:
        try:
            while not stop.is_set():
                peer.ping()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_fork(lambda: None) == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not failed


def _in_any_child(url: str) -> None:
    own = Peer(RemoteEngine(url, Keyring(KEY)))
    own.put_bodies("from the child", b"hello")
    own.goodbye()


@pytest.mark.parametrize("method", multiprocessing.get_all_start_methods())
def test_children_of_every_start_method_connect(method: str, server: SocketServer, peer: Peer) -> None:
    child = multiprocessing.get_context(method).Process(target=_in_any_child, args=(server.url,))  # type: ignore[attr-defined]
    child.start()
    child.join(60)
    assert child.exitcode == 0
    assert peer.take("from the child").message.body == b"hello"
    assert isinstance(peer.start(events.Ping(0)).answer(), events.Pong)
