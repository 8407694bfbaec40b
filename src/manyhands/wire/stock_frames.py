"""The standard library's framing (multiprocessing/connection.py): a length, then the message.

    !i length | body                       up to 0x7fffffff bytes
    !i -1 | !Q length | body               larger ones; allowed for any

The standard library itself lets every other negative length pass, and allocates what a header claims. Here both are decided
from the header, and memory grows with what has arrived.
"""

from __future__ import annotations

from struct import Struct

from manyhands.errors import ProtocolError

_SHORT, _LONG = Struct("!i"), Struct("!Q")
_MAX_SHORT = 0x7FFFFFFF
SCRATCH_BYTES = 64 * 1024
_GROW_BYTES = 1024 * 1024
_COPIED_BYTES = 16 * 1024
"""A body up to this size is put together from what was read; a larger one is read into memory of its own."""


def header(size: int) -> bytes:
    """What stands before a body of that size."""
    return _SHORT.pack(size) if size <= _MAX_SHORT else _SHORT.pack(-1) + _LONG.pack(size)


class StockFrames:
    """One direction of one connection: bytes in, bodies out. The same shape as asyncio.BufferedProtocol.

    Args:
        limit_bytes: a larger body is refused from its header.
        scratch: memory to read into; may be shared by all connections of one thread, because nothing is left in it between
            `get_buffer` and `buffer_updated`.
    """

    def __init__(self, limit_bytes: int, scratch: bytearray | None = None) -> None:
        self._limit_bytes = limit_bytes
        self._scratch = memoryview(scratch or bytearray(SCRATCH_BYTES))
        self._rest = b""
        self._body: bytearray | None = None
        self._size = self._arrived = 0
        self._given: memoryview | None = None

    @property
    def is_midway(self) -> bool:
        """Whether a frame has begun and is not whole yet."""
        return bool(self._rest) or self._body is not None

    def get_buffer(self) -> memoryview:
        """Memory for the next read; never empty. Valid until the next call."""
        if self._body is None:
            return self._scratch
        if self._given is not None:
            self._given.release()  # a caller may still hold it, and what is looked at cannot grow
            self._given = None
        room = len(self._body)
        if self._arrived == room:
            self._body.extend(bytes(min(self._size, room + max(room, _GROW_BYTES)) - room))
        self._given = memoryview(self._body)[self._arrived :]
        return self._given

    def buffer_updated(self, n: int) -> list[bytes | bytearray]:
        """n bytes were received into the buffer; the bodies that they complete.

        Raises:
            ProtocolError: a length is negative, or over the limit.
        """
        if self._body is None:
            arrived = bytes(self._scratch[:n])
            return self._cut(self._rest + arrived if self._rest else arrived)
        self._arrived += n
        if self._arrived < self._size:
            return []
        body, self._body = self._body, None
        self._given = None  # not released: whoever read into it may be in the middle of that still
        return [body]

    def feed(self, data: bytes) -> list[bytes | bytearray]:
        """Take bytes that were received elsewhere."""
        bodies: list[bytes | bytearray] = []
        view = memoryview(data)
        while view:
            room = self.get_buffer()
            n = min(len(room), len(view))
            room[:n] = view[:n]
            bodies += self.buffer_updated(n)
            view = view[n:]
        return bodies

    def _cut(self, data: bytes) -> list[bytes | bytearray]:
        bodies: list[bytes | bytearray] = []
        at, end = 0, len(data)
        while end - at >= _SHORT.size:
            (size,) = _SHORT.unpack_from(data, at)
            start = at + _SHORT.size
            if size == -1:
                if end - start < _LONG.size:
                    break
                (size,) = _LONG.unpack_from(data, start)
                start += _LONG.size
            if not 0 <= size <= self._limit_bytes:
                raise ProtocolError(
                    f"The peer announced a message of {size} bytes, and they have 0 to {self._limit_bytes}; "
                    "put large data in a file that both sides reach and send its path."
                )
            if end - start < size:
                if size > _COPIED_BYTES:
                    self._begin(data[start:], size)
                    at = end
                break
            at = start + size
            bodies.append(data[start:at])
        self._rest = data[at:]
        return bodies

    def _begin(self, beginning: bytes, size: int) -> None:
        self._body = bytearray(beginning)
        self._size, self._arrived = size, len(beginning)
