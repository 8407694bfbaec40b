"""A connection to a master that runs the standard library, made by the standard library's own handshake with a deadline.

`multiprocessing.connection` waits for ever at every step: for a peer that accepts and says nothing, for the second half of a
message, for an answer. Its two halves of the handshake need no more than something that sends and receives messages, so they
are given that, over a socket with one deadline for all of it. Only here are MD5 answers given: masters up to 3.11 need them.
"""

from __future__ import annotations

import socket
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

from manyhands import _sockets
from manyhands.address import Address
from manyhands.errors import AuthenticationFailed, ProtocolError
from manyhands.wire.client import HANDSHAKE_S
from manyhands.wire.handshake import LENGTH, MAX_MESSAGE_BYTES, message


class ConnectionLost(EOFError):
    """The connection ended, or nothing came in time: unlike an EOFError or OSError that the master's own method raised."""


class MasterConnection(Connection):
    """One connection to such a master; its errors can be told from those that come through it."""

    patience_s: float | None = None
    """How long to wait for an answer; None is for ever, as the standard library does."""

    def send(self, obj: Any) -> None:
        """See `multiprocessing.connection.Connection.send`."""
        try:
            super().send(obj)
        except OSError as error:
            raise ConnectionLost(str(error)) from error

    def recv(self) -> Any:
        """See `multiprocessing.connection.Connection.recv`."""
        try:
            if self.patience_s is not None and not self.poll(self.patience_s):
                raise ConnectionLost(f"nothing was heard for {self.patience_s:.1f} s")
            return super().recv()
        except OSError as error:
            raise ConnectionLost(str(error)) from error
        except EOFError as error:
            raise ConnectionLost("it closed the connection") from error


def dial(address: tuple[str, int], authkey: bytes) -> MasterConnection:
    """Connect and authenticate both sides within HANDSHAKE_S.

    Raises:
        ConnectionLost: nobody answers, or what answers stops in the middle.
        AuthenticationFailed: the master has another key.
        ProtocolError: what answers is no such master.
    """
    where = Address(*address).url
    deadline = time.monotonic() + HANDSHAKE_S
    try:
        sock = socket.create_connection(address, timeout=HANDSHAKE_S)
    except OSError as error:
        raise ConnectionLost(error.strerror or str(error)) from error
    try:
        _sockets.tune(sock)
        talk: Any = _Messages(sock, deadline, where)
        try:
            answer_challenge(talk, authkey)
        except AuthenticationError as error:
            raise AuthenticationFailed(
                f"The master at {where} has another authkey than this program; use the same on both sides."
            ) from error
        try:
            deliver_challenge(talk, authkey)
        except AuthenticationError as error:
            raise ProtocolError(
                f"The master at {where} could not prove that it has the authkey: it is not the master it claims to be."
            ) from error
        sock.settimeout(None)
        return MasterConnection(sock.detach())
    except ValueError as error:  # hashlib on a machine in FIPS mode
        raise ProtocolError(
            f"The master at {where} asks for a digest that this machine forbids ({error}); run it on Python 3.12 or newer."
        ) from error
    except OSError as error:
        raise ConnectionLost(str(error) or type(error).__name__) from error
    finally:
        sock.close()


class _Messages:
    """The messages of a handshake over a socket, the whole of it until a deadline."""

    def __init__(self, sock: socket.socket, deadline: float, where: str) -> None:
        self._sock = sock
        self._deadline = deadline
        self._where = where

    def send_bytes(self, body: bytes) -> None:
        self._take_time()
        self._sock.sendall(message(body))

    def recv_bytes(self, maxlength: int = MAX_MESSAGE_BYTES) -> bytes:
        (size,) = LENGTH.unpack(self._read(LENGTH.size))
        if not 0 <= size <= maxlength:
            raise ProtocolError(f"Something answers at {self._where}, but it is no master; check host and port.")
        return self._read(size)

    def _read(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            self._take_time()
            chunk = self._sock.recv(size - len(found))
            if not chunk:
                raise ConnectionResetError("it closed the connection in the middle of the handshake")
            found += chunk
        return found

    def _take_time(self) -> None:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it stopped in the middle of the handshake for {HANDSHAKE_S:g} s")
        self._sock.settimeout(left)
