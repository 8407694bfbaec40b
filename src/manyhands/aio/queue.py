"""The queue for asyncio: design's promises of put and get, awaited."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from manyhands.aio.session import AioSession, receiving
from manyhands.client.messages import (
    Received,
    check_max_n,
    describe,
    lease_lost,
    make_message,
    make_messages,
    to_wait_s,
    unreturned,
)
from manyhands.client.records import Held
from manyhands.client.session import GRACE_S
from manyhands.client.taking import what_came
from manyhands.codec import check_size, encode
from manyhands.errors import SealBroken, ServerGone, ShutDown, UndecodableBody
from manyhands.events import FOREVER, Count, Declare, Join, QueueInfo, Settled, Size
from manyhands.events import ShutDown as ShutDownRequest
from manyhands.model import Message, QueueStats, SettleKind

log = logging.getLogger(__name__)


class AioQueue:
    """A named queue for the tasks of one loop; the names and errors are those of `manyhands.Queue`."""

    def __init__(self, session: AioSession, name: str, maxsize: int = 0) -> None:
        self.name = name
        self._undeclared = maxsize
        """A bound that the engine has not been told yet."""
        self._session = session
        self._queue = session.state.queue(name)

    def __repr__(self) -> str:
        return f"<manyhands.aio.AioQueue {self.name!r}>"

    # -- put

    async def put(
        self,
        item: Any,
        timeout: float | None = None,
        *,
        priority: int = 0,
        delay_s: float = 0.0,
        id: str | None = None,  # noqa: A002 - the public name
    ) -> None:
        """Put an item; returns when the server has it, inside a receive block at once. See `manyhands.Queue.put`.

        Raises:
            queue.Full: there was no room within timeout (0: not at once).
            ShutDown, PayloadNotEncodable, PayloadTooLarge: as there.
        """
        session, queue = self._session, self._queue
        encoding, body = encode(item)
        check_size(body, session.max_body_bytes)
        held = receiving.get()
        if held is not None and not held.is_settled and held.may_put and id is None:
            if queue.maxsize < 0 or self._undeclared:
                await self._stats()
            if queue.maxsize == 0:
                message_id = held.occurrence(session.codec.put_id(held.delivery.message.id, self.name, body))
                message = make_message(session.codec, self.name, message_id, encoding, body, priority, delay_s)
                session.state.put_under(held, queue, message)
                session.flush_soon()
                return
        message_id = id or session.new_id()
        message = make_message(session.codec, self.name, message_id, encoding, body, priority, delay_s, id is not None)
        await self._put([message], timeout)

    async def put_many(self, items: Iterable[Any], timeout: float | None = None) -> None:
        """Put all items or none, in one request."""
        session = self._session
        messages = make_messages(session.codec, self.name, items, session.new_id, session.max_body_bytes)
        if messages:
            await self._put(messages, timeout)

    async def _put(self, messages: list[Message], timeout: float | None) -> None:
        wait_s = to_wait_s(True, timeout)
        if self._undeclared:
            await self._declare()
        await self._session.ask(self._session.state.put(self._queue, messages, wait_s), wait_s)

    # -- get

    async def get(self, timeout: float | None = None) -> Any:
        """Take the next item; it is this Queue object's until its next get, `task_done`, or the client's close.

        Raises:
            queue.Empty: nothing came within timeout. ServerGone, one of them, after the server's goodbye.
            ShutDown: the queue was shut down and has nothing more.
            UndecodableBody: the item's class is missing here; the message went back for others.
        """
        return (await self._get(1, timeout, is_iterated=False))[0]

    async def get_many(self, max_n: int, timeout: float | None = None) -> list[Any]:
        """Take up to max_n items, at least one. Raises as `get` does."""
        check_max_n(max_n)
        return await self._get(max_n, timeout, is_iterated=False)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Take items until the queue is shut down; the step to the next one counts the last as done, for `join` as well.

        It ends too when the server said goodbye and did not come back for as long as a get without a timeout waits.
        """
        while True:
            try:
                values = await self._get(1, None, is_iterated=True)
            except ShutDown:
                return
            except ServerGone as error:
                log.info("the iteration over queue %r ends: %s", self.name, error)
                return
            yield values[0]

    async def _get(self, n: int, timeout: float | None, *, is_iterated: bool) -> list[Any]:
        deadline = _deadline(timeout)
        state = self._session.state
        state.finish_previous(self._queue, self, time.monotonic())
        values: list[Any] = []
        while not values:
            for held in await self._take(self, n, deadline):
                held.is_iterated = is_iterated
                state.hold(held)
                try:
                    values.append(self._session.codec.open_message(self.name, held.delivery.message))
                except SealBroken as error:
                    self._reject(held, error)
                except UndecodableBody as error:
                    self._end(held, SettleKind.NACK, str(error))
                    if not values:
                        raise
        return values

    @asynccontextmanager
    async def receive(self, timeout: float | None = None) -> AsyncIterator[Received]:
        """Take one item for the length of a block: done when it ends, again later when it raises. Raises as `get` does.

        What is yielded has `nack(delay_s)` and `reject(reason)`, for a block that ends well although its item is not done.

        Raises:
            LeaseLost: at the end of the block, if the message had gone to another consumer meanwhile.
        """
        state = self._session.state
        consumer = object()  # one for each block: any number of tasks may be in one
        deadline = _deadline(timeout)
        while True:
            (held,) = await self._take(consumer, 1, deadline)
            try:
                value = self._session.codec.open_message(self.name, held.delivery.message)
                break
            except SealBroken as error:
                self._reject(held, error)
            except UndecodableBody as error:
                self._end(held, SettleKind.NACK, str(error))
                raise
        state.current[consumer] = held
        outer = receiving.get()
        receiving.set(held)
        received = Received(value, held.delivery.attempt, held.delivery.message.id)
        try:
            yield received
        except Exception as error:
            self._end(held, SettleKind.NACK, describe(error))
            raise
        except BaseException:  # cancelled or interrupted: the message is not to blame
            self._end(held, SettleKind.RELEASE)
            raise
        finally:
            receiving.set(outer)
        elapsed_s = time.monotonic() - held.begun_at
        self._queue.pace.finished(elapsed_s)
        call = state.settle_and_hear(held, received.settlement(held.delivery.token))
        reply = None if call is None else await self._session.ask(call)
        refused = state.refused.pop(consumer, None)
        if refused is not None:
            raise refused
        if isinstance(reply, Settled) and reply.lost:
            raise lease_lost(held, elapsed_s)

    async def _take(self, consumer: object, n: int, deadline: float | None) -> list[Held]:
        """Take up to n deliveries, at least one, which nobody holds yet."""
        session, queue, state = self._session, self._queue, self._session.state
        session.look_whether_reattached()
        if self._undeclared:
            await self._declare()
        now = time.monotonic()
        helds: list[Held] = []
        while len(helds) < n and (held := state.take(queue, consumer, now)) is not None:
            helds.append(held)
        if helds:
            session.flush_soon()
            return helds
        call = state.ask(queue, consumer, n, deadline, now)
        session.flush_soon()
        try:
            await session.hear(call, None if deadline is None else deadline - now + GRACE_S)
        except BaseException:
            state.cancel(call)
            session.flush_soon()
            raise
        if not call.is_over():
            state.cancel(call)
            session.flush_soon()
        return what_came(call, is_closing=state.is_closing)

    # -- settling

    async def task_done(self) -> None:
        """The item that this Queue object got first and has not settled is done; else the process's first; else only count.

        Raises:
            ValueError: called more often than there were items.
        """
        call = self._session.state.task_done(self._queue, self, time.monotonic())
        self._session.flush_soon()
        if call is not None:
            await self._session.ask(call)

    def _reject(self, held: Held, error: SealBroken) -> None:
        log.error("message rejected: %s", error)
        self._end(held, SettleKind.REJECT, str(error))

    def _end(self, held: Held, kind: SettleKind, reason: str = "") -> None:
        self._session.state.drop(held)
        self._session.state.settle(held, kind, reason=reason)
        self._session.flush_soon()

    # -- the rest

    async def join(self) -> None:
        """Wait until every item that was put is done."""
        while True:
            reply = await self._session.ask(self._session.state.call(Join, self.name, FOREVER), FOREVER)
            if isinstance(reply, Count) and reply.n == 0:
                return

    async def _declare(self) -> None:
        maxsize = self._undeclared
        await self._session.ask(self._session.state.call(Declare, self.name, maxsize))
        self._undeclared = 0

    async def _stats(self) -> QueueStats:
        if self._undeclared:
            await self._declare()
        reply = await self._session.ask(self._session.state.call(Size, self.name))
        assert isinstance(reply, QueueInfo)
        self._queue.maxsize = reply.stats.maxsize
        return reply.stats

    async def qsize(self) -> int:
        """How many items no get has returned."""
        return unreturned(await self._stats())

    async def empty(self) -> bool:
        """Whether there is nothing to get; may have changed when this returns."""
        return await self.qsize() == 0

    async def full(self) -> bool:
        """Whether a put would wait; may have changed when this returns."""
        stats = await self._stats()
        return 0 < stats.maxsize <= unreturned(stats)

    async def maxsize(self) -> int:
        """The bound; 0 for none."""
        return (await self._stats()).maxsize

    async def shutdown(self, immediate: bool = False) -> None:
        """The broadcast stop: puts raise ShutDown from now on, gets when the queue is empty (at once with immediate)."""
        await self._session.ask(self._session.state.call(ShutDownRequest, self.name, immediate))


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + to_wait_s(True, timeout)
