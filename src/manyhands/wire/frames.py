"""Frames: events to bytes and back, after the handshake. No sockets, no clock.

    ┌────────────────┬──────────┬──────────┬──────────┬─────────
    │ length  u32 BE │ type u8  │ flags u8 │ zero u16 │ payload …      one frame; length counts the payload only
    └────────────────┴──────────┴──────────┴──────────┴─────────

A BATCH carries events as one msgpack array. A body over INLINE_BODY_BYTES does not ride in the batch: it goes ahead of it
in BODY frames of at most CHUNK_BYTES under a number, and the batch names the number, so that frames stay small and
anything urgent fits between two chunks. A batch over MAX_FRAME_BYTES travels as such a body itself.

Copies: the encoder hands out views of the sender's bodies. The decoder receives chunks straight into the memory of the
bytes object that the event will hold; only what happened to arrive in the same read as a header is moved once.

What a header claims is checked before anything is allocated for it, and memory grows with what has arrived, at most
GROW_BYTES ahead.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from manyhands._memory import keep_freed_memory
from manyhands._text import REASON_CHARS, readable
from manyhands.errors import PayloadTooLarge, ProtocolError
from manyhands.events import Attach, Attached, Reply, Request
from manyhands.model import MAX_BODY_BYTES
from manyhands.wire import bodies

HEADER = Struct("!IBBH")
BODY_NUMBER = Struct("!I")
FIRST_CHUNK = Struct("!IQ")

BATCH, BODY, ERROR = 1, 2, 3
NAMES_BODIES, IS_BODY = 1, 2
"""Flags of a BATCH: its payload also names bodies; its payload is only the number of the body that holds it."""
IS_FIRST = 1
"""Flag of a BODY chunk: the total size follows the number."""

INLINE_BODY_BYTES = 64 * 1024
CHUNK_BYTES = 256 * 1024
MAX_FRAME_BYTES = 16 * 1024 * 1024
MAX_ERROR_BYTES = 1024
GROW_BYTES = 4 * 1024 * 1024
MAX_UNFINISHED_BODIES = 8
CLIENT_PENDING_BYTES = 2**62
"""What a client takes in bodies before their batch: a grant may carry many, and its server has the key."""
BODY_OVERHEAD_BYTES = 1024
"""Counted for each body beside its size, so that a million tiny ones are not free."""

_BATCH_BODIES_BYTES = 64 * 1024 * 1024  # more in one batch only when a single event has more
_LEAST_BODY_BYTES = 1024  # what leaves an event that is over max_body_bytes even without its large bodies
_FIRST_BUFFER_BYTES = 4 * 1024
_BUFFER_BYTES = 256 * 1024
_DIRECT_BYTES = 16 * 1024
_FLAGS = {BATCH: NAMES_BODIES | IS_BODY, BODY: IS_FIRST, ERROR: 0}

NOT_ENCODABLE = (TypeError, ValueError, OverflowError, RecursionError)
"""What encoding raises for a value that msgpack has no form for: an int over 64 bits, a lone surrogate, a foreign object."""

Buffer = bytes | memoryview
E_co = TypeVar("E_co", covariant=True)


class Vocabulary(NamedTuple, Generic[E_co]):
    """Which events one direction may carry."""

    plain: msgspec.msgpack.Decoder[list[E_co]]
    naming: msgspec.msgpack.Decoder[tuple[list[bodies.Place], list[E_co]]]


ATTACHING: Vocabulary[Request | Attach] = Vocabulary(
    msgspec.msgpack.Decoder(list[Request | Attach]),
    msgspec.msgpack.Decoder(tuple[list[bodies.Place], list[Request | Attach]]),
)
TO_SERVER: Vocabulary[Any] = Vocabulary(
    msgspec.msgpack.Decoder(list[Request]),
    msgspec.msgpack.Decoder(tuple[list[bodies.Place], list[Request]]),
)
TO_CLIENT: Vocabulary[Reply | Attached] = Vocabulary(
    msgspec.msgpack.Decoder(list[Reply | Attached]),
    msgspec.msgpack.Decoder(tuple[list[bodies.Place], list[Reply | Attached]]),
)

_encode = msgspec.msgpack.Encoder().encode


class FrameEncoder:
    """One direction of one connection: events in, buffers for a vectored write out.

    Args:
        max_body_bytes: the receiver's limit.
        max_pending_bytes: how much the receiver takes in bodies before their batch; None is 2 x max_body_bytes.
    """

    def __init__(self, *, max_body_bytes: int = MAX_BODY_BYTES, max_pending_bytes: int | None = None) -> None:
        self.max_body_bytes = max_body_bytes
        self._max_pending_bytes = max_pending_bytes
        self._number = 0

    def encode(self, events: Sequence[Any]) -> list[Buffer]:
        """The frames that carry these events, in order.

        Every frame begins at a `bytes`; a memoryview continues the frame before it. Large bodies are views of the
        events' own memory, never copies.

        Raises:
            PayloadTooLarge: a body, or one event as a whole, is over max_body_bytes; nothing was encoded.
        """
        if bodies.any_over(events, INLINE_BODY_BYTES):
            return self._encode_with_bodies(events, INLINE_BODY_BYTES)
        payload = _encode(events)
        if len(payload) <= INLINE_BODY_BYTES:
            return [HEADER.pack(len(payload), BATCH, 0, 0) + payload]
        if len(payload) <= MAX_FRAME_BYTES:
            return [HEADER.pack(len(payload), BATCH, 0, 0), memoryview(payload)]
        if len(events) > 1:
            return self._halves(events)
        if len(payload) > self.max_body_bytes:
            return self._encode_with_bodies(events, _LEAST_BODY_BYTES)
        self._check_pending(len(payload))
        return self._as_body(payload, 0)

    @staticmethod
    def encode_plain(events: Sequence[Any]) -> bytes:
        """The one frame for events that are small and hold no body."""
        payload = _encode(events)
        return HEADER.pack(len(payload), BATCH, 0, 0) + payload

    def _encode_with_bodies(self, events: Sequence[Any], least_bytes: int) -> list[Buffer]:
        for body in bodies.large(events, self.max_body_bytes):
            raise PayloadTooLarge(
                f"A body of {len(body)} bytes is over the limit of {self.max_body_bytes} (max_body_bytes); "
                "put the data in a file or object store and send its path.",
                size_bytes=len(body),
                limit_bytes=self.max_body_bytes,
            )
        light, taken = bodies.take_out(events, least_bytes)
        pending = sum(len(body) + BODY_OVERHEAD_BYTES for _, _, body in taken)
        if len(events) > 1 and pending > _BATCH_BODIES_BYTES:
            return self._halves(events)
        self._check_pending(pending)
        places: list[bodies.Place] = []
        buffers: list[Buffer] = []
        for event, item, body in taken:
            places.append((event, item, self._add_chunks(buffers, body)))
        payload = _encode((places, light))
        if len(payload) <= MAX_FRAME_BYTES:
            buffers += (HEADER.pack(len(payload), BATCH, NAMES_BODIES, 0), memoryview(payload))
            return buffers
        if len(events) > 1:
            return self._halves(events)
        if len(payload) > self.max_body_bytes and least_bytes > _LEAST_BODY_BYTES:
            return self._encode_with_bodies(events, _LEAST_BODY_BYTES)
        self._check_pending(pending + len(payload))
        return buffers + self._as_body(payload, NAMES_BODIES)

    def _halves(self, events: Sequence[Any]) -> list[Buffer]:
        middle = len(events) // 2
        return self.encode(events[:middle]) + self.encode(events[middle:])

    def _check_pending(self, pending: int) -> None:
        """Refuse here what the receiver would close the connection for."""
        limit = 2 * self.max_body_bytes if self._max_pending_bytes is None else self._max_pending_bytes
        if pending + BODY_OVERHEAD_BYTES > limit:
            raise PayloadTooLarge(
                f"One request carries {pending} bytes; the server takes at most {limit}. Put fewer messages at once.",
                size_bytes=pending,
                limit_bytes=limit,
            )

    def _as_body(self, payload: bytes, flags: int) -> list[Buffer]:
        if len(payload) > self.max_body_bytes:
            raise PayloadTooLarge(
                f"One request or reply takes {len(payload)} bytes, over the limit of {self.max_body_bytes} "
                "(max_body_bytes); put fewer messages at once.",
                size_bytes=len(payload),
                limit_bytes=self.max_body_bytes,
            )
        buffers: list[Buffer] = []
        number = self._add_chunks(buffers, payload)
        buffers.append(HEADER.pack(BODY_NUMBER.size, BATCH, flags | IS_BODY, 0) + BODY_NUMBER.pack(number))
        return buffers

    def _add_chunks(self, buffers: list[Buffer], body: bytes) -> int:
        number = self._number = self._number % 0xFFFF_FFFF + 1
        view = memoryview(body)
        chunk = view[:CHUNK_BYTES]
        buffers.append(HEADER.pack(FIRST_CHUNK.size + len(chunk), BODY, IS_FIRST, 0) + FIRST_CHUNK.pack(number, len(view)))
        buffers.append(chunk)
        for start in range(CHUNK_BYTES, len(view), CHUNK_BYTES):
            chunk = view[start : start + CHUNK_BYTES]
            buffers.append(HEADER.pack(BODY_NUMBER.size + len(chunk), BODY, 0, 0) + BODY_NUMBER.pack(number))
            buffers.append(chunk)
        return number


def error_frame(text: str) -> bytes:
    """The last frame of a side that refuses to go on: one sentence for the peer's log."""
    payload = text.encode("utf-8", "replace")[:MAX_ERROR_BYTES]
    return HEADER.pack(len(payload), ERROR, 0, 0) + payload


