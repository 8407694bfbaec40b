"""`queue.Queue`'s interface over an engine: what design and guarantees.md promise of put and get."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import TYPE_CHECKING, Any

from manyhands.client import settling, taking
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
from manyhands.client.records import Held, QueueState
from manyhands.client.session import ClientSession
from manyhands.codec import check_size, encode
from manyhands.errors import SealBroken, ServerGone, ShutDown, UndecodableBody, from_code
from manyhands.events import FOREVER, Count, Done, Failed, Join, Put, QueueInfo, Size
from manyhands.events import ShutDown as ShutDownRequest
from manyhands.model import Message, QueueStats, SettleKind

if TYPE_CHECKING:
    from manyhands.client.client import Client

log = logging.getLogger(__name__)


class Queue:
    """A named queue, used as `queue.Queue` is; safe in any number of threads.

    A `get` holds its message until the same thread gets again, calls `task_done`, or ends; if the process dies first, or
    the thread ends in an exception, the message goes back to the head of the queue.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name
        self._bound: tuple[ClientSession, QueueState] | None = None

    def __repr__(self) -> str:
        return f"<manyhands.Queue {self.name!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return self._client.reduce_queue(self.name)

    def _at(self) -> tuple[ClientSession, QueueState]:
        """The session of this process and what it knows of this queue."""
        session = self._client.session
        bound = self._bound
        if bound is None or bound[0] is not session:
            session = self._client.open()
            self._opened()
            with session.lock:
                bound = self._bound = (session, session.state.queue(self.name))
        return bound

    def _opened(self) -> None:
        """It is about to be used in a session for the first time; for what keeps count of that."""

    # -- put -------------------------------------------------------------------------------------------------------

    def put(
        self,
        item: Any,
        block: bool = True,
        timeout: float | None = None,
        *,
        priority: int = 0,
        delay_s: float = 0.0,
        id: str | None = None,  # noqa: A002 - the public name
    ) -> None:
        """Put an item; returns when the engine has it (design of a put under a lease: see guarantees.md).

        Args:
            block: whether to wait for room when the queue is bounded and full.
            timeout: how long at most; None is for ever.
            priority: -9 to 9, larger is sooner.
            delay_s: how long it stays hidden.
            id: a second put with the same id is dropped, until 600 s after the first was completed.

        Raises:
            queue.Full: there was no room in time.
            ShutDown: the queue was shut down.
            PayloadNotEncodable, PayloadTooLarge: nothing was sent.
        """
        session, queue = self._at()
        state = session.state
        encoding, body = encode(item)
        if len(body) > session.max_body_bytes:
            check_size(body, session.max_body_bytes)
        if state.refused:
            self._raise_refused(session)
        codec = session.codec
        held = state.current.get(get_ident()) if id is None else None
        if held is not None and held.may_put:
            cause = held.delivery.token
            message_id = held.occurrence(codec.put_id(held.delivery.message.id, self.name, body))
        else:
            cause = 0
            message_id = id or session.new_id()
        message = make_message(codec, self.name, message_id, encoding, body, priority, delay_s, id is not None)
        if session.nearby is not None and not (priority or delay_s or id) and session.put_nearby(self.name, message, cause):
            return
        if cause and (queue.maxsize if queue.maxsize >= 0 else self._ask_maxsize()) == 0:
            assert held is not None
            with session.lock:
                state.put_under(held, queue, message)
            taking.flush(session, held.queue, time.monotonic())
            return
        self._put(session, queue, [message], to_wait_s(block, timeout))

    def put_nowait(self, item: Any) -> None:
        """`put` that raises queue.Full at once when there is no room."""
        self.put(item, block=False)

    def put_many(self, items: Iterable[Any], timeout: float | None = None) -> None:
        """Put all items or none, in one request: how a producer goes fast. Raises as `put` does."""
        session, queue = self._at()
        messages = make_messages(session.codec, self.name, items, session.new_id, session.max_body_bytes)
        if messages:
            self._put(session, queue, messages, to_wait_s(True, timeout))

    def _put(self, session: ClientSession, queue: QueueState, messages: list[Message], wait_s: float) -> None:
        state = session.state
        if state.refused:
            self._raise_refused(session)
        if session.nearby is not None:
            reply = session.answer_now(lambda rid: Put(rid, self.name, 0, 0, messages, 0.0))
            if type(reply) is Done:
                return
            if isinstance(reply, Failed) and (wait_s == 0 or reply.code != "full"):
                raise from_code(reply.code, reply.text, reply.facts)
        session.put(queue, messages, wait_s)

    # -- get -------------------------------------------------------------------------------------------------------

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Take the next item; it is this thread's until its next get here, `task_done`, or its end.

        Raises:
            queue.Empty: nothing came in time. ServerGone, one of them, after the server's goodbye.
            ShutDown: the queue was shut down and has nothing more.
            UndecodableBody: the item's class is missing here; the message went back for others.
        """
        return self._next(block, timeout, is_iterated=False)

    def get_nowait(self) -> Any:
        """`get` that raises queue.Empty at once when there is nothing."""
        return self._next(False, None, is_iterated=False)

    def get_many(self, max_n: int, timeout: float | None = None) -> list[Any]:
        """Take up to max_n items, at least one; all of them are this thread's until its next get here. Raises as `get`."""
        check_max_n(max_n)
        session, queue = self._at()
        deadline = _deadline(timeout)
        values: list[Any] = []
        consumer = get_ident()
        while not values:
            for held in self._take(session, queue, consumer, max_n, deadline):
                try:
                    values.append(session.codec.open_message(self.name, held.delivery.message))
                except SealBroken as error:
                    settling.reject(session, held, error)
                except UndecodableBody as error:
                    settling.give_back(session, held, error)
                    if not values:
                        raise
        return values

    def __iter__(self) -> Iterator[Any]:
        """Take items until the queue is shut down; the step to the next one counts the last as done, for `join` as well.

        It ends too when the server said goodbye and did not come back for as long as a get without a timeout waits.
        """
        while True:
            try:
                yield self._next(True, None, is_iterated=True)
            except ShutDown:
                return
            except ServerGone as error:
                log.info("the iteration over queue %r ends: %s", self.name, error)
                return

    @contextmanager
    def receive(self, timeout: float | None = None) -> Iterator[Received]:
        """Take one item for the length of a block: done when it ends, again later when it raises. Raises as `get` does.

        What is yielded has `nack(delay_s)` and `reject(reason)`, for a block that ends well although its item is not done.

        Raises:
            LeaseLost: at the end of the block, if the message had gone to another consumer meanwhile.
        """
        session, queue = self._at()
        deadline = _deadline(timeout)
        while True:
            held = taking.take_unowned(session, queue, get_ident(), 1, deadline)[0]
            try:
                value = session.codec.open_message(self.name, held.delivery.message)
                break
            except SealBroken as error:
                settling.reject(session, held, error)
            except UndecodableBody as error:
                settling.give_back(session, held, error)
                raise
        state = session.state
        with session.lock:
            held.outer = state.current.get(held.consumer)
            state.current[held.consumer] = held
        message = held.delivery.message
        received = Received(value, held.delivery.attempt, message.id)
        try:
            yield received
        except KeyboardInterrupt:
            settling.let_go(session, held, SettleKind.RELEASE, "interrupted by Ctrl-C")
            raise
        except BaseException as error:
            settling.let_go(session, held, SettleKind.NACK, describe(error))
            raise
        elapsed_s = time.monotonic() - held.begun_at
        with session.lock:
            queue.pace.finished(elapsed_s)
        lost = settling.settle(session, held, received.settlement(held.delivery.token))
        if state.refused:
            self._raise_refused(session)
        if lost:
            raise lease_lost(held, elapsed_s)

    def _next(self, block: bool, timeout: float | None, *, is_iterated: bool) -> Any:
        session, queue = self._at()
        state = session.state
        if state.refused:
            self._raise_refused(session)
        if session.port.attached is not state.attached:
            session.reattached()
        consumer = get_ident()
        now = time.monotonic()
        deadline = None if block and timeout is None else now + to_wait_s(block, timeout)
        while True:
            held = None if session.nearby is None else session.get_nearby(queue, consumer, now)
            if held is None:
                call = None
                with session.lock:
                    held = state.next(queue, consumer, now)
                    if held is None:
                        call = state.ask(queue, consumer, 1, deadline, now)
                if call is None:
                    taking.flush(session, queue, now)
                else:
                    held = taking.hear(session, call, deadline, now)[0]
                    with session.lock:
                        state.hold(held)
            assert held is not None
            self._client.watch_thread(consumer)
            held.is_iterated = is_iterated
            try:
                return session.codec.open_message(self.name, held.delivery.message)
            except SealBroken as error:
                settling.reject(session, held, error)
            except UndecodableBody as error:
                settling.give_back(session, held, error)
                raise

    def _take(self, session: ClientSession, queue: QueueState, consumer: int, n: int, deadline: float | None) -> list[Held]:
        """Settle what the thread's last get returned, and take up to n, at least one, as its implicit leases."""
        state = session.state
        if state.refused:
            self._raise_refused(session)
        now = time.monotonic()
        with session.lock:
            state.finish_previous(queue, consumer, now)
        helds = taking.take_unowned(session, queue, consumer, n, deadline)
        with session.lock:
            for held in helds:
                state.hold(held)
        self._client.watch_thread(consumer)
        return helds

    # -- settling --------------------------------------------------------------------------------------------------

    def task_done(self) -> None:
        """The item that this thread got first and has not settled is done; else the process's first; else only count.

        Raises:
            ValueError: called more often than there were items.
        """
        session, queue = self._at()
        if session.state.refused:
            self._raise_refused(session)
        with session.lock:
            call = session.state.task_done(queue, get_ident(), time.monotonic())
        if call is None:
            taking.flush(session, queue, time.monotonic())
        else:
            session.ask(call)

    def _raise_refused(self, session: ClientSession) -> None:
        with session.lock:
            error = session.state.refused.pop(get_ident(), None)
        if error is not None:
            raise error

    # -- the rest of queue.Queue -----------------------------------------------------------------------------------

    def join(self) -> None:
        """Wait until every item that was put is done: task_done, a receive block, or a step of an iteration for each."""
        session, _ = self._at()
        while True:
            with session.lock:
                call = session.state.call(Join, self.name, FOREVER)
            reply = session.ask(call, FOREVER)
            if isinstance(reply, Count) and reply.n == 0:
                return

    def _stats(self) -> QueueStats:
        session, queue = self._at()
        with session.lock:
            call = session.state.call(Size, self.name)
        reply = session.ask(call)
        assert isinstance(reply, QueueInfo)
        queue.maxsize = reply.stats.maxsize
        return reply.stats

    def _ask_maxsize(self) -> int:
        return self._stats().maxsize

    def qsize(self) -> int:
        """How many items no get has returned, those included that are delayed or on their way to a consumer."""
        return unreturned(self._stats())

    def empty(self) -> bool:
        """Whether there is nothing to get; may have changed when this returns."""
        return self.qsize() == 0

    def full(self) -> bool:
        """Whether a put would wait; may have changed when this returns."""
        stats = self._stats()
        return 0 < stats.maxsize <= unreturned(stats)

    @property
    def maxsize(self) -> int:
        """The bound; 0 for none."""
        return self._ask_maxsize()

    def shutdown(self, immediate: bool = False) -> None:
        """The broadcast stop: puts raise ShutDown from now on, gets when the queue is empty (at once with immediate)."""
        session, _ = self._at()
        with session.lock:
            call = session.state.call(ShutDownRequest, self.name, immediate)
        session.ask(call)


def _deadline(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + to_wait_s(True, timeout)
