"""One TCP connection of a client: all that touches its socket is here, so that TLS can come in here later.

Nothing blocks but `wait` and `receive`. Where the system can say so for each call (MSG_DONTWAIT), the socket itself is a
blocking one, so that a thread that waits for nothing but bytes needs one system call for waiting and reading.

Reading is one thread's at a time (the port's reader); writing happens under the port's lock. `interrupt` may come from any
thread and makes `wait` return: a byte in a socket pair, since a thread blocked in poll can be woken by nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import time
from collections.abc import Sequence
from typing import Protocol

from manyhands import _sockets
from manyhands.address import Address

WOULD_BLOCK = -1
_MAX_VECTORS = 512  # below every platform's IOV_MAX
_JOIN_BYTES = 32768  # below this a copy costs less than a vectored write
LOOK_S = 0.0005
"""More than a round trip on one machine takes; over a network the waits are longer, and nobody looks."""
_GAP_S = 0.00005
"""Between two looks lies a microsecond or two. So long a gap means that another thread or program had the processor."""
_SLEEPS = 64
"""So many waits are slept through before anybody looks again where the processor was wanted by others."""
_LONGEST_S = 86400.0  # poll(2) counts milliseconds in 32 bits; who waits longer comes back
_NO_WAIT = getattr(socket, "MSG_DONTWAIT", 0)  # Windows has none: there the socket does not block
_BLOCK_S = 1
"""How long `receive` waits at most: no interrupt reaches it in the kernel, only the connection's end does, and what it waits
for may have come otherwise."""
_HAS_CORES = (os.cpu_count() or 1) > 1

Buffer = bytes | bytearray | memoryview


class Transport:
    """A connected socket and the means to wait for it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(bool(_NO_WAIT))
        _sockets.tune(sock)
        self._can_block = bool(_NO_WAIT) and _limit_blocking(sock)
        self._sock = sock
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poll = _make_poll(sock, self._woken)
        self._was_short = False
        self._sleeps = 0  # so many waits more are slept through

    def wait(self, timeout_s: float | None, *, for_writing: bool, is_hurried: bool = False) -> bool:
        """Block until there is something to read (true), or to write if asked, or an interrupt, or the time is over.

        Args:
            is_hurried: somebody waits for what comes: when the last such wait was short, look again and again for LOOK_S
                before going to sleep, since to be woken from sleep costs more than the wait (ADR 0035), unless others want
                the processor (ADR 0107).
        """
        is_readable = is_woken = False
        if is_hurried and timeout_s != 0 and _HAS_CORES:
            started = looked = time.perf_counter()
            if self._sleeps:
                self._sleeps -= 1
            elif self._was_short:
                while not (is_readable or is_woken) and looked - started < LOOK_S:
                    is_readable, is_woken = self._poll.wait(0, for_writing=for_writing)
                    before, looked = looked, time.perf_counter()
                    if looked - before > _GAP_S:
                        self._sleeps = _SLEEPS
                        break
            if not (is_readable or is_woken):
                is_readable, is_woken = self._poll.wait(timeout_s, for_writing=for_writing)
            self._was_short = time.perf_counter() - started < LOOK_S
        else:
            is_readable, is_woken = self._poll.wait(timeout_s, for_writing=for_writing)
        if is_woken:
            with contextlib.suppress(OSError):
                self._woken.recv(4096)
        return is_readable

    def receive(self, view: Buffer, timeout_s: float | None, *, is_hurried: bool) -> int:
        """Wait for bytes, as `wait` does but at most for _BLOCK_S, and read them; as recv_into."""
        limit_s = _BLOCK_S if timeout_s is None else min(timeout_s, _BLOCK_S)
        if self._can_block and not is_hurried and limit_s == _BLOCK_S:
            try:
                return self._sock.recv_into(view)
            except (BlockingIOError, InterruptedError):
                return WOULD_BLOCK
        return self.recv_into(view) if self.wait(limit_s, for_writing=False, is_hurried=is_hurried) else WOULD_BLOCK

    def interrupt(self) -> None:
        """Make the thread in `wait` return soon."""
        with contextlib.suppress(OSError):  # full: it is on its way; closed: nobody waits
            self._waker.send(b"\0")

    def recv_into(self, view: Buffer) -> int:
        """Bytes read; 0 when the peer has ended; WOULD_BLOCK when there is nothing.

        Raises:
            OSError: the connection is broken.
        """
        try:
            return self._sock.recv_into(view, 0, _NO_WAIT)
        except (BlockingIOError, InterruptedError):
            return WOULD_BLOCK

    def send(self, buffers: Sequence[Buffer]) -> int:
        """Write what the kernel takes at once; how many bytes.

        Raises:
            OSError: the connection is broken.
        """
        try:
            if len(buffers) == 1:
                return self._sock.send(buffers[0], _NO_WAIT)
            if sum(map(len, buffers)) <= _JOIN_BYTES:
                return self._sock.send(b"".join(buffers), _NO_WAIT)
            if hasattr(self._sock, "sendmsg"):
                return self._sock.sendmsg(buffers[:_MAX_VECTORS], (), _NO_WAIT)
            return self._sock.send(buffers[0], _NO_WAIT)  # Windows
        except (BlockingIOError, InterruptedError):
            return 0

    def shut_down(self) -> None:
        """End the connection for both sides; whoever waits wakes and finds it ended. The socket stays to be closed."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def end_writing(self) -> None:
        """Tell the peer that nothing more will come; what it still has for us can be read."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close the sockets of this process; a copy that a fork left elsewhere is not touched. Idempotent."""
        for sock in (self._sock, self._woken, self._waker):
            sock.close()