class _Memory(io.BytesIO):
    """Memory to receive into. Dropping it with a view of it says nothing.

    From 3.13 on a collector that finds both in one cycle may finalise this first; `close` then fails, on stderr, although
    the memory goes with the view as it should.
    """

    def close(self) -> None:
        with contextlib.suppress(BufferError):
            super().close()


class _Incoming:
    """A body on its way in.

    BytesIO because it is the one way to receive into memory that then *is* the bytes object: getvalue() hands over its
    buffer without a copy when nothing else looks at it (30 times faster for 1 MB than bytes(bytearray)).
    """

    __slots__ = ("_file", "arrived", "total")

    def __init__(self, total: int) -> None:
        keep_freed_memory()
        self.total = total
        self.arrived = 0
        self._file = _Memory()
        self._grow()

    def _grow(self) -> None:
        self._file.seek(min(self.total, self.arrived + GROW_BYTES) - 1)
        self._file.write(b"\0")

    def room(self, wanted: int) -> memoryview:
        """Writable memory for the next bytes: at least one, at most wanted."""
        view = self._file.getbuffer()
        if self.arrived == len(view):
            view.release()
            self._grow()
            view = self._file.getbuffer()
        return view[self.arrived : self.arrived + wanted]

    def write(self, data: memoryview) -> None:
        while data:
            with self.room(len(data)) as room:
                n = len(room)
                room[:] = data[:n]
            self.arrived += n
            data = data[n:]

    def value(self) -> bytes:
        return self._file.getvalue()


