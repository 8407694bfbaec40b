"""The threaded shell around ClientState: locks, the engine's port, threads that wait.

Two locks. `lock` guards the state and is held for microseconds, never while anything is sent: an engine in this process
answers in the sender's thread, and its answer for somebody else takes that client's lock. `_sending` makes requests leave
in the order in which the state made them (a later seq must not overtake an earlier one): who finds it taken leaves its
requests in the outbox to the holder, who looks again after letting go.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from itertools import count
from typing import NoReturn

from manyhands import codec
from manyhands._text import NAME_CHARS, readable
from manyhands.client.flusher import Flusher
from manyhands.client.messages import server_gone
from manyhands.client.records import Call, Held, QueueState
from manyhands.client.settling import warn_lost
from manyhands.client.state import ClientState
from manyhands.engines.base import Engine, LocalPort, ReadingPort, Waiter
from manyhands.errors import ServerGone, ServerUnavailable, from_code
from manyhands.events import Attach, Closing, Failed, Ping, Reply, Request
from manyhands.model import Message, SettleKind

log = logging.getLogger(__name__)

GRACE_S = 0.5
"""The engine ends a wait itself; this much later the client no longer believes that it will."""
ANSWER_S = 10.0
"""How long a call without a timeout of its own waits for a server that is silent (as long as connect tries)."""
GONE_S = 60.0
"""How long a get without a timeout waits for a server that said goodbye."""
_CONFIRM_S = 5.0
_GATHER_AT_MOST = 64
_GATHER_S = 0.001

_SESSION_BYTES = 16
_NOW_RID = 2**61
"""Of every request that is answered before anything else can be asked."""


class ClientSession:
    """One session at an engine, used by any number of threads of one process.

    Raises:
        EngineUnavailable, AuthenticationFailed, ServerUnavailable: as `Engine.attach` does.
    """

    def __init__(self, engine: Engine, codec_: codec.Codec) -> None:
        self.codec = codec_
        self.state = ClientState()
        self.lock = threading.Lock()
        self._sending = threading.Lock()
        self.gone: Exception | None = None
        """Why the port will never answer again."""
        self._closing_at = 0.0
        self.is_closed = False
        self.is_exiting = False
        """Whether it was closed because the process ends."""
        self._flusher = Flusher(self._flush_left)
        self._left_at = 0.0
        self.id = secrets.token_hex(_SESSION_BYTES)
        self._ids = count(1)
        self._id_prefix = secrets.token_hex(8) + "-"  # nothing of the session's id, which is a secret
        self.port = engine.attach(Attach(self.id, session_name(), is_here=True), self._on_replies)
        self.nearby = self.port if isinstance(self.port, LocalPort) else None
        """The port, where its engine is in this process and answers on the spot."""
        self.state.may_prefetch = self.nearby is None
        self._reading = self.port if isinstance(self.port, ReadingPort) else None
        # An answer that waits for a disk does not come within the time that is worth looking for it.
        self._is_quick = self.port.attached.durability.level == "process"
        self.max_body_bytes = self.port.attached.limits.max_body_bytes
        self.state.on_attached(self.port.attached)

    def new_id(self) -> str:
        """A message id like no other."""
        return f"{self._id_prefix}{next(self._ids):x}"

    def reattached(self) -> None:
        """The port was connected anew since the state last looked."""
        with self.lock:
            self.state.on_attached(self.port.attached)

    # -- out -------------------------------------------------------------------------------------------------------

    def flush(self, *, may_gather: bool = False) -> None:
        """Send what the state has to say; if another thread is at it, that thread sends ours as well.

        Raises:
            ServerGone, ServerUnavailable: the port is closed for good.
        """
        state, sending = self.state, self._sending
        gone: ServerUnavailable | None = None
        while state.has_output and sending.acquire(False):
            try:
                with self.lock:
                    batch = state.drain()
                    self._left_at = 0.0
                if batch:
                    self.port.send(batch, may_gather=may_gather)
            except ServerUnavailable as error:
                gone = error
            finally:
                sending.release()
            if gone is not None:
                self._end(gone)
                self.raise_gone()

    def flush_soon(self, now: float) -> None:
        """Leave what there is to gather with what comes within about a millisecond: the consumer's tasks are short.

        Raises:
            ServerGone, ServerUnavailable: the port is closed for good.
        """
        if not self._left_at:
            self._left_at = now
            self._flusher.arm()
        elif now - self._left_at > _GATHER_S or self.state.n_left >= _GATHER_AT_MOST:
            self.flush(may_gather=True)

    def answer_now(self, make: Callable[[int], Request]) -> Reply | None:
        """Ask an engine in this process something that it can answer without waiting; None where that is not possible.

        Args:
            make: makes the request with this rid; without a seq, since nothing can be sent twice.

        Raises:
            ServerGone, ServerUnavailable: the port is closed for good.
        """
        if self.nearby is None:
            return None
        if self.state.has_output:  # what was said before must not be overtaken
            self.flush()
        try:
            return self.nearby.answer_now(make(_NOW_RID))
        except ServerUnavailable as error:
            self._end(error)
            self.raise_gone()

    def put_nearby(self, queue: str, message: Message, cause: int) -> bool:
        """Put a message without headers straight into an engine in this process; false: do it in the ordinary way.

        Raises:
            ServerGone, ServerUnavailable: the engine is closed.
        """
        if self.nearby is None:
            return False
        if self.state.has_output:
            self.flush()
        try:
            return self.nearby.put_nearby(queue, message, cause)
        except ServerUnavailable as error:
            self._end(error)
            self.raise_gone()

    def get_nearby(self, queue: QueueState, consumer: Hashable, now: float) -> Held | None:
        """Ack what the consumer's last get returned and take the next message, in one step of an engine in this process.

        None: nothing was done; do it in the ordinary way, which can also wait.

        Raises:
            ServerGone, ServerUnavailable: the engine is closed.
        """
        state = self.state
        if self.nearby is None or queue.prefetched or queue.is_explicit or state.has_output:
            return None
        previous, token, is_task_done = None, 0, False
        helds = queue.held.get(consumer)
        if helds is not None:
            previous = helds[0]
            if len(helds) > 1 or previous.refused:
                return None
            token, is_task_done = previous.delivery.token, previous.is_iterated
        try:
            delivery = self.nearby.get_nearby(queue.name, token, is_task_done)
        except ServerUnavailable as error:
            self._end(error)
            self.raise_gone()
        if delivery is None:
            return None
        with self.lock:
            return state.took_nearby(queue, consumer, delivery, previous, now)

    def _flush_left(self) -> None:
        try:
            self.flush()
        except (ServerUnavailable, ServerGone):
            log.debug("what was left for a closed port was dropped")

    # -- in --------------------------------------------------------------------------------------------------------

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        now = time.monotonic()
        with self.lock:
            state = self.state
            n_left = state.n_left
            state.on_replies(replies, now)
            has_answer = state.n_left > n_left
            woken = state.woken
            if woken:
                state.woken = []
                for call in woken:
                    waiter = call.waiter
                    if waiter is not None:
                        if call.is_over():
                            call.waiter = None
                            waiter.set()
                        else:
                            waiter.nudge()
            lost = state.lost
            if lost:
                state.lost = []
        if lost:
            warn_lost(lost)
        if state.is_closing and isinstance(replies[-1], Closing):
            self._closing_at = now
        if has_answer:  # a recall's, or a get that is served by another thread's delivery
            try:
                self.flush(may_gather=True)
            except (ServerUnavailable, ServerGone):
                log.debug("answers to a closed port dropped")

    def _end(self, error: Exception) -> None:
        """No answer will come any more: tell all who wait."""
        if self.gone is None:
            self.gone = error
            if self.state.is_closing:
                self.gone = ServerGone(
                    "The server said goodbye and its queues are closed; what was not acknowledged is with it and comes back "
                    "with it, so start it again and connect anew."
                )
        with self.lock:
            for call in self.state.waiting():
                if call.waiter is not None:
                    call.waiter.nudge()

    # -- waiting ---------------------------------------------------------------------------------------------------

    def hear(self, call: Call, timeout_s: float | None, *, ends_with_goodbye: bool = False) -> bool:
        """Wait until the call is over, at most timeout_s; whether it is.

        Without a timeout it waits for ever, but for GONE_S only once the server has said an orderly goodbye; or not even
        that long, with ends_with_goodbye.

        Raises:
            ServerGone, ServerUnavailable: no answer can come any more.
        """
        if call.is_over():  # an engine in this process answers before send returns
            return True
        own_until = None if timeout_s is None else time.monotonic() + timeout_s
        may_read = self._reading is not None and call.rid and self.gone is None and not self.state.is_closing
        if may_read and (timeout_s is None or timeout_s > 0):
            assert self._reading is not None
            reply = self._reading.read_answer(call.rid, timeout_s, is_hurried=True)
            if reply is not None:
                self._on_replies((reply,))
            if call.is_over():
                return True
        waiter = Waiter()
        with self.lock:
            if call.is_over():
                return True
            call.waiter = waiter
        while not call.is_over():
            if self.gone is not None:
                self.raise_gone()
            until = own_until
            if self.state.is_closing and self.port.attached is not self.state.attached:
                self.reattached()  # it came back
            if self.state.is_closing:
                if ends_with_goodbye:
                    return False
                self._ask_whether_gone()
                if until is None:
                    until = self._closing_at + GONE_S
                elif call.deadline is not None:
                    until = call.deadline  # no answer is under way that could need GRACE_S
            left_s = -1.0 if until is None else until - time.monotonic()
            if until is not None and left_s <= 0:
                return False
            try:
                self.port.wait(waiter, left_s)
            except ServerUnavailable as error:
                self._end(error)
        return True

    def raise_gone(self) -> NoReturn:
        """Say why no answer can come; a daemon thread of a process that is ending just stays where it is.

        It would only end in a traceback on stderr, of a program in which nothing went wrong.
        """
        while self.is_exiting and threading.current_thread().daemon:
            time.sleep(GONE_S)
        raise self.gone or ServerUnavailable("This client was closed; connect again to go on.")

    def _ask_whether_gone(self) -> None:
        # A remote port reconnects; one to an engine of this process says that it is closed.
        try:
            self.port.send([Ping(0)])
        except ServerUnavailable as error:
            self._end(error)

    def put(self, queue: QueueState, messages: list[Message], wait_s: float) -> None:
        """Put and wait for the engine's word: `flush` and `ask` in fewer steps, where nobody else is sending.

        Raises:
            As `ask` does.
        """
        state = self.state
        if self._sending.acquire(False):
            try:
                with self.lock:
                    call = state.put(queue, messages, wait_s)
                    batch, state.outbox = state.outbox, []  # with what was to be said before it
                    self._left_at = 0.0
                self.port.send(batch)
            except ServerUnavailable as error:
                self._end(error)
            finally:
                self._sending.release()
            if self.gone is not None:
                self.raise_gone()
        else:
            with self.lock:
                call = state.put(queue, messages, wait_s)
        self.ask(call, wait_s)

    def ask(self, call: Call, timeout_s: float = ANSWER_S) -> Reply:
        """Send a call that the state has made, and its answer.

        Raises:
            ServerUnavailable: none came in time; whether it was done is not known.
            The error that a Failed answer stands for.
        """
        self.flush()
        limit_s = None if timeout_s < 0 else max(timeout_s + GRACE_S, ANSWER_S)
        until = None if limit_s is None else time.monotonic() + limit_s
        reading = self._reading
        reply = None if reading is None else reading.read_answer(call.rid, limit_s, is_hurried=self._is_quick)
        if reply is not None:
            with self.lock:
                self.state.answer(call, reply)
        elif not self.hear(call, None if until is None else until - time.monotonic()) or (reply := call.reply) is None:
            if self.state.is_closing:
                raise server_gone()
            raise ServerUnavailable(
                f"The server did not answer within {limit_s or GONE_S:.1f} s, so it is not known whether this was done; "
                "check that it runs and that the network is up, and give a message an id= if it must not be stored twice."
            )
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.text, reply.facts)
        return reply

    # -- the end ---------------------------------------------------------------------------------------------------

    def end_consumer(self, consumer: Hashable, kind: SettleKind, reason: str) -> None:
        """Settle all implicit leases of a consumer that is gone."""
        if self.is_closed or self.gone is not None:
            return
        with self.lock:
            self.state.end_consumer(consumer, kind, reason)
        try:
            self.flush()
        except (ServerUnavailable, ServerGone):
            log.debug("a consumer ended after its server")

    def close(self, kind: SettleKind, reason: str = "") -> None:
        """End the session: the calling thread's leases end in this way, those of other threads go back uncounted.

        What get has returned to another thread may be half done, and a repeated message is better than a lost one.
        """
        if self.is_closed:
            return
        own = threading.get_ident()
        with self.lock:
            for consumer in self.state.consumers():
                if consumer == own:
                    self.state.end_consumer(consumer, kind, reason)
                else:
                    self.state.end_consumer(consumer, SettleKind.RELEASE, "its process ended while a thread had it")
        self._confirm()
        self.is_closed = True
        self._flusher.stop()
        self.gone = self.gone or ServerUnavailable("This client was closed; connect again to go on.")
        self.port.detach(goodbye=True)
        self._end(self.gone)

    def _confirm(self) -> None:
        """Wait, but not for ever, until the engine has what was put and settled without waiting."""
        until = time.monotonic() + _CONFIRM_S
        try:
            self.flush()
            while self.state.is_unconfirmed and not self.state.is_closing:
                with self.lock:
                    call = self.state.call(Ping)  # answered in order, behind everything else
                self.flush()
                if not self.hear(call, until - time.monotonic(), ends_with_goodbye=True):
                    if not self.state.is_closing:
                        log.warning(
                            "ended without the server's word for the last settlements; their messages may come again"
                        )
                    return
        except (ServerUnavailable, ServerGone):
            log.debug("ended after the server")


def session_name() -> str:
    program = os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "python"
    return readable(f"{socket.gethostname()}:{os.getpid()}:{program}", NAME_CHARS)


__all__ = ["ANSWER_S", "GONE_S", "GRACE_S", "ClientSession", "session_name"]