def _limit_blocking(sock: socket.socket) -> bool:
    """Let a read that blocks return after _BLOCK_S; whether the system does that."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", _BLOCK_S, 0))
    except OSError:
        return False
    return True


def dial(address: Address, timeout_s: float) -> socket.socket:
    """Connect to the first of the host's addresses that answers.

    Raises:
        OSError: none did, or the name is unknown (socket.gaierror).
    """
    return socket.create_connection((address.host, address.port), timeout=timeout_s)


class _Poll(Protocol):
    def wait(self, timeout_s: float | None, *, for_writing: bool) -> tuple[bool, bool]:
        """Whether the socket is readable (or ended), and whether the wake-up socket is."""
        ...


class _UnixPoll:
    """poll(2): no limit on descriptor numbers, and nothing to register anew for each wait."""

    def __init__(self, sock: socket.socket, woken: socket.socket) -> None:
        self._fd = sock.fileno()
        self._woken_fd = woken.fileno()
        self._is_writing = False
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self._poll.register(self._woken_fd, select.POLLIN)

    def wait(self, timeout_s: float | None, *, for_writing: bool) -> tuple[bool, bool]:
        if for_writing is not self._is_writing:
            self._poll.modify(self._fd, select.POLLIN | select.POLLOUT if for_writing else select.POLLIN)
            self._is_writing = for_writing
        is_readable = is_woken = False
        for fd, event in self._poll.poll(None if timeout_s is None else min(timeout_s, _LONGEST_S) * 1000):
            if fd == self._woken_fd:
                is_woken = True
            else:
                is_readable = bool(event & ~select.POLLOUT)  # errors and hang-ups are found by reading
        return is_readable, is_woken


class _SelectPoll:
    """select, where there is no poll (Windows)."""

    def __init__(self, sock: socket.socket, woken: socket.socket) -> None:
        self._sock = sock
        self._woken = woken

    def wait(self, timeout_s: float | None, *, for_writing: bool) -> tuple[bool, bool]:
        try:
            readable, _, _ = select.select(
                [self._sock, self._woken],
                [self._sock] if for_writing else [],
                [self._sock],
                None if timeout_s is None else min(timeout_s, _LONGEST_S),
            )
        except ValueError:  # closed meanwhile: found by reading
            return True, False
        return self._sock in readable, self._woken in readable


def _make_poll(sock: socket.socket, woken: socket.socket) -> _Poll:
    return _UnixPoll(sock, woken) if hasattr(select, "poll") else _SelectPoll(sock, woken)
