"""One standard-library peer's connection, in the loop's thread, from its right digest to its end.

    begin ── handshake's rest ──> first request ──┬─ of the manager (create, decref, …) ──> answer, close
                                                  └─ accept_connection ──> calls, one after another

Nothing is polled and no thread waits: a get that waits is a request parked at the engine, and reading goes on meanwhile, so
that the peer's end withdraws it. A peer that is silent in the middle of a request is dropped; one that is silent between two
may be at work for hours.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from manyhands import _sockets
from manyhands._text import NAME_CHARS, readable
from manyhands.engines.base import LocalPort, Port
from manyhands.errors import ManyhandsError, ProtocolError, SealBroken, ServerUnavailable, WireError
from manyhands.events import Closing, Failed, Reply
from manyhands.managers.objects.table import QUEUE_PREFIX
from manyhands.managers.stock.answers import ERROR, NOTHING, TRACEBACK, Answer, Call, Item
from manyhands.managers.stock.consumer import NeedsWhole, StockConsumer
from manyhands.managers.stock.hosts import CONTEST_S, Claim
from manyhands.managers.stock.outlet import Outlet
from manyhands.managers.stock.speech import Speech, speech_of
from manyhands.model import Message, SettleKind
from manyhands.wire.stock import Answer as WireAnswer
from manyhands.wire.stock import Body, StockWire

if TYPE_CHECKING:
    from manyhands.managers.stock.gateway import StockGateway
    from manyhands.server.connection import Arrival
    from manyhands.server.listener import SocketServer

logger = logging.getLogger(__name__)

REQUEST_S = 10.0
"""A connection that has not sent its first request by then is dropped."""
SILENCE_S = 30.0
"""So is one that sends nothing for this time in the middle of a request."""
EMPTY_AFTER_S = 0.05
"""While the master shuts down, a get is told Empty after this time, so that a loop of gets does not spin."""
_MAX_WAITING = 4
"""Requests that may lie here unanswered; an unmodified client never has more than one, or two after an interruption."""


class StockConnection(asyncio.BufferedProtocol):
    """One peer. Every method but `sink` is called in the loop's thread."""

    linger_s = 2.0
    """How long the server waits for it at its own end."""

    def __init__(self, gateway: StockGateway, server: SocketServer, arrival: Arrival, wire: StockWire) -> None:
        self.peer = arrival.peer
        self.session = ""
        self._out = Outlet(arrival.transport, arrival.fd)
        self._gateway = gateway
        self._server = server
        self._sock = arrival.transport.get_extra_info("socket")
        self._wire = wire
        self._speech: Speech | None = None
        self._reduce = gateway.passing.reducer(arrival.reached_at)
        self._consumer: StockConsumer | None = None
        self._port: Port | None = None
        self._name = ""
        self._bodies: deque[bytes | bytearray] = deque()
        self._inbox: list[Reply] = []
        self._is_dirty = False
        self._is_sending = False
        self._is_busy = False
        """Whether something else than the engine works on an answer."""
        self._running: object | None = None
        """The call of an object that is under way."""
        self._used: set[str] = set()
        """The idents on which anything was called."""
        self._calls_objects = False
        self._is_stuck = False
        self._is_closing = False
        self._heard_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._claim: Claim | None = None

    @property
    def fd(self) -> int:
        """The socket's descriptor; -1 once it is closed."""
        return self._out.fd

    def begin(self, early: bytes) -> None:
        """Welcome the peer.

        Args:
            early: what it sent behind its digest.
        """
        self._heard_at = self._gateway.now()
        self._timer = self._server.later(REQUEST_S, self._check_silence)
        self._out.write(self._wire.greeting())
        if early:
            self._run(self._fed, early)

    # -- the transport's side

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._wire.get_buffer()

    def buffer_updated(self, n: int) -> None:
        if not self._is_closing:
            self._run(self._received, n)

    def pause_writing(self) -> None:
        self._is_stuck = True

    def resume_writing(self) -> None:
        self._is_stuck = False
        self._run(self._go_on)

    def connection_lost(self, error: Exception | None) -> None:
        self._is_closing = True
        self._out.lost()
        if self._timer is not None:
            self._timer.cancel()
        self._bodies.clear()
        is_calling = self._running is not None or (self._consumer is not None and self._consumer.is_waiting)
        if self._used and not is_calling:  # who ends in good order waits for nothing
            self._claim = self._gateway.hosts.ended(self.peer, self._used, self._gateway.now())
        if self._claim is None:
            self._end(is_orderly=False)
        else:
            self._timer = self._server.later(CONTEST_S, self._decide)

    def _received(self, n: int) -> None:
        wire = self._wire
        if not wire.is_open:
            self._on_events(wire.received(n))
            return
        for body in wire.bodies(n):
            self._arrived(body)
        self._go_on()
        if wire.is_midway:
            self._owes()

    def _fed(self, data: bytes) -> None:
        self._on_events(self._wire.feed(data))

    def _on_events(self, events: Sequence[Any]) -> None:
        for event in events:
            if isinstance(event, Body):
                self._arrived(event.data)
            elif isinstance(event, WireAnswer):
                self._out.write(event.data)
        self._go_on()
        if self._wire.is_midway:
            self._owes()

    def _owes(self) -> None:
        """The peer owes the rest of something.

        It has Nagle's algorithm on: it keeps the rest back until what came is acknowledged, and the kernel would do that
        after 40 ms.
        """
        if self._is_closing:
            return
        self._heard_at = self._gateway.now()
        _sockets.acknowledge_now(self._sock)
        if self._timer is None:
            self._timer = self._server.later(SILENCE_S, self._check_silence)

    def _arrived(self, data: bytes | bytearray) -> None:
        if len(self._bodies) >= _MAX_WAITING:
            raise ProtocolError("The standard-library client sent request after request without reading the answers.")
        self._bodies.append(data)
        if self._consumer is not None:
            self._consumer.abandon()
        if self._running is not None:
            self._running = None
            self._gateway.give_up(self)

    def _check_silence(self) -> None:
        self._timer = None
        if self._out.transport is None or not (self._wire.is_midway or self._speech is None):
            return
        left_s = self._heard_at + (REQUEST_S if self._speech is None else SILENCE_S) - self._gateway.now()
        if left_s > 0:
            self._timer = self._server.later(left_s, self._check_silence)
            return
        self._server.complain(self, "The standard-library client fell silent in the middle of a request.")
        self.abort()

    # -- requests

    def _go_on(self) -> None:
        """Send what is to be asked, take the answers, and begin the next requests, until nothing is left to do now."""
        self._out.write_unsent()
        consumer = self._consumer
        while True:
            if consumer is not None and (self._inbox or consumer.outbox):
                self._talk(consumer)
            if not self._bodies or self._is_busy or self._is_stuck or self._is_closing or self._running is not None:
                return
            if consumer is not None and consumer.is_waiting:
                return
            self._begin(self._bodies.popleft())
            consumer = self._consumer

    def _begin(self, data: bytes | bytearray) -> None:
        if self._speech is None:
            self._speech = speech_of(data)
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        call = self._speech.read(data)
        if self._consumer is None:
            self._control(call)
        elif call.ident is None:
            raise ProtocolError("The standard-library client called the manager itself after accept_connection.")
        elif not call.ident.startswith(QUEUE_PREFIX):
            self._used.add(call.ident)
            self._call_object(call)
        elif self._port is None:
            self._bodies.appendleft(data)
            self._attach()
        else:
            self._used.add(call.ident)
            self._call(call)

    def _call(self, call: Call) -> None:
        assert self._consumer is not None
        assert call.ident is not None
        try:
            answer: Answer | Item | None = self._consumer.call(call.ident[len(QUEUE_PREFIX) :], call)
        except NeedsWhole:
            self._rebuild(call)
            return
        except (TypeError, ValueError, ManyhandsError) as error:
            answer = Answer(ERROR, error)
        if answer is None:
            return
        if self._consumer.is_ending and call.method.startswith("get"):
            self._is_busy = True
            self._server.later(EMPTY_AFTER_S, self._answered, answer)
        else:
            self._tell(answer)

    def _call_object(self, call: Call) -> None:
        running = self._running = object()
        self._calls_objects = True

        def done(reply: bytes) -> None:
            if self._running is not running:
                return  # its caller was interrupted, and has had the answer to its next call perhaps
            self._running = None
            self._run(self._out.write_message, reply)
            self._run(self._go_on)

        self._gateway.call(self, self, call, done, lambda: self._running is running and not self._is_closing)

    def _control(self, call: Call) -> None:
        """The one request of a connection that is the manager's."""
        if call.ident is not None:
            raise ProtocolError("The standard-library client called a method before accept_connection.")
        if call.method == "accept_connection":
            self._name = readable(str(call.args[0]) if call.args else "", NAME_CHARS)
            self._consumer = StockConsumer(self._seal)
            self._say(NOTHING)
            return
        self._is_busy = True
        self._gateway.manage(self, call)

    def _rebuild(self, call: Call) -> None:
        """Build the call's objects in another thread, since that runs the peer's code, and try again."""
        self._is_busy = True
        self._gateway.rebuild(self, call)

    def rebuild(self, call: Call) -> Call:
        """The call with its objects built; for threads that may run the peer's code. Raises UndecodableBody."""
        assert self._speech is not None
        return self._speech.rebuild(call, self._gateway.passing.names)

    def rebuilt(self, call: Call | None, why_not: str) -> None:
        """The objects of a call are there, or cannot be."""
        self._is_busy = False
        if call is None:
            self._say(Answer(TRACEBACK, f"{why_not}\n"))
        else:
            self._run(self._call, call)
        self._run(self._go_on)

    def managed(self, answer: Answer) -> None:
        """The answer to the connection's one request of the manager."""
        self._is_busy = False
        self._say(answer)
        self.close()

    def _answered(self, answer: Answer | Item) -> None:
        self._is_busy = False
        self._tell(answer)
        self._run(self._go_on)

    # -- answers

    def said(self, answer: Answer) -> bytes:
        """An answer as this peer reads it. From any thread."""
        assert self._speech is not None
        return self._speech.say(answer, self._reduce)

    def _tell(self, answer: Answer | Item) -> None:
        if isinstance(answer, Item):
            self._hand(answer)
        else:
            self._say(answer)

    def _say(self, answer: Answer) -> None:
        self._out.write_message(self.said(answer))

    def _hand(self, item: Item) -> None:
        """Give the peer what its get was granted, if it can be given."""
        consumer = self._consumer
        assert consumer is not None
        assert self._speech is not None
        message = item.delivery.message
        try:
            encoding = self._gateway.codec.verify(item.queue, message.id, message.seal, message.body, message.kind)
            self._out.write_message(*self._speech.hand(encoding, message.body))
        except SealBroken as error:
            logger.error("message rejected: %s", error)
            consumer.undeliverable(item, SettleKind.REJECT, str(error))
            consumer.get_again(item)
        except ManyhandsError as error:
            consumer.undeliverable(item, SettleKind.NACK, str(error))
            self._say(Answer(TRACEBACK, f"{error}\n"))

    # -- the engine's side

    def _seal(self, queue: str, call: Call) -> Message:
        assert self._speech is not None
        return self._gateway.sealed(queue, *self._speech.item(call))

    def _attach(self) -> None:
        self.session = secrets.token_hex(16)
        name = f"{self.peer}:{self._name} (standard library)"
        port = self._gateway.attach_now(self, self.session, name)
        if port is not None:
            self._joined(port)
            return
        self._is_busy = True
        self._gateway.attach(self, self.session, name)

    def attached(self, port: Port | None, error: Exception | None) -> None:
        """The engine answered Attach."""
        self._is_busy = False
        if port is None:
            if not isinstance(error, ManyhandsError):
                logger.error("Dropped %s: its session could not be opened", self.peer, exc_info=error)
            self.close()
        elif self._out.transport is None:
            port.detach()
        else:
            self._joined(port)
            self._run(self._go_on)

    def _joined(self, port: Port) -> None:
        assert self._consumer is not None
        self._port = port
        self._consumer.near = port if isinstance(port, LocalPort) else None

    def sink(self, replies: Sequence[Reply]) -> None:
        """Take replies for this peer, from any thread."""
        self._inbox.extend(replies)
        if self._is_dirty:
            return
        self._is_dirty = True
        if not self._is_sending or self._server.writing.is_elsewhere():
            self._server.writing.flush_soon(self)

    def write_through(self) -> bool:
        """From another thread than the loop's: give a waiting peer its answer at once, without a turn of the loop.

        Returns:
            Whether nothing is left for the loop.
        """
        return self._out.through(self._answer_through)

    def _answer_through(self) -> bool:
        consumer = self._consumer
        if consumer is None or consumer.outbox or self._bodies or self._is_stuck or self._is_closing:
            return False
        self._is_dirty = False
        self._take_replies(consumer)
        return not consumer.outbox

    def flush(self) -> None:
        """Take what the engine answered."""
        self._run(self._go_on)

    def _talk(self, consumer: StockConsumer) -> None:
        port = self._port
        if port is None:
            return
        while True:
            if consumer.outbox:
                batch, consumer.outbox = consumer.outbox, []
                self._is_sending = True
                try:
                    port.send(batch)
                finally:
                    self._is_sending = False
            # Lowered first: whoever adds from here on asks for another flush, at worst for nothing.
            self._is_dirty = False
            if self._inbox:
                self._take_replies(consumer)
            elif not consumer.outbox:
                return

    def _take_replies(self, consumer: StockConsumer) -> None:
        for reply in self._take_inbox():
            answer = consumer.on_reply(reply)
            if answer is not None:
                self._tell(answer)

    def _take_inbox(self) -> list[Reply]:
        """Not a swap: another thread may be about to extend that very list."""
        replies = self._inbox[:]
        del self._inbox[: len(replies)]
        return replies

    # -- ending

    def _run(self, step: Callable[..., None], *args: Any) -> None:
        """Run a step, while no other thread answers the peer; what goes wrong in it ends this connection, nothing else."""
        try:
            with self._out.turn:
                step(*args)
        except WireError as error:
            if not isinstance(error, ServerUnavailable):
                self._server.complain(self, str(error))
            self.abort()
        except Exception:
            logger.exception("Dropped %s: a bug in the server or its engine", self.peer)
            self.abort()

    def close(self) -> None:
        """End the connection once the peer has taken what was written."""
        self._is_closing = True
        if self._out.transport is not None:
            self._out.transport.close()

    def abort(self) -> None:
        """End the connection at once."""
        self._is_closing = True
        if self._out.transport is not None:
            self._out.transport.abort()
        elif self._claim is not None:
            self._decide()

    def say_last(self, last: Closing | Failed) -> None:
        """The master shuts down: gets find nothing from now on; what the peer does besides is served until it leaves."""
        if self._out.transport is None or self._consumer is None or isinstance(last, Failed):
            self.abort()
            return
        self._run(self._consumer.end_soon)
        if self._running is not None:
            self._gateway.withdraw(self)  # a wait in a queue that is an object ends as well
        self._run(self._go_on)

    def _decide(self) -> None:
        """Nobody contested the orderly end, or the time for it is cut short."""
        claim, self._claim = self._claim, None
        if claim is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._end(is_orderly=not claim.is_contested)

    def _end(self, *, is_orderly: bool) -> None:
        port, self._port = self._port, None
        if port is not None and self._consumer is not None:
            self._run(self._end_session, port, self._consumer, is_orderly)
        if self._calls_objects:
            self._gateway.end_caller(self, is_lost=not is_orderly)
        self._server.left(self)

    def _end_session(self, port: Port, consumer: StockConsumer, is_orderly: bool) -> None:
        consumer.unread(self._take_inbox())
        consumer.end(is_orderly=is_orderly)
        if consumer.outbox:
            port.send(consumer.outbox)
        if consumer.holds:
            self._gateway.report_lost(self.session, port)
        else:
            port.detach()
