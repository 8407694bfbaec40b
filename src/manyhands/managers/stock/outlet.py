"""Writing to one peer from two sides: the loop's thread, and whichever thread has the answer that the peer waits for.

The second saves a turn of the loop, which a master's put to a waiting worker would else cost. Only one side writes at a time
(`turn`), the other thread only while the transport has nothing to write itself, so that no bytes overtake others; what the
kernel does not take of it at once is the first thing that the loop writes.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from manyhands.wire.stock_frames import header

_CAN_WRITE_THROUGH = os.name == "posix"  # os.write takes no sockets on Windows
_JOINED_BYTES = 64 * 1024


class Outlet:
    """One connection's way out."""

    def __init__(self, transport: asyncio.Transport, fd: int) -> None:
        self.turn = threading.Lock()
        """Held by whoever takes the engine's answers and writes."""
        self.fd = fd
        self.transport: asyncio.Transport | None = transport
        """None once the connection is gone."""
        self._is_through = False
        self._gathered: list[bytes] = []
        """What an answer from another thread is made of."""
        self._unsent = b""

    def write_message(self, *parts: bytes | memoryview) -> None:
        """One reply, with its length in front."""
        size = sum(map(len, parts))
        if size <= _JOINED_BYTES or self._is_through:
            self.write(b"".join((header(size), *parts)))
        elif self.transport is not None:
            self.write_unsent()
            for part in (header(size), *parts):  # not writelines: see server/connection.py
                self.transport.write(part)

    def write(self, data: bytes) -> None:
        """Bytes as they are. With the turn; within `through`, they leave at its end."""
        if self._is_through:
            self._gathered.append(data)
        elif self.transport is not None:
            self.write_unsent()
            self.transport.write(data)

    def write_unsent(self) -> None:
        """In the loop's thread: what `through` left."""
        if self._unsent and self.transport is not None:
            data, self._unsent = self._unsent, b""
            self.transport.write(data)

    def through(self, answer: Callable[[], bool]) -> bool:
        """From another thread: write at once what answer() writes here.

        Args:
            answer: called only if nothing is in the way; whether it left nothing to do for the loop.

        Returns:
            Whether nothing is left for the loop.
        """
        if not _CAN_WRITE_THROUGH or not self.turn.acquire(False):
            return False
        try:
            if self.transport is None or self._unsent or self.transport.get_write_buffer_size():
                return False
            self._is_through = True
            is_all = answer()
            data = b"".join(self._gathered)
            rest = data[_written(self.fd, data) :] if data else b""
            self._unsent = rest
            return is_all and not rest
        finally:
            self._is_through = False
            self._gathered.clear()
            self.turn.release()

    def lost(self) -> None:
        """The connection is gone: its descriptor is closed behind this call, and its number may be another file's then."""
        with self.turn:
            self.transport = None
            self.fd = -1


def _written(fd: int, data: bytes) -> int:
    try:
        return os.write(fd, data)
    except OSError:  # full, or broken: the loop will find out which
        return 0
