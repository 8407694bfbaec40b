"""A session's wire and its connection of the moment, under one lock: bytes out, bytes in, and the end of a connection.

The lock covers the wire and writing. Reading is the reader's alone (port.py decides who that is): it waits for bytes
without the lock, and takes it only to move them into the wire. A dead connection is closed by its reader or once there is
none, never under a thread that still waits on its descriptor.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

from manyhands.address import Address
from manyhands.engines.remote.transport import WOULD_BLOCK, Buffer, Transport, dial
from manyhands.errors import ManyhandsError
from manyhands.events import Reply, Request
from manyhands.wire.client import ClientWire
from manyhands.wire.handshake import NONCE_BYTES


class Link:
    """Everything but `connect` and `read` expects the caller to hold `lock`."""

    def __init__(self, address: Address, wire: ClientWire) -> None:
        self.address = address
        self.wire = wire
        self.lock = threading.Lock()
        self.transport: Transport | None = None
        """None: there is no connection."""
        self.is_blocked = False
        """Whether bytes are left that the kernel did not take: the reader waits for that too."""
        self.cause: Exception | None = None
        """Why the last connection ended or could not be made."""
        self.is_tidy = True
        """Whether no dead connection waits to be closed."""
        self._unwritten: list[Buffer] = []
        self._dead: list[Transport] = []

    def connect(self, timeout_s: float) -> None:
        """Dial and begin the handshake; reading goes on from there. Takes the lock itself.

        Raises:
            OSError: nobody answers.
        """
        sock = dial(self.address, timeout_s)
        try:
            transport = Transport(sock)
        except BaseException:
            sock.close()
            raise
        with self.lock:
            self.wire.connection_made(time.monotonic(), os.urandom(NONCE_BYTES))
            self.transport = transport

    def write(self) -> None:
        """Write what the wire has until it has nothing, or the kernel takes no more (is_blocked then)."""
        transport = self.transport
        if transport is None:
            return
        try:
            while self._unwritten or self.wire.has_data:
                buffers: Sequence[Buffer] = self._unwritten or self.wire.data_to_send()
                if not buffers:
                    break
                n = transport.send(buffers)
                if len(buffers) == 1 and n == len(buffers[0]):
                    self._unwritten = []
                    continue
                self._unwritten = _rest(buffers, n)
                if self._unwritten:
                    self.is_blocked = True
                    return
            self.is_blocked = False
        except OSError as error:
            self.lose(transport, error)
        except BaseException as error:  # Ctrl-C: nobody knows how much was written
            self.lose(transport, _as_exception(error))
            raise

    def write_at_once(self, requests: Sequence[Request]) -> bool:
        """Queue requests and write them, in one step where nothing else is to be written; whether that was done."""
        transport = self.transport
        if transport is None or self.is_blocked or self._unwritten:
            return False
        try:
            buffers = self.wire.send_at_once(requests)
            if buffers is None:
                return False
            n = transport.send(buffers)
            if len(buffers) > 1 or n != len(buffers[0]):
                self._unwritten = _rest(buffers, n)
                self.is_blocked = bool(self._unwritten)
                if not self.is_blocked:
                    self.write()
        except OSError as error:
            self.lose(transport, error)
        except BaseException as error:  # Ctrl-C: nobody knows how much was written
            self.lose(transport, _as_exception(error))
            raise
        return True

    def read(self, transport: Transport) -> list[Reply]:
        """What has arrived, as replies, without waiting; the connection is lost when it has ended. Takes the lock itself."""
        replies: list[Reply] = []
        with self.lock:
            if transport is not self.transport:
                return replies
            wire = self.wire
            try:
                while True:
                    view = wire.get_buffer()
                    room = len(view)
                    n = transport.recv_into(view)
                    del view  # a body's memory cannot become its bytes while somebody looks at it
                    if n == WOULD_BLOCK:
                        break
                    if n == 0:
                        raise ConnectionResetError(f"the server at {self.address.url} closed the connection")
                    replies += wire.received(n, time.monotonic())
                    if n < room:
                        break
            except (OSError, ManyhandsError) as error:
                self.lose(transport, error)
            except BaseException as error:  # Ctrl-C between reading bytes and having them in the wire
                self.lose(transport, _as_exception(error))
                raise
            if not self.is_blocked and wire.has_data:
                self.write()
        return replies

    def receive(self, transport: Transport, view: Buffer, timeout_s: float | None, *, is_hurried: bool) -> list[Reply]:
        """Wait for bytes and take what comes first, as replies; as `read` else.

        Args:
            view: the wire's buffer.
        """
        try:
            n = transport.receive(view, timeout_s, is_hurried=is_hurried)
            if n == WOULD_BLOCK:
                return []
            with self.lock:
                if transport is not self.transport:
                    return []
                if n == 0:
                    raise ConnectionResetError(f"the server at {self.address.url} closed the connection")
                replies = self.wire.received(n, time.monotonic())
                if not self.is_blocked and self.wire.has_data:
                    self.write()
                return replies
        except (OSError, ManyhandsError) as error:
            with self.lock:
                self.lose(transport, error)
            return []
        except BaseException as error:  # Ctrl-C between reading bytes and having them in the wire
            with self.lock:
                self.lose(transport, _as_exception(error))
            raise

    def tick(self, now: float) -> float | None:
        """Heartbeats and their absence; when to call again, None while there is no connection."""
        transport = self.transport
        if transport is None:
            return None
        try:
            self.wire.tick(now)
        except ManyhandsError as error:
            self.lose(transport, error)
            return None
        if not self.is_blocked:
            self.write()
        return self.wire.next_due()

    def lose(self, transport: Transport, cause: Exception) -> None:
        """This connection is over; its reader, if any, is woken by that. Requests are kept by the wire."""
        if transport is not self.transport:
            return
        self.cause = cause
        self.transport = None
        self.is_blocked = False
        self._unwritten = []
        self.wire.connection_lost(time.monotonic())
        transport.shut_down()
        transport.interrupt()
        self._dead.append(transport)
        self.is_tidy = False

    def close_dead(self) -> None:
        """Close the connections that are over. Only while nobody reads."""
        dead, self._dead = self._dead, []
        self.is_tidy = True
        for transport in dead:
            transport.close()

    def close_in_child(self) -> None:
        """After a fork: close this process's copies. The lock may be held by a thread that does not exist here."""
        for transport in (self.transport, *self._dead):
            if transport is not None:
                transport.close()


def _rest(buffers: Sequence[Buffer], n: int) -> list[Buffer]:
    """What is left of the buffers after n bytes were written."""
    for i, buffer in enumerate(buffers):
        if n < len(buffer):
            return [memoryview(buffer)[n:], *buffers[i + 1 :]] if n else list(buffers[i:])
        n -= len(buffer)
    return []


def _as_exception(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else ConnectionAbortedError(f"interrupted by {type(error).__name__}")
