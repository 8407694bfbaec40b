"""Whatever arrives at the port: one log line, one sentence for the peer where it can read one, and nobody else notices."""

from __future__ import annotations

import logging
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest

import manyhands as mh
from manyhands import auth, events
from manyhands.auth import Keyring
from manyhands.engines.base import Port, Sink
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import AuthenticationFailed, EngineUnavailable
from manyhands.server import SocketServer, admission
from manyhands.testing.contract.peer import PATIENCE_S, Peer, eventually
from manyhands.wire import handshake
from manyhands.wire.frames import FrameEncoder

from .conftest import KEYRING, Place


class Raw:
    """A peer that writes bytes of its own."""

    def __init__(self, server: SocketServer) -> None:
        self.sock = socket.create_connection(server.address, timeout=PATIENCE_S)
        self.challenge = self.receive_message()

    def receive_message(self) -> bytes:
        (size,) = struct.unpack("!i", self._exactly(4))
        return self._exactly(size)

    def _exactly(self, n: int) -> bytes:
        data = b""
        while len(data) < n:
            more = self.sock.recv(n - len(data))
            if not more:
                raise EOFError(data)
            data += more
        return data

    def until_closed(self) -> bytes:
        """Everything the server still says; fails if it does not close."""
        data = b""
        try:
            while more := self.sock.recv(65536):
                data += more
        except ConnectionResetError:
            pass
        return data

    def authenticate(self) -> None:
        hello = handshake.build_hello(bytes(32))
        key = KEYRING.first
        proof = auth.client_proof(key, handshake.VERSION, self.challenge, hello)
        self.sock.sendall(handshake.message(hello) + handshake.message(handshake.build_auth(key.id, proof)))
        assert self.receive_message().startswith(b"#WELCOME#")


@pytest.fixture
def raw(server: SocketServer) -> Iterator[Callable[[], Raw]]:
    made: list[Raw] = []

    def make() -> Raw:
        made.append(Raw(server))
        return made[-1]

    yield make
    for one in made:
        one.sock.close()


BEFORE_THE_KEY = {
    "garbage": b"\xde\xad\xbe\xef" * 100,
    "a TLS hello": bytes.fromhex("16030100f4010000f00303") + bytes(200),
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a negative length": struct.pack("!i", -5),
    "minus one, the standard library's mark of a long frame": struct.pack("!iQ", -1, 2**62),
    "a length of 2 GiB": struct.pack("!i", 2**31 - 1),
    "257 bytes": struct.pack("!i", 257) + bytes(257),
    "an empty message": struct.pack("!i", 0),
    "a hello of another version": handshake.message(b"#MANYHANDS#\x63\x00" + bytes(32)),
    "a hello that is cut short": handshake.message(b"#MANYHANDS#"),
    "a proof without a hello": handshake.message(handshake.build_auth(bytes(4), bytes(32))),
}


SAID = {
    "a TLS hello": "it looks like TLS",
    "HTTP": "it looks like HTTP",
    "a negative length": "a handshake message of -5 bytes",
}


@pytest.mark.parametrize("name", BEFORE_THE_KEY)
def test_bytes_of_a_stranger_end_in_one_log_line(
    name: str, raw: Callable[[], Raw], peer: Peer, caplog: pytest.LogCaptureFixture
) -> None:
    stranger = raw()
    stranger.sock.sendall(BEFORE_THE_KEY[name])
    assert len(stranger.until_closed()) < 64  # at most a refusal, never a traceback
    peer.ping()
    lines = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(lines) == 1
    assert lines[0].exc_info is None
    assert "Refused 127.0.0.1" in lines[0].getMessage()
    assert SAID.get(name, "") in lines[0].getMessage()


AFTER_THE_KEY = {
    "a frame of an unknown type": struct.pack("!IBBH", 4, 77, 0, 0) + bytes(4),
    "a frame of 4 GiB": struct.pack("!IBBH", 2**32 - 1, 1, 0, 0),
    "unknown flags": struct.pack("!IBBH", 4, 1, 0xF0, 0) + bytes(4),
    "msgpack that is no list of requests": struct.pack("!IBBH", 3, 1, 0, 0) + b"\xc0\xc0\xc0",
    "garbage": b"\xde\xad\xbe\xef" * 100,
    "a request before Attach": struct.pack("!IBBH", 4, 1, 0, 0) + b"\x91\x92\x0e\x01",
    "a session id that can be guessed": b"".join(FrameEncoder().encode([events.Attach("worker 1")])),
    "a session id of 100,000 characters": b"".join(FrameEncoder().encode([events.Attach("x" * 100_000)])),
    "a body of 2^62 bytes": struct.pack("!IBBHIQ", 13, 2, 1, 0, 1, 2**62) + b"x",
    "nothing but a header, torn": struct.pack("!IBBH", 100, 1, 0, 0)[:5],
}


