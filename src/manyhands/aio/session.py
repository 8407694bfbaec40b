"""The asyncio shell around ClientState: one loop, no locks. What the state has to say leaves at the end of the turn."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import secrets
import time
from collections.abc import Sequence
from itertools import count

from manyhands.address import Address
from manyhands.aio.connection import Connection
from manyhands.aio.store import StoreConnection
from manyhands.auth import Keyring
from manyhands.client.exits import End
from manyhands.client.messages import server_gone
from manyhands.client.records import Call, Held
from manyhands.client.session import ANSWER_S, GONE_S, GRACE_S, session_name
from manyhands.client.settling import warn_lost
from manyhands.client.state import ClientState
from manyhands.codec import Codec
from manyhands.errors import ServerUnavailable, from_code
from manyhands.events import Failed, Ping, Reply

log = logging.getLogger(__name__)

_CONFIRM_S = 5.0

receiving: contextvars.ContextVar[Held | None] = contextvars.ContextVar("manyhands_receiving", default=None)
"""The lease of the innermost receive block around the running code."""


class AioSession:
    """One session for the tasks of one loop.

    Args:
        place: a server's address, or the URL of a store, which this session opens for itself.
    """

    def __init__(self, place: Address | str, keyring: Keyring) -> None:
        self.codec = Codec([(key.id, key.body) for key in keyring])
        self.state = ClientState()
        self.is_closed = False
        self._gone: Exception | None = None
        """Why the session is over, if it is."""
        self.max_body_bytes = 0
        self._loop = asyncio.get_running_loop()
        self._ids = count(1)
        self._id_prefix = secrets.token_hex(8) + "-"
        self._is_flush_planned = False
        self._closing_at = 0.0
        session, name = secrets.token_hex(16), session_name()
        self._connection: Connection | StoreConnection
        if isinstance(place, str):
            self._connection = StoreConnection(place, session, name, self._on_replies, self._on_gone)
        else:
            self._connection = Connection(place, keyring, session, name, self._on_replies, self._on_gone)

    async def open(self, timeout_s: float) -> None:
        """Connect; raises as `Connection.open` does."""
        await self._connection.open(timeout_s)
        self.look_whether_reattached()

    def new_id(self) -> str:
        """A message id like no other."""
        return f"{self._id_prefix}{next(self._ids):x}"

    def look_whether_reattached(self) -> None:
        """Drop prefetched deliveries that a reconnected session no longer has."""
        attached = self._connection.attached
        if attached is not None and attached is not self.state.attached:
            self.state.on_attached(attached)
            self.max_body_bytes = attached.limits.max_body_bytes

    # -- out and in

    def flush_soon(self) -> None:
        """Send at the end of this turn of the loop, with whatever else it brings."""
        if not self._is_flush_planned and self.state.has_output:
            self._is_flush_planned = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_flush_planned = False
        batch = self.state.drain()
        if batch and not self.is_closed and self._gone is None:
            self._connection.send(batch)

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        state = self.state
        now = time.monotonic()
        state.on_replies(replies, now)
        if state.is_closing:
            self._closing_at = self._closing_at or now
        else:
            self._closing_at = 0.0
        woken, state.woken = state.woken, []
        for call in woken:
            waiter = call.waiter
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if state.lost:
            lost, state.lost = state.lost, []
            warn_lost(lost)
        self.flush_soon()

    def _on_gone(self, error: Exception) -> None:
        log.error("%s", error)
        self._gone = error
        self._wake_all()

    def _wake_all(self) -> None:
        for call in self.state.waiting():
            if call.waiter is not None and not call.waiter.done():
                call.waiter.set_result(None)

    # -- waiting

    async def hear(self, call: Call, timeout_s: float | None) -> bool:
        """Wait until the call is over, at most timeout_s; whether it is. See ClientSession.hear."""
        own_until = None if timeout_s is None else time.monotonic() + timeout_s
        while not call.is_over():
            if self.is_closed:
                raise ServerUnavailable("This client was closed; connect again to go on.")
            if self._gone is not None:
                raise self._gone
            until = own_until
            if self.state.is_closing:
                if until is None:
                    until = self._closing_at + GONE_S
                elif call.deadline is not None:
                    until = call.deadline
            waiter = call.waiter = self._loop.create_future()
            timer = None
            if until is not None:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                timer = self._loop.call_later(left_s, _wake, waiter)
            try:
                await waiter
            finally:
                call.waiter = None
                if timer is not None:
                    timer.cancel()
        return True

    async def ask(self, call: Call, timeout_s: float = ANSWER_S) -> Reply:
        """Send a call that the state has made, and its answer. Raises as `ClientSession.ask` does."""
        self.flush_soon()
        limit_s = None if timeout_s < 0 else max(timeout_s + GRACE_S, ANSWER_S)
        if not await self.hear(call, limit_s) or call.reply is None:
            if self.state.is_closing:
                raise server_gone()
            raise ServerUnavailable(
                f"The server did not answer within {limit_s or GONE_S:.1f} s, so it is not known whether this was done; "
                "check that it runs and that the network is up, and give a message an id= if it must not be stored twice."
            )
        if isinstance(call.reply, Failed):
            raise from_code(call.reply.code, call.reply.text, call.reply.facts)
        return call.reply

    # -- the end

    async def close(self, how: End) -> None:
        """End the session; what gets returned is settled as `how` says, what receive blocks have goes back."""
        if self.is_closed:
            return
        for consumer in self.state.consumers():
            self.state.end_consumer(consumer, how.kind, how.reason)
        try:
            async with asyncio.timeout(_CONFIRM_S):
                while self.state.is_unconfirmed and not self.state.is_closing:
                    await self.ask(self.state.call(Ping))
        except (TimeoutError, ServerUnavailable):
            log.warning("ended without the server's word for the last settlements; their messages may come again")
        self.is_closed = True
        self._wake_all()
        await self._connection.close(goodbye=True)

    async def cut(self) -> None:
        """End the connection without a word, as a crash would."""
        self.is_closed = True
        await self._connection.close(goodbye=False)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
