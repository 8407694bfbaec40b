"""One peer's connection, in the loop's thread: bytes to the wire, requests to the engine's port, replies back.

    transport ── buffer_updated ──> ServerWire ── requests ──> Port.send ──> engine
        ^                                                                      │
        └── write ── ServerWire.encode <── flush, once a turn <── outbox <── sink (any thread)

Nothing here is done for each message alone: what one read brought goes to the engine in one list, and what gathered in the
outbox since the last turn leaves in one write.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import msgspec

from manyhands import _sockets
from manyhands.engines.base import Port
from manyhands.errors import AuthenticationFailed, ManyhandsError, ProtocolError
from manyhands.events import Attach, Attached, Closing, Done, Failed, Reply, Settled
from manyhands.wire.frames import Buffer
from manyhands.wire.server import Authenticated, PeerIsStock, ServerEvent, ServerWire

if TYPE_CHECKING:
    from manyhands.server.listener import SocketServer

logger = logging.getLogger(__name__)

WRITE_HIGH_BYTES, WRITE_LOW_BYTES = 4 * 1024 * 1024, 1024 * 1024
STALL_S = 30.0
"""A peer that takes fewer than MIN_BYTES in this time, while there is more for it, is dropped and its leases return."""
MIN_BYTES = 32 * 1024

_CAN_WRITE_THROUGH = os.name == "posix"  # os.write takes no sockets on Windows
_PATIENT = frozenset({Done, Settled})
"""Replies that nobody may be waiting for: their rid is negative then."""
_MAX_VECTORS = 512  # below every platform's IOV_MAX
_LARGE_READ_BYTES = 16 * 1024
_READ_AT_ONCE_BYTES = 1024 * 1024
"""So much of one peer's large bodies is read before others have their turn."""


class Arrival(NamedTuple):
    """A standard-library peer that has answered the challenge with the right digest, for whoever serves it."""

    transport: asyncio.Transport
    fd: int
    peer: str
    dialect: str
    """How it signs; see `handshake.stock_dialect`."""
    early: bytes
    """What it sent behind its digest."""
    reached_at: tuple[str, int]
    """Our address as the peer has dialled it."""


