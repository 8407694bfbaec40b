"""The thread that asks reads its own answer from the socket, past the sink, where nothing else comes first."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest

from manyhands import events
from manyhands.client.session import ClientSession
from manyhands.codec import Codec
from manyhands.engines.base import Waiter
from manyhands.engines.remote.port import RemotePort
from manyhands.errors import ServerUnavailable
from manyhands.events import Ping, Pong, Put, Reply
from manyhands.model import SettleKind
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import eventually, message

from .conftest import Place


class Listener:
    """A session at a server, with everything that came to its sink."""

    def __init__(self, place: Place, url: str) -> None:
        self.came: list[int] = []
        self.port: RemotePort = place.remote(url).attach(events.Attach("0" * 32), self._sink)
        self._rid = 0

    def _sink(self, replies: Sequence[Reply]) -> None:
        self.came += [getattr(reply, "rid", 0) for reply in replies]

    def read_alone(self) -> tuple[int, Reply]:
        """Ask until this thread, and not the background thread, was the one that read the answer."""
        found: list[Reply] = []

        def is_read() -> bool:
            self._rid += 1
            self.port.send([Ping(self._rid)])
            reply = self.port.read_answer(self._rid, 5.0, is_hurried=False)
            if reply is None:
                rid = self._rid
                eventually(lambda: rid in self.came, "the background thread read it")
                return False
            found.append(reply)
            return True

        eventually(is_read, "the asking thread reads its answer")
        return self._rid, found[0]


@pytest.fixture
def listener(place: Place, server: SocketServer) -> Listener:
    return Listener(place, server.url)


def test_an_answer_that_comes_alone_is_returned_and_not_given_to_the_sink(listener: Listener) -> None:
    rid, reply = listener.read_alone()
    assert reply == Pong(rid)
    assert rid not in listener.came


def test_what_comes_before_it_goes_to_the_sink_and_the_answer_with_it(listener: Listener) -> None:
    listener.read_alone()
    # The answer to the put waits for company on the server, so both come in one piece.
    listener.port.send([Put(-1, "q", 1, 1, [message(b"one")]), Ping(1000)])
    assert listener.port.read_answer(1000, 5.0, is_hurried=False) is None
    eventually(lambda: listener.came[-2:] == [-1, 1000], "both went their usual way, in order")


def test_an_answer_that_another_thread_has_read_is_not_waited_for(listener: Listener) -> None:
    listener.port.send([Ping(1)])
    waiter = Waiter()
    eventually(lambda: listener.port.wait(waiter, 0.01) or 1 in listener.came, "the sink has it")
    started = time.monotonic()
    assert listener.port.read_answer(1, 30.0, is_hurried=False) is None
    assert time.monotonic() - started < 15.0


def test_a_read_that_waits_ends_when_the_connection_does(listener: Listener, server: SocketServer) -> None:
    listener.read_alone()
    listener.port.send([events.Lease(1000, "empty", 1)])
    stopper = threading.Timer(0.05, server.stop)
    stopper.start()
    assert listener.port.read_answer(1000, 30.0, is_hurried=False) is None
    stopper.join()


def test_the_time_that_was_read_for_counts_towards_the_limit(
    place: Place, server: SocketServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = ClientSession(place.remote(server.url), Codec([(b"id of", bytes(32))]))
    heard_for: list[float | None] = []
    monkeypatch.setattr(session, "hear", lambda call, timeout_s: heard_for.append(timeout_s))
    monkeypatch.setattr(session.port, "read_answer", lambda rid, timeout_s, is_hurried: time.sleep(0.2))
    with session.lock:
        call = session.state.call(Ping)
    with pytest.raises(ServerUnavailable, match=r"within 50\.5 s"):
        session.ask(call, 50.0)
    assert heard_for[0] is not None
    assert heard_for[0] <= 50.5 - 0.2
    session.close(SettleKind.RELEASE)
