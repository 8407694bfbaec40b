"""A child's line to its engine: one session, one blocking socket, as little around them as there can be.

Two threads use it: the one that runs calls, and the keeper while a call runs. The lock covers the wire and writing. Who
reads says so first (`is_reading`): the runner before it waits for work, in the read itself; else the keeper, which takes
what is there without waiting.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count

from manyhands._chance import CHANCE
from manyhands.auth import Keyring
from manyhands.errors import ManyhandsError, ProtocolError, ServerUnavailable
from manyhands.events import Reply, Report, Request, Settle
from manyhands.model import HEARTBEAT_S, Settlement
from manyhands.wire.client import ClientWire
from manyhands.wire.frames import Buffer
from manyhands.wire.handshake import NONCE_BYTES
from manyhands.worker.settings import ChildSettings

LOOK_S = HEARTBEAT_S
"""A read that waits for work returns after so long, to see to heartbeats; an order wakes it by a reply."""
PAUSE_S = 0.5
"""A pause between two attempts to connect is slept in pieces of this, between which orders are looked at."""
DIAL_S = 5.0
GOODBYE_S = 1.0
_JOIN_BYTES = 32 * 1024
_MAX_VECTORS = 512  # below every platform's IOV_MAX
_NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none


def where(settings: ChildSettings) -> str:
    """The address of the child's server."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"tcp://{host}:{settings.port}"