class FrameDecoder(Generic[E_co]):
    """One direction of one connection: bytes in, events out. The same shape as asyncio.BufferedProtocol.

    Args:
        vocabulary: which events may come; may be replaced later by a narrower one.
        max_body_bytes: a larger body is refused at its first header.
        max_pending_bytes: so much may be announced in bodies that no batch has named yet.

    After a ProtocolError the decoder is spent: close the connection.
    """

    def __init__(
        self,
        vocabulary: Vocabulary[E_co],
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        max_pending_bytes: int | None = None,
    ) -> None:
        self.vocabulary = vocabulary
        self.max_body_bytes = max_body_bytes
        self._max_pending_bytes = 2 * max_body_bytes if max_pending_bytes is None else max_pending_bytes
        self._pending_bytes = 0
        self._unfinished: dict[int, _Incoming] = {}
        self._finished: dict[int, _Incoming] = {}
        self._buffer = bytearray(_FIRST_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._front = self._view  # what is offered of it while it is empty: the less, the less of a body must be moved out
        self._start = self._end = 0
        self._frame_bytes = 0  # of the batch at _start that has not fully arrived, its header included; else 0
        self._chunk_left = 0  # of the chunk being received, into _body
        self._body: _Incoming | None = None
        self._body_number = 0
        self._given: memoryview | None = None  # the view of a body that the last get_buffer gave

    def get_buffer(self) -> memoryview:
        """Memory for the next read; never empty. Valid until the next call."""
        if self._start == self._end < len(self._buffer) and not self._chunk_left and self._given is None:
            self._start = self._end = 0
            return self._front
        if self._given is not None:
            self._given.release()  # a caller may still hold it, and what is looked at cannot grow
            self._given = None
        if self._chunk_left >= _DIRECT_BYTES and self._start == self._end and self._body is not None:
            self._given = self._body.room(self._chunk_left)
            return self._given
        size = len(self._buffer)
        was_filled = self._end == size
        if self._start == self._end:
            self._start = self._end = 0
        if was_filled or (size - self._end < size // 4 and self._start):
            self._make_room(was_filled)
        return self._view[self._end :] if self._end else self._front

    def _make_room(self, was_filled: bool) -> None:
        """Move what is left to the front; into a larger buffer when the last read filled this one."""
        arrived = self._end - self._start
        size = wanted = len(self._buffer)
        if was_filled:
            wanted = max(size, min(size * 4, _BUFFER_BYTES))
            # A batch must lie in one piece; doubling keeps the moving cheap and never claims far ahead of what came.
            wanted = max(wanted, min(self._frame_bytes, arrived + max(arrived, GROW_BYTES)))
        before = self._view[self._start : self._end]
        if wanted != size:
            self._claim_buffer(wanted)
        self._view[:arrived] = before
        self._start, self._end = 0, arrived

    def _claim_buffer(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = self._front = memoryview(self._buffer)

    def buffer_updated(self, n: int) -> list[E_co]:
        """n bytes were received into the buffer; what they complete.

        Raises:
            ProtocolError: the bytes are not this protocol, or break its limits.
        """
        if self._given is not None:
            assert self._body is not None
            self._body.arrived += n
            self._count(n)
            return []
        start, self._end = self._start, self._end + n
        payload_at = start + HEADER.size
        if payload_at <= self._end and not self._chunk_left:
            length, kind, flags, zero = HEADER.unpack_from(self._buffer, start)
            if kind == BATCH and not flags and not zero and payload_at + length == self._end <= _BUFFER_BYTES:
                # The usual case: one whole batch and nothing else. _parse would do the same in more steps.
                self._start = self._end
                self._frame_bytes = 0
                payload = self._view[payload_at : self._end]
                try:
                    return self.vocabulary.plain.decode(payload)
                except Exception:
                    return self._decode(payload, 0)  # raises what this is to its caller
        return self._parse()

    def feed(self, data: bytes | memoryview) -> list[E_co]:
        """Take bytes that were received elsewhere."""
        events: list[E_co] = []
        view = memoryview(data)
        while view:
            room = self.get_buffer()
            n = min(len(room), len(view))
            room[:n] = view[:n]
            del room
            events += self.buffer_updated(n)
            view = view[n:]
        return events

    @property
    def pending_bytes(self) -> int:
        """What is announced in bodies that no batch has named yet."""
        return self._pending_bytes

    def _parse(self) -> list[E_co]:
        events: list[E_co] = []
        buffer = self._buffer
        while True:
            if self._chunk_left:
                self._take_chunk()
                if self._chunk_left:
                    return events
            start = self._start
            available = self._end - start
            if available < HEADER.size:
                return events
            length, kind, flags, zero = HEADER.unpack_from(buffer, start)
            if kind != BATCH or flags or zero or length > MAX_FRAME_BYTES:
                self._check_header(length, kind, flags, zero)
            if kind == BODY:
                if not self._begin_chunk(length, flags, available):
                    return events
                continue
            if available < HEADER.size + length:
                self._frame_bytes = HEADER.size + length
                self._front = self._view  # batches come, and larger ones than the front holds
                return events
            self._frame_bytes = 0
            self._start = start + HEADER.size + length
            payload = self._view[start + HEADER.size : self._start]
            if kind == ERROR:
                text = readable(str(payload, "utf-8", "replace"), REASON_CHARS)
                raise ProtocolError(f"The peer closed the connection, saying: {text}")
            batch = self._decode(payload, flags)
            events = events + batch if events else batch
            if len(buffer) > _BUFFER_BYTES and self._start == self._end:
                self._claim_buffer(_BUFFER_BYTES)  # give back what one large batch needed
                buffer = self._buffer
                self._start = self._end = 0

    def _check_header(self, length: int, kind: int, flags: int, zero: int) -> None:
        known = _FLAGS.get(kind)
        if known is None:
            raise ProtocolError(
                f"The peer sent a frame of type {kind}, which does not exist in this version of the protocol."
            )
        if flags & ~known or zero:
            raise ProtocolError(
                f"The peer set flags {flags:#04x}/{zero:#06x} in a frame of type {kind}, which do not exist there."
            )
        limit = MAX_FRAME_BYTES if kind == BATCH else FIRST_CHUNK.size + CHUNK_BYTES if kind == BODY else MAX_ERROR_BYTES
        if length > limit:
            raise ProtocolError(f"The peer announced a frame of {length} bytes; one of type {kind} has at most {limit}.")

    def _begin_chunk(self, length: int, flags: int, available: int) -> bool:
        """Take a BODY frame's header, if all of it is here."""
        form = FIRST_CHUNK if flags & IS_FIRST else BODY_NUMBER
        if length <= form.size:
            raise ProtocolError(f"The peer sent a body chunk of {length} bytes, which leaves no room for data.")
        if available < HEADER.size + form.size:
            return False
        fields = form.unpack_from(self._buffer, self._start + HEADER.size)
        number, chunk_bytes = fields[0], length - form.size
        if flags & IS_FIRST:
            self._announce(number, fields[1])
        body = self._unfinished.get(number)
        if body is None:
            raise ProtocolError(f"The peer sent a chunk of body {number}, which was not announced.")
        if chunk_bytes > body.total - body.arrived or chunk_bytes > CHUNK_BYTES:
            raise ProtocolError(
                f"The peer sent {chunk_bytes} bytes of body {number}, more than it announced or a chunk may have."
            )
        self._start += HEADER.size + form.size
        self._body, self._body_number, self._chunk_left = body, number, chunk_bytes
        return True

    def _announce(self, number: int, total: int) -> None:
        if number in self._unfinished or number in self._finished:
            raise ProtocolError(f"The peer announced body {number} twice.")
        if not 0 < total <= self.max_body_bytes:
            raise ProtocolError(
                f"The peer announced a body of {total} bytes; the limit is {self.max_body_bytes} bytes (max_body_bytes)."
            )
        if self._pending_bytes + total + BODY_OVERHEAD_BYTES > self._max_pending_bytes:
            raise ProtocolError(
                f"The peer announced more than {self._max_pending_bytes} bytes of bodies before the batch that names them; "
                "put fewer large messages at once."
            )
        if len(self._unfinished) == MAX_UNFINISHED_BODIES:
            raise ProtocolError(f"The peer began more than {MAX_UNFINISHED_BODIES} bodies without finishing one.")
        self._pending_bytes += total + BODY_OVERHEAD_BYTES
        self._unfinished[number] = _Incoming(total)
        self._front = self._view[:_DIRECT_BYTES]

    def _take_chunk(self) -> None:
        n = min(self._chunk_left, self._end - self._start)
        if n:
            assert self._body is not None
            self._body.write(self._view[self._start : self._start + n])
            self._start += n
            self._count(n)

    def _count(self, n: int) -> None:
        """n bytes of the current chunk are in their body now."""
        body = self._body
        assert body is not None
        self._chunk_left -= n
        if not self._chunk_left:
            self._body = None
            if body.arrived == body.total:
                del self._unfinished[self._body_number]
                self._finished[self._body_number] = body

    def _decode(self, payload: memoryview, flags: int) -> list[E_co]:
        source: Buffer = payload
        if flags & IS_BODY:
            if len(payload) != BODY_NUMBER.size:
                raise ProtocolError(f"The peer sent a batch of {len(payload)} bytes where only a body's number belongs.")
            source = self._claim(BODY_NUMBER.unpack(payload)[0])
        try:
            if not flags & NAMES_BODIES:
                return self.vocabulary.plain.decode(source)
            places, events = self.vocabulary.naming.decode(source)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, OverflowError) as error:
            raise ProtocolError(f"The peer sent a batch that is not a list of this protocol's events: {error}.") from error
        for event, item, number in places:
            if not 0 <= event < len(events):
                raise ProtocolError(f"The peer named a body for event {event} of a batch of {len(events)}.")
            bodies.put_in(events[event], item, self._claim(number))
        return events

    def _claim(self, number: int) -> bytes:
        body = self._finished.pop(number, None)
        if body is None:
            raise ProtocolError(f"The peer named body {number}, which has not fully arrived or was named before.")
        self._pending_bytes -= body.total + BODY_OVERHEAD_BYTES
        # Only now: right after the last read an event loop still looks at the memory, and that would cost a copy.
        return body.value()