@pytest.mark.parametrize("name", AFTER_THE_KEY)
def test_bytes_of_a_peer_with_the_key_are_refused_with_a_sentence(name: str, raw: Callable[[], Raw], peer: Peer) -> None:
    broken = raw()
    broken.authenticate()
    broken.sock.sendall(AFTER_THE_KEY[name])
    broken.sock.shutdown(socket.SHUT_WR)
    answer = broken.until_closed()
    peer.ping()
    if "torn" not in name:  # a connection that just ends is told nothing
        assert answer[4] == 3, answer
        assert answer[8:].endswith(b".")


def test_the_wrong_key_is_one_sentence_on_both_sides(server: SocketServer, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(AuthenticationFailed, match="has another authkey than this program"):
        Peer(RemoteEngine(server.url, Keyring("a wrong key")))
    messages = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert messages == ["Refused 127.0.0.1: The client has another authkey than this server; use the same on both sides."]


def test_a_peer_of_a_server_on_every_interface_is_named_by_the_address_that_people_know(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with mh.serve("tcp://[::]:0", "a key of this test", insecure=True) as server:
        with pytest.raises(AuthenticationFailed):
            mh.connect(f"tcp://127.0.0.1:{server.address[1]}", "a wrong key")
        assert [message for message in caplog.messages if message.startswith("Refused 127.0.0.1: ")]


def test_a_thousand_complaints_are_one_line(raw: Callable[[], Raw], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(50):
        stranger = raw()
        stranger.sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        stranger.until_closed()
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 1


def test_wrong_keys_are_answered_ever_later_and_hold_up_nobody_else(server: SocketServer, peer: Peer) -> None:
    def guess() -> None:
        with pytest.raises(AuthenticationFailed):
            Peer(RemoteEngine(server.url, Keyring("guessed")))

    guessers = [threading.Thread(target=guess) for _ in range(admission.FAILURE_BURST)]
    for thread in guessers:
        thread.start()
    while any(thread.is_alive() for thread in guessers):
        peer.ping()
    assert server._failures.delay_s("127.0.0.1", server._loop.time()) > admission.FAILURE_DELAY_S


def test_a_silent_connection_is_dropped(
    server: SocketServer, raw: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server._pending, "_handshake_s", 0.1)
    silent = raw()
    assert silent.until_closed() == b""
    assert caplog.messages == ["Refused 127.0.0.1: It did not authenticate in time."]
    eventually(lambda: server.connections == 0, "the connection is forgotten")


def test_half_a_handshake_is_dropped_too(
    server: SocketServer, raw: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._pending, "_handshake_s", 0.1)
    slow = raw()
    slow.sock.sendall(handshake.message(handshake.build_hello(bytes(32)))[:20])
    assert slow.until_closed() == b""


def test_an_authenticated_connection_that_never_attaches_may_stay(
    server: SocketServer, raw: Callable[[], Raw], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline is for strangers: a peer with the key is watched by keepalive only."""
    monkeypatch.setattr(server._pending, "_handshake_s", 0.05)
    known = raw()
    known.authenticate()
    stranger = raw()
    stranger.until_closed()
    assert server.connections == 1


def test_over_the_limit_the_oldest_pending_connection_is_dropped(
    server: SocketServer, raw: Callable[[], Raw], peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server._pending, "_limit", 3)
    first, *others = [raw() for _ in range(4)]
    assert first.until_closed() == b""
    for other in others:
        other.authenticate()
    peer.ping()


def test_two_thousand_idle_strangers_leave_room_for_an_honest_client(server: SocketServer, peer: Peer) -> None:
    strangers: list[socket.socket] = []
    try:
        for _ in range(2000):
            sock = socket.create_connection(server.address, timeout=PATIENCE_S)
            strangers.append(sock)
        eventually(lambda: server.connections <= admission.MAX_PENDING + 1, "no more than the limit are kept")
        peer.put_bodies("q", b"honest")
        assert peer.take("q").message.body == b"honest"
    finally:
        for sock in strangers:
            sock.close()


def test_a_peer_that_does_not_read_is_dropped_and_its_leases_return(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("manyhands.server.connection.STALL_S", 0.1)
    place.limits = place.limits.__class__(resume_s=0.01)
    server = place.serve()
    honest = place.peer(server.url)
    body = bytes(1_000_000)
    for _ in range(20):
        honest.put_bodies("q", body)
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.settimeout(PATIENCE_S)
    reader.connect(server.address)
    deaf = Raw.__new__(Raw)
    deaf.sock = reader
    deaf.challenge = deaf.receive_message()
    deaf.authenticate()
    encode = FrameEncoder().encode
    reader.sendall(b"".join(encode([events.Attach("d" * 32)]) + encode([events.Lease(1, "q", 20, 20, -1)])))
    eventually(lambda: honest.size("q").leased == 20, "the deaf peer has everything")
    eventually(lambda: honest.size("q").ready == 20, "everything came back")
    reader.close()


class _Failing(MemoryEngine):
    """An engine whose sessions cannot be opened, or break."""

    def __init__(self, *, fails_at: str) -> None:
        super().__init__()
        self._fails_at = fails_at

    def attach(self, attach: events.Attach, sink: Sink) -> Port:  # type: ignore[override]
        if self._fails_at == "attach":
            raise EngineUnavailable("The disk is full; free some space.")
        port = super().attach(attach, sink)

        class Broken:
            attached = port.attached
            wait = port.wait
            detach = port.detach

            def send(self, requests: object, *, may_gather: bool = False) -> None:
                raise RuntimeError("a bug in the engine")

        return Broken()


def test_an_engine_that_opens_no_session_is_said_to_the_client(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    server = place.serve(_Failing(fails_at="attach"))
    with pytest.raises(Exception, match="The disk is full"):
        Peer(place.remote(server.url, connect_timeout_s=0.3))


def test_a_bug_in_the_engine_is_logged_once_and_said_without_a_traceback(
    place: Place, raw: Callable[[], Raw], caplog: pytest.LogCaptureFixture
) -> None:
    server = place.serve(_Failing(fails_at="send"))
    peer = place.peer(server.url)
    peer.start(events.Ping(0))
    eventually(lambda: any(record.exc_info for record in caplog.records), "the server logs the bug with its traceback")
    peer.cut()


def test_nothing_an_unknown_peer_sends_imports_or_runs_anything(raw: Callable[[], Raw], peer: Peer) -> None:
    seen: list[str] = []
    is_watching = True

    def audit(event: str, _: object) -> None:
        if is_watching and event in ("import", "exec", "compile", "pickle.find_class", "os.system", "subprocess.Popen"):
            seen.append(event)

    sys.addaudithook(audit)
    try:
        for data in BEFORE_THE_KEY.values():
            stranger = raw()
            stranger.sock.sendall(data)
            stranger.until_closed()
        peer.ping()
    finally:
        is_watching = False
    assert seen == []


def test_a_peer_that_dies_as_the_server_ends_keeps_the_goodbye_from_nobody(
    server: SocketServer, raw: Callable[[], Raw], peer: Peer
) -> None:
    peer.ping()
    others = set(server._connections)
    rude = raw()
    rude.authenticate()
    rude.sock.sendall(b"".join(FrameEncoder().encode([events.Attach("d" * 32)])))
    rude.sock.recv(65536)  # it is attached, and has nothing left to read
    ended: Future[None] = Future()

    def end() -> None:
        """In the server's loop, so that it has not read the end yet: its goodbye is answered by a reset."""
        rude.sock.close()
        try:
            for connection in sorted(server._connections, key=others.__contains__):
                connection.say_last(events.Closing("the end", []))
            ended.set_result(None)
        except OSError as error:
            ended.set_exception(error)

    server._loop.call_soon_threadsafe(end)
    ended.result(PATIENCE_S)
    eventually(lambda: [closing.reason for closing in peer.closings] == ["the end"], "the others are told")