class Line:
    """A session, and its connection of the moment. It is made by `restore`, which is also how it begins."""

    def __init__(self, settings: ChildSettings) -> None:
        self.lock = threading.Lock()
        self.keyring = Keyring(*settings.keys)
        self.wire = ClientWire(
            keyring=self.keyring,
            session=settings.session,
            attach_name=settings.name,
            where=where(settings),
            parent=settings.parent,
        )
        self.is_up = False
        """Whether there is a connection."""
        self.is_reading = False
        """Whether the runner reads; then nobody else may."""
        self.heard_mono = 0.0
        """When the engine's last answer arrived."""
        self.n_forgotten = 0
        """How often leases of this session were lost while it was away."""
        self.replies: deque[Reply] = deque()
        """What came and was not looked at."""
        self.on_attached: Sequence[Request] = ()
        """What to say whenever the session was attached."""
        self._address = (settings.host, settings.port)
        self._sock: socket.socket | None = None
        self._dead: socket.socket | None = None  # ended by another thread than the one that may still read it
        self.rid: Callable[[], int] = count(1).__next__
        """A number for a request."""
        self._seq = 0
        self._open: dict[int, int] = {}  # rid to seq of what changes something and has no answer yet, oldest first
        self._dialling = threading.Lock()
        self._cause = ""

    # -- out -----------------------------------------------------------------------------------------------------------

    def settle(self, settlements: list[Settlement], *, is_hurried: bool = False) -> Settle:
        """The request that ends deliveries. The lock is held; it is sent next.

        Args:
            is_hurried: somebody waits for the answer; else it may come with the next thing that comes.
        """
        rid = self.rid()
        if not is_hurried:
            rid = -rid
        return Settle(rid, *self._numbers(rid), settlements)

    def report(self, token: int, calls: int, result: bytes) -> Report:
        """The request that says that calls of a pack have ended. The lock is held; it is sent next."""
        rid = -self.rid()
        return Report(rid, *self._numbers(rid), token, calls, result)

    def _numbers(self, rid: int) -> tuple[int, int]:
        """The next seq, and the lowest without an answer."""
        seq = self._open[rid] = self._seq = self._seq + 1
        return seq, next(iter(self._open.values()))

    @property
    def n_unanswered(self) -> int:
        """How many settlements and reports the engine has not confirmed."""
        return len(self._open)

    def send(self, requests: Sequence[Request]) -> None:
        """Say this, now or when there is a connection again. The lock is held."""
        buffers = self.wire.send_at_once(requests) if self._sock is not None else None
        if buffers is None:
            self.replies += self.wire.send(requests)
        self._write(buffers)

    def _write(self, buffers: Sequence[Buffer] | None = None) -> None:
        """Write these, and then what the wire has."""
        wire, sock = self.wire, self._sock
        if sock is None:
            return
        try:
            while buffers or wire.has_data:
                buffers = buffers or wire.data_to_send()
                if not buffers:
                    return
                if len(buffers) == 1:
                    sock.sendall(buffers[0])
                else:
                    _send_all(sock, buffers)
                buffers = None
        except OSError as error:
            self._lose(error)

    # -- in ------------------------------------------------------------------------------------------------------------

    def wait(self) -> None:
        """Wait for replies, at most about LOOK_S; only while `is_reading`. Without a connection one is made first."""
        sock = self._sock
        if sock is None:
            self.restore()
            return
        while not self.replies and sock is self._sock:  # a large body comes in pieces
            try:
                view = self.wire.get_buffer()
                n = sock.recv_into(view)
            except (BlockingIOError, InterruptedError, TimeoutError):
                self.tick()
                return
            except OSError as error:
                with self.lock:
                    if sock is self._sock:
                        self._lose(error)
                return
            del view  # a body's memory cannot become its bytes while somebody looks at it
            with self.lock:
                if sock is self._sock:
                    self._take(n)

    def look(self) -> None:
        """Take what has come, without waiting; while the runner does not read. The lock is held."""
        sock = self._sock
        if sock is None or self.is_reading:
            return
        try:
            while True:
                view = self.wire.get_buffer()
                room = len(view)
                if not _NO_WAIT and not select.select([sock], [], [], 0)[0]:
                    return
                n = sock.recv_into(view, 0, _NO_WAIT)
                del view
                self._take(n)
                if n < room or self._sock is None:
                    return
        except (BlockingIOError, InterruptedError, TimeoutError):
            return
        except OSError as error:
            self._lose(error)

    def wait_readable(self, timeout_s: float) -> None:
        """Sleep until something comes or the connection ends, or for so long."""
        sock = self._sock
        if sock is None:
            time.sleep(timeout_s)
            return
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile
            if hasattr(select, "poll"):
                poll = select.poll()
                poll.register(sock, select.POLLIN)
                poll.poll(timeout_s * 1000)
            else:
                select.select([sock], [], [], timeout_s)

    def _take(self, n: int) -> None:
        if n == 0:
            self._lose(ConnectionResetError("the server closed the connection"))
            return
        now = self.heard_mono = time.monotonic()
        try:
            self._note(self.wire.received(n, now))
        except (ServerUnavailable, ProtocolError) as error:
            self._lose(error)
            return
        if self.wire.has_data:
            self._write()

    def _note(self, replies: list[Reply]) -> None:
        if self._open:
            for reply in replies:
                self._open.pop(getattr(reply, "rid", 0), None)
        self.replies += replies

    def tick(self) -> None:
        """Time has passed in which nothing came: a heartbeat may be due, or the other side be gone."""
        with self.lock:
            try:
                self.wire.tick(time.monotonic())
            except ManyhandsError as error:
                self._lose(error)
            else:
                self._write()

    # -- connections ---------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """One attempt to have a connection, after the pause that is due; nothing where there is one. In any thread.

        Raises:
            AuthenticationFailed, ProtocolError, SessionTaken: trying again is no use.
        """
        with self._dialling:
            if self._sock is not None:
                return
            pause_s = self.wire.next_attempt_at(time.monotonic(), CHANCE.random()) - time.monotonic()
            if self._cause and pause_s > 0:
                time.sleep(min(pause_s, PAUSE_S))
                if pause_s > PAUSE_S:
                    return
            try:
                sock = socket.create_connection(self._address, timeout=DIAL_S)
            except OSError as error:
                self._cause = str(error)
                self.wire.connection_lost(time.monotonic())
                return
            self._greet(sock)

    def _greet(self, sock: socket.socket) -> None:
        """The handshake and Attach, with nobody else at the wire."""
        with self.lock:
            try:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                wire = self.wire
                wire.connection_made(time.monotonic(), os.urandom(NONCE_BYTES))
                while not wire.is_open:
                    n = sock.recv_into(wire.get_buffer())
                    if n == 0:
                        raise ConnectionResetError("the server closed the connection")
                    self.heard_mono = time.monotonic()
                    self._note(wire.received(n, self.heard_mono))
                    while not wire.is_open and (buffers := wire.data_to_send()):
                        _send_all(sock, buffers)
                _let_reads_return(sock)
            except OSError as error:
                sock.close()
                self._cause = str(error)
                self.wire.connection_lost(time.monotonic())
                return
            except BaseException:
                sock.close()
                self.wire.connection_lost(time.monotonic())
                raise
            if wire.attached is not None and (wire.attached.lost or not wire.attached.is_resumed):
                self.n_forgotten += 1
            if self._dead is not None:
                self._dead.close()
                self._dead = None
            self._sock = sock
            self._cause = ""
            self.is_up = True
            self.send(self.on_attached)

    def _lose(self, cause: Exception) -> None:
        sock, self._sock = self._sock, None
        if sock is None:
            return
        self._cause = str(cause) or type(cause).__name__
        self.is_up = False
        self.wire.connection_lost(time.monotonic())
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        if self.is_reading:
            self._dead = sock  # its number must not become another's under who waits on it
        else:
            sock.close()

    def close(self) -> None:
        """Let the server close first: to close with unread bytes would reset what is under way."""
        with self.lock:
            sock, self._sock = self._sock, None
            if self._dead is not None:
                self._dead.close()
        if sock is None:
            return
        until = time.monotonic() + GOODBYE_S
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            while (left := until - time.monotonic()) > 0:
                sock.settimeout(left)
                if not sock.recv(65536):
                    break
        sock.close()


def _send_all(sock: socket.socket, buffers: Sequence[Buffer]) -> None:
    size = sum(map(len, buffers))
    if size <= _JOIN_BYTES or not hasattr(sock, "sendmsg"):
        for buffer in buffers if size > _JOIN_BYTES else (b"".join(buffers),):
            sock.sendall(buffer)
        return
    left = [memoryview(buffer) for buffer in buffers]
    while left:
        n = sock.sendmsg(left[:_MAX_VECTORS])
        while left and n >= len(left[0]):
            n -= len(left.pop(0))
        if n:
            left[0] = left[0][n:]


def _let_reads_return(sock: socket.socket) -> None:
    """Have a read that blocks return after LOOK_S, without a system call more where the kernel can do it."""
    if sys.platform != "win32":
        sock.settimeout(None)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", int(LOOK_S), 0))
            return
    sock.settimeout(LOOK_S)