class Connection(asyncio.BufferedProtocol):
    """One peer. Every method but `sink` is called in the loop's thread."""

    linger_s = 1.0
    """How long an orderly stop waits for the peer to take what was written for it."""

    __slots__ = (
        "_attaching",
        "_early",
        "_encoded",
        "_has_leisure",
        "_is_closing",
        "_is_dirty",
        "_is_stuck",
        "_outbox",
        "_port",
        "_reads_on",
        "_room",
        "_server",
        "_stall",
        "_transport",
        "_wire",
        "_writes",
        "_writing",
        "fd",
        "peer",
        "session",
    )

    def __init__(self, server: SocketServer, wire: ServerWire) -> None:
        self.fd = -1
        self.peer = ""
        """The other side's host, for logs and for counting its failures."""
        self.session = ""
        self._server = server
        self._writes = server.writing
        self._wire = wire
        self._room = 0
        self._reads_on = False
        self._transport: asyncio.Transport | None = None
        self._port: Port | None = None
        self._outbox: list[Reply | Attached] = []
        self._encoded: list[Buffer] = []
        self._writing = threading.Lock()
        self._early: list[Any] = []
        self._is_dirty = False
        self._has_leisure = False
        """Whether answers that nobody waits for will be flushed in a while, should nothing else take them along."""
        self._is_stuck = False
        self._is_closing = False
        self._attaching = False
        self._stall: asyncio.TimerHandle | None = None

    # -- the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # uvloop still looks at the memory that it was given while it tells of it, and reads on by itself.
        self._reads_on = _CAN_WRITE_THROUGH and type(transport).__module__.startswith("asyncio.")
        self._transport.set_write_buffer_limits(WRITE_HIGH_BYTES, WRITE_LOW_BYTES)
        sock = transport.get_extra_info("socket")
        self.fd = sock.fileno()
        self.peer = str((transport.get_extra_info("peername") or ("unknown",))[0]).removeprefix("::ffff:")
        _sockets.tune(sock)
        self._server.arrived(self)
        self._transport.write(self._wire.greeting())

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._wire.get_buffer()
        self._room = len(view)
        return view

    def buffer_updated(self, n: int) -> None:
        if self._is_closing:
            return
        try:
            events: list[Any] = self._wire.received(n)
            port = self._port
            if port is None:
                self._before_attached(events)
                return
            if n == self._room and n >= _LARGE_READ_BYTES and self._reads_on:
                events = self._read_on(events)
            self._writes.bring(port, events)
        except AuthenticationFailed as error:
            self._refuse(str(error), delay_s=self._server.wrong_key(self))
        except ProtocolError as error:
            self._refuse(str(error), delay_s=0.0)
        except ManyhandsError as error:  # the engine cannot go on with this session
            logger.error("Dropped %s: the engine failed: %s", self.peer, error)
            self.close(self._wire.goodbye(str(error)))
        except Exception:
            logger.exception("Dropped %s: a bug in the server or its engine", self.peer)
            self.close(self._wire.goodbye("The server failed in a way that is a bug; its log has the details."))

    def _read_on(self, events: list[ServerEvent]) -> list[ServerEvent]:
        """In the middle of a large body: read what is there without a turn of the loop for each piece."""
        left = _READ_AT_ONCE_BYTES
        while left > 0:
            view = self._wire.get_buffer()
            room = len(view)
            try:
                n = os.readv(self.fd, [view])
            except OSError:  # nothing more yet, or broken: the transport will find out which
                break
            finally:
                del view  # what is looked at cannot become a body's bytes
            if not n:
                break  # its end: the transport finds that, too
            events = events + self._wire.received(n)
            left -= n
            if n < room:
                break
        return events

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = True
        with self._writing:  # the descriptor is closed behind this call, and its number may be another file's then
            self.fd = -1
            self._transport = None
        self._outbox.clear()
        if self._stall is not None:
            self._stall.cancel()
        self.leave_session()
        self._server.left(self)

    def pause_writing(self) -> None:
        # A peer that does not read is not read from either: what it can be owed stays bounded by what it asked for.
        self._is_stuck = True
        if self._transport is not None and not self._is_closing:
            self._transport.pause_reading()
            self._watch_stall()

    def resume_writing(self) -> None:
        self._is_stuck = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        if self._transport is not None and not self._is_closing:
            if not self._attaching:
                self._transport.resume_reading()
            self.flush()

    # -- the engine's side

    def sink(self, replies: Sequence[Reply]) -> None:
        """Take replies for this peer, from any thread; they leave with the next turn of the loop, or at once."""
        if len(replies) == 1:
            reply = replies[0]
            if type(reply) is Done and reply.rid > 0 and self._answer_through(reply):
                return
        self._outbox += replies
        if self._is_dirty:
            return
        for reply in reversed(replies):  # what somebody waits for is rarely at the front
            if type(reply) not in _PATIENT or reply.rid > 0:  # type: ignore[union-attr]
                self._is_dirty = True
                self._writes.flush_soon(self)
                return
        if not self._has_leisure:
            self._has_leisure = True
            self._writes.flush_late(self)

    def flush_late(self) -> None:
        """Write the answers that nobody waits for, if nothing took them along meanwhile."""
        self._has_leisure = False
        self.flush()

    def flush(self) -> None:
        """Write what has gathered, if the peer takes it."""
        with self._writing:
            # Lowered first: whoever adds from here on asks for another flush, at worst for nothing.
            self._is_dirty = False
            transport = self._transport
            if transport is None or self._is_stuck or self._is_closing:
                return  # closing: another thread's answer came after the goodbye
            buffers = self._take_encoded()
            if len(buffers) > 1 and not transport.get_write_buffer_size():
                buffers = self._write_vectors(buffers)  # asyncio would first copy them into one, up to 3.11
            for buffer in buffers:  # not writelines: asyncio's of 3.12 and 3.13.0 says nothing of a peer that does not read
                transport.write(buffer)

    def _write_vectors(self, buffers: list[Buffer]) -> list[Buffer]:
        """Write what the kernel takes at once; what is left. Only while the transport has nothing to write itself."""
        if not _CAN_WRITE_THROUGH:
            return buffers
        try:
            written = os.writev(self.fd, buffers[:_MAX_VECTORS])
        except OSError:  # full, or broken: the transport will find out which
            return buffers
        for at, buffer in enumerate(buffers):
            if written < len(buffer):
                return [memoryview(buffer)[written:], *buffers[at + 1 :]]
            written -= len(buffer)
        return []

    def write_through(self) -> bool:
        """From another thread than the loop's: write what has gathered at once, without a turn of the loop.

        A master's put reaches a waiting worker one thread switch sooner. Only while the loop has nothing to write itself, so
        that no bytes overtake others; what the kernel does not take is left to it.

        Returns:
            Whether nothing is left for the loop.
        """
        if not _CAN_WRITE_THROUGH or not self._writing.acquire(False):
            return False
        try:
            transport = self._transport
            if transport is None or self._is_stuck or self._is_closing or transport.get_write_buffer_size():
                return False
            self._is_dirty = False
            buffers = self._take_encoded()
            if not buffers:
                return True
            if len(buffers) == 1:
                try:
                    written = os.write(self.fd, buffers[0])
                except OSError:  # full, or broken: the loop will find out which
                    written = 0
                if written == len(buffers[0]):
                    return True
                buffers = [memoryview(buffers[0])[written:]]
            self._encoded = buffers
            self._is_dirty = True
            return False
        finally:
            self._writing.release()

    def _answer_through(self, reply: Done) -> bool:
        """`write_through` for a lone answer that somebody waits for; whether it was written whole.

        A thread that has committed for many clients comes here for each of them, so there is no step too many.
        """
        if self._outbox or not self._writes.is_elsewhere():
            return False
        if not _CAN_WRITE_THROUGH or not self._writing.acquire(False):
            return False
        try:
            transport = self._transport
            if transport is None or self._is_stuck or self._is_closing or self._encoded or transport.get_write_buffer_size():
                return False
            frame = self._wire.encode_done(reply)
            try:
                written = os.write(self.fd, frame)
            except OSError:  # full, or broken: the loop will find out which
                return False
            if written == len(frame):
                return True
            self._encoded = [memoryview(frame)[written:]]
        finally:
            self._writing.release()
        self._is_dirty = True
        self._writes.flush_soon(self)
        return True

    def _take_encoded(self) -> list[Buffer]:
        """What is to be written next. Not a swap of the outbox: another thread may be about to extend that very list."""
        outbox = self._outbox
        replies = outbox[:]
        del outbox[: len(replies)]
        if not self._encoded:
            return self._wire.encode(replies) if replies else []
        buffers, self._encoded = self._encoded, []
        return buffers + self._wire.encode(replies) if replies else buffers

    # -- ending

    def close(self, last: bytes = b"") -> None:
        """Write `last` after what was written before, then end the connection once the peer has taken it."""
        if self._is_closing or self._transport is None:
            return
        self._is_closing = True
        if last:
            self._transport.write(last)
        self._transport.close()

    def say_last(self, last: Closing | Failed) -> None:
        """The orderly end: the peer is told why, gets what was ready for it, and closes.

        Until it does, what it still sends is read and dropped: a socket that is closed with unread bytes resets the
        connection, and the goodbye under way would be lost with it.
        """
        if self._port is None or self._transport is None or self._is_closing:
            self.leave_session()
            self.close()
            return
        self._outbox.append(last)
        self.flush()
        self.leave_session()
        self._is_closing = True
        try:
            self._transport.write_eof()
        except OSError:  # the peer reset the connection, and its loop has not read that yet
            self._transport.abort()
            return
        if not self._transport.is_reading():
            self._transport.resume_reading()

    def abort(self) -> None:
        """End the connection at once."""
        self._is_closing = True
        if self._transport is not None:
            self._transport.abort()

    def leave_session(self) -> None:
        """Tell the engine that this connection ended without a goodbye."""
        port, self._port = self._port, None
        if port is not None:
            port.detach(goodbye=False)

    def _refuse(self, text: str, *, delay_s: float, last: bytes = b"") -> None:
        self._server.complain(self, text)
        last = last or self._wire.failure
        if self._transport is None:
            return
        if delay_s <= 0:
            self.close(last)
            return
        # It stays pending meanwhile: too many that wait push each other out, and none of them waits beyond its time.
        self._transport.pause_reading()
        self._server.later(delay_s, self.close, last)

    def _watch_stall(self) -> None:
        assert self._transport is not None
        self._stall = self._server.later(STALL_S, self._check_stall, self._transport.get_write_buffer_size())

    def _check_stall(self, before: int) -> None:
        if self._transport is None:
            return
        if before - self._transport.get_write_buffer_size() >= MIN_BYTES:
            self._watch_stall()
            return
        logger.warning("Dropped %s: it read almost nothing for %.0f s; its leases return.", self.peer, STALL_S)
        self.abort()

    # -- from the handshake to the session

    def _before_attached(self, events: list[ServerEvent]) -> None:
        for i, event in enumerate(events):
            if isinstance(event, Authenticated):
                self._server.admitted(self)
                if self._transport is not None:
                    self._transport.write(event.reply)
            elif isinstance(event, PeerIsStock):
                self._meet_stock(event)
                return
            elif isinstance(event, Attach):
                self._early = events[i + 1 :]
                self._attach(event)
                return
            else:
                self._early.append(event)  # Attach is on its way to the engine, and reading had not stopped yet

    def _meet_stock(self, event: PeerIsStock) -> None:
        if not event.is_key_right:
            text = "It is a standard-library client with another authkey; use the same on both sides."
            self._refuse(text, delay_s=self._server.wrong_key(self), last=event.reply)
            return
        if self._transport is not None and self._server.hand_over(
            self,
            Arrival(
                self._transport, self.fd, self.peer, event.dialect, self._wire.arrived, _sockets.reached_at(self._transport)
            ),
        ):
            self._is_closing = True
            self._transport = None
            return
        self._server.complain(
            self, "It is a standard-library multiprocessing client; let it import manyhands.managers instead."
        )
        self.close(event.reply)

    def _attach(self, event: Attach) -> None:
        """Open the session in another thread: a durable engine commits first, and the loop must not wait for a disk."""
        assert self._transport is not None
        self.session = event.session
        self._attaching = True
        self._transport.pause_reading()
        self._server.attach(event, self)

    def attached(self, future: Future[Port]) -> None:
        """The engine answered Attach."""
        self._attaching = False
        error = future.exception()
        if error is not None:
            if not isinstance(error, ManyhandsError):
                logger.error("Dropped %s: its session could not be opened", self.peer, exc_info=error)
            self.close(self._wire.goodbye(str(error)))
            return
        port = future.result()
        if self._is_closing or self._transport is None:
            port.detach(goodbye=False)
            return
        self._port = port
        notes = [*port.attached.notes, *self._server.notes]
        self._outbox.insert(0, msgspec.structs.replace(port.attached, notes=notes) if notes else port.attached)
        self.flush()
        early, self._early = self._early, []
        if early:
            port.send(early)
        if not self._is_stuck:
            self._transport.resume_reading()
