"""One session over one TCP connection after another, on the running loop."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence

from manyhands._chance import CHANCE
from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.engines.remote.trying import Trying
from manyhands.errors import AuthenticationFailed, ManyhandsError, ProtocolError, ServerUnavailable, SessionTaken
from manyhands.events import Attached, Goodbye, Reply, Request
from manyhands.wire.client import ClientWire
from manyhands.wire.handshake import NONCE_BYTES

log = logging.getLogger(__name__)

_DIAL_S = 5.0
_GOODBYE_S = 1.0


class Connection(asyncio.BufferedProtocol):
    """Moves bytes between a ClientWire and whatever transport there is, and makes a new one when it breaks."""

    def __init__(
        self,
        address: Address,
        keyring: Keyring,
        session: str,
        name: str,
        sink: Callable[[Sequence[Reply]], None],
        on_taken: Callable[[Exception], None],
    ) -> None:
        """Make one without connecting it.

        Args:
            on_taken: called once, should the session turn out to be another program's; nothing comes after it.
        """
        self.address = address
        self.wire = ClientWire(keyring=keyring, session=session, attach_name=name, where=address.url)
        self._sink = sink
        self._on_taken = on_taken
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._is_paused = False
        self._is_ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._changed = asyncio.Event()
        """Set whenever the connection opens or breaks; whoever waits for that clears it."""
        self._failure: Exception | None = None
        self._upkeep: asyncio.Task[None] | None = None

    @property
    def attached(self) -> Attached | None:
        """What the server last said of its engine."""
        return self.wire.attached

    async def open(self, timeout_s: float) -> None:
        """Connect, going on trying while nobody answers.

        Raises:
            ServerUnavailable: nobody answered within timeout_s.
            AuthenticationFailed, ProtocolError: who answers is not our server. At once.
        """
        started = time.monotonic()
        deadline = started + timeout_s
        trying = Trying(self.address, started, deadline)
        while True:
            await self._dial(max(0.1, min(deadline, trying.say_at) - time.monotonic()))
            if self.wire.is_open:
                self._upkeep = self._loop.create_task(self._keep_up(), name="manyhands-connection")
                return
            if isinstance(self._failure, AuthenticationFailed | ProtocolError):
                raise self._failure
            now = time.monotonic()
            at = trying.next_at(self.wire.next_attempt_at(now, CHANCE.random()), now)
            cause = self._failure if isinstance(self._failure, OSError) else ConnectionResetError(str(self._failure))
            if at is None:
                raise ServerUnavailable(
                    trying.verdict(cause, now), host=self.address.host, port=self.address.port
                ) from self._failure
            if line := trying.line(cause, now):
                log.warning("%s", line)
            await asyncio.sleep(max(0.0, at - time.monotonic()))

    def send(self, requests: Sequence[Request]) -> None:
        """Send now, or when there is a connection again.

        Raises:
            ServerUnavailable: closed for good.
        """
        if self._is_ended:
            raise ServerUnavailable("This session was closed in this program; connect again to go on.")
        own = self.wire.send(requests)
        self._write()
        if own:
            self._loop.call_soon(self._sink, own)

    async def close(self, *, goodbye: bool) -> None:
        """End the session: with a goodbye for good, without one as if the connection had been cut. Idempotent."""
        if self._is_ended:
            return
        if goodbye and self.wire.is_open:
            self.wire.send([Goodbye()])
            self._write()
        self._is_ended = True
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        transport = self._transport
        if transport is not None:
            if goodbye and transport.can_write_eof():
                transport.write_eof()  # the server takes the goodbye and closes first
                until = time.monotonic() + _GOODBYE_S
                while self._transport is not None and time.monotonic() < until:
                    await self._wait_for_change(until - time.monotonic())
            transport.abort()
            while self._transport is not None:
                await self._wait_for_change(_GOODBYE_S)

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._is_paused = False
        self._failure = None
        self.wire.connection_made(time.monotonic(), os.urandom(NONCE_BYTES))
        self._plan_tick()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self.wire.get_buffer()

    def buffer_updated(self, nbytes: int) -> None:
        was_open = self.wire.is_open
        try:
            replies = self.wire.received(nbytes, time.monotonic())
        except ManyhandsError as error:
            self._lose(error)
            return
        if replies:
            self._sink(replies)
        self._write()
        if self.wire.is_open and not was_open:
            self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._failure is None:
            self._failure = exc or ConnectionResetError(f"the server at {self.address.url} closed the connection")
        self.wire.connection_lost(time.monotonic())
        self._changed.set()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._write()

    # -- ours

    def _write(self) -> None:
        transport = self._transport
        if transport is None:
            return
        while not self._is_paused and not transport.is_closing():
            buffers = self.wire.data_to_send()
            if not buffers:
                return
            for buffer in buffers:  # not writelines, which in asyncio of 3.12 and 3.13.0 never pauses
                transport.write(buffer)

    def _plan_tick(self) -> None:
        due = self.wire.next_due()
        if due is not None:
            self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._tick)

    def _tick(self) -> None:
        try:
            self.wire.tick(time.monotonic())
        except ManyhandsError as error:
            self._lose(error)
            return
        self._write()
        self._plan_tick()

    def _lose(self, cause: Exception) -> None:
        self._failure = cause
        if self._transport is not None:
            self._transport.abort()

    async def _dial(self, timeout_s: float) -> None:
        """One try: connect and wait until the handshake is over, for good or bad."""
        self._changed.clear()
        try:
            async with asyncio.timeout(timeout_s):
                await self._loop.create_connection(lambda: self, self.address.host, self.address.port)
                while self._transport is not None and not self.wire.is_open:
                    await self._wait_for_change(timeout_s)
        except OSError as error:  # TimeoutError is one
            self._failure = error
            if self._transport is not None:
                self._transport.abort()
            else:
                self.wire.connection_lost(time.monotonic())

    async def _wait_for_change(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await self._changed.wait()
        except TimeoutError:
            return
        self._changed.clear()

    async def _keep_up(self) -> None:
        """Reconnect for as long as the session lives and is ours."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            while self._transport is None:
                if isinstance(self._failure, SessionTaken):
                    self._on_taken(self._failure)
                    return
                at = self.wire.next_attempt_at(time.monotonic(), CHANCE.random())
                log.info("No connection to %s, trying again: %s", self.address.url, self._failure)
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                await self._dial(_DIAL_S)
