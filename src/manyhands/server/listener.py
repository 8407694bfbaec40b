"""An engine behind a socket: the listener, its loop, and all that connections share.

The queues stay the engine's: stopping the server settles nothing, and an engine may have other ports in this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec

from manyhands import _forks, _sockets
from manyhands._bridge import new_loop
from manyhands._turns import SharedLoop
from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.engines.base import Engine, LedEngine, Port
from manyhands.errors import SessionTaken, UsageError
from manyhands.events import Attach, Closing, Failed, Reply, Stats, StatsReply
from manyhands.model import DEFAULT_PORT
from manyhands.server.admission import Failures, Pending, Quiet, source_of
from manyhands.server.connection import Arrival, Connection
from manyhands.server.peers import Peer, StockPeer
from manyhands.server.writing import Writing
from manyhands.settings import SHORT_BYTES
from manyhands.wire.handshake import RANDOM_BYTES
from manyhands.wire.server import ServerWire

logger = logging.getLogger(__name__)

ACCEPTS_A_TURN = 64
"""asyncio's backlog is also how often it tries to accept in one turn, even when it is out of descriptors."""
_START_S, _STOP_S = 10.0, 5.0
_FLUSH_S = 1.0
_TAKEN = Failed(0, SessionTaken.code, "The session attached over another connection.")


class SocketServer:
    """Serves an engine on a TCP port, from a thread of its own (start) or in the caller's (run)."""

    def __init__(
        self,
        engine: Engine,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        keyring: Keyring,
        is_insecure: bool = False,
        meet_stock: Callable[[SocketServer, Arrival], StockPeer] | None = None,
    ) -> None:
        """Bind and listen at once, so that a port that cannot be had is an error here; connections are served from start().

        Args:
            host: '' is every interface of this machine.
            port: 0 is any free one; see `address`.
            is_insecure: allow an address beyond loopback although the connection is not encrypted.
            meet_stock: makes what serves a standard-library peer; None refuses them.

        Raises:
            AddressInUse: another program listens there.
            UsageError: an address beyond loopback without is_insecure, or one that is not this machine's.
        """
        is_any = host in ("", "0.0.0.0", "::")
        if not is_insecure and (is_any or not Address(host, port).is_loopback):
            raise UsageError(
                f"Listening on {host or 'all interfaces'} would send everything unencrypted over the network; "
                "pass insecure=True if that network is trusted, or listen on 127.0.0.1."
            )
        self._engine = engine
        self._keyring = keyring
        self._meet_stock = meet_stock
        self.notes: list[str] = []
        """What is allowed and unwise here; every client is told, for `manyhands status`."""
        if len(keyring.raw) < SHORT_BYTES and (is_any or not Address(host, port).is_loopback):
            self.notes.append(
                f"the key has fewer than {SHORT_BYTES} bytes and the server listens on a network, where it can be guessed"
            )
        self._max_body_bytes = engine.limits.max_body_bytes
        self._is_any = is_any
        self._listener = _sockets.listen(host, port)
        self.address = _sockets.dialable(self._listener)
        """What a program on this machine can dial."""
        self.url = self.address.url
        self._is_started = False
        self._is_stopped = False
        self._stop_lock = threading.Lock()
        self._own_ident = 0
        self._turns: SharedLoop | None = None
        self._loop: asyncio.AbstractEventLoop
        self._asyncio_server: asyncio.AbstractServer | None = None
        self._connections: set[Peer] = set()
        self._sessions: dict[str, Connection] = {}
        self.writing: Writing
        """When what gathers for the peers is written; there while the server serves."""
        self._attacher = ThreadPoolExecutor(1, thread_name_prefix="manyhands-attach")
        self._pending: Pending[Peer] = Pending()
        self._sweep: asyncio.TimerHandle | None = None
        self._failures = Failures()
        self._quiet = Quiet()
        self._is_empty: asyncio.Event
        _forks.watch(self)

    @property
    def connections(self) -> int:
        """How many peers are connected now, those in their handshake included."""
        return len(self._connections)

    def start(self) -> None:
        """Serve from a daemon thread named manyhands-server, and from this process's threads that wait for an answer.

        Raises:
            UsageError: it serves already.
        """
        self._check_first()
        # A sqlite engine's threads wait for its disk, not for the loop: there the quickest loop is best.
        self._turns = SharedLoop("manyhands-server", None if isinstance(self._engine, LedEngine) else new_loop())
        self._turns.start()
        self._turns.run(self._open(self._turns.loop), _START_S)
        if isinstance(self._engine, LedEngine):
            self._engine.led_by(self._turns.lead)
        self._say_where()

    def run(self) -> None:
        """Serve in this thread until stop(), or until SIGINT or SIGTERM where this is the main thread.

        Raises:
            UsageError: it serves already.
        """
        self._check_first()
        self._loop = loop = new_loop()
        self._own_ident = threading.get_ident()
        try:
            loop.run_until_complete(self._open(loop))
            self._say_where()
            for number in (signal.SIGINT, signal.SIGTERM):
                # Not the main thread, or Windows: there Ctrl-C ends run_forever with KeyboardInterrupt.
                with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):
                    loop.add_signal_handler(number, loop.stop)
            loop.run_forever()
        finally:
            loop.run_until_complete(self._close("The server is stopping."))
            loop.close()
            self._ended()

    def stop(self, reason: str = "The server is stopping.") -> None:
        """Tell every session, hand over what is ready, close. Settles nothing; idempotent; from any other thread."""
        with self._stop_lock:
            if self._is_stopped:
                return
            self._is_stopped = True
        if self._turns is not None:
            if isinstance(self._engine, LedEngine):
                self._engine.led_by(None)
            self._turns.run(self._close(reason), _STOP_S)
            self._turns.stop(_STOP_S)
            self._ended()
        elif self._own_ident:
            self._loop.call_soon_threadsafe(self._loop.stop)
        else:
            self._ended()

    def __enter__(self) -> SocketServer:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def close_in_child(self) -> None:
        """After a fork: the parent goes on serving; this process only lets go of its copies (see _forks)."""
        self._is_stopped = True
        fds = [connection.fd for connection in self._connections]
        if self._listener.fileno() >= 0:
            fds.append(self._listener.detach())
        for fd in fds:
            with contextlib.suppress(OSError):
                os.close(fd)

    # -- for connections, in the loop's thread

    def arrived(self, connection: Connection) -> None:
        """A connection was accepted."""
        self._connections.add(connection)
        pushed_out = self._pending.add(connection, self._loop.time())
        if pushed_out is not None:
            self.complain(pushed_out, "Too many connections were waiting to authenticate; it was the oldest.")
            pushed_out.abort()
        if self._sweep is None:
            self._plan_sweep()

    def admitted(self, connection: Peer) -> None:
        """It showed the key."""
        self._pending.remove(connection)

    def hand_over(self, connection: Connection, arrival: Arrival) -> bool:
        """Give a standard-library peer's transport to what serves such peers; False where nothing does."""
        if self._meet_stock is None:
            return False
        self.admitted(connection)
        self._connections.discard(connection)
        stock = self._meet_stock(self, arrival)
        self._connections.add(stock)
        arrival.transport.set_protocol(stock)  # type: ignore[arg-type]
        stock.begin(arrival.early)
        return True

    def left(self, connection: Peer) -> None:
        """It is gone."""
        self._pending.remove(connection)
        self._connections.discard(connection)
        if self._sessions.get(connection.session) is connection:
            del self._sessions[connection.session]
        if not self._connections:
            self._is_empty.set()

    def attach(self, event: Attach, connection: Connection) -> None:
        """Open the session, then call connection.attached. A session's earlier connection ends: it lives in one only."""
        earlier = self._sessions.get(event.session)
        if earlier is not None:
            earlier.say_last(_TAKEN)
            self.later(_FLUSH_S, earlier.abort)
        self._sessions[event.session] = connection
        if event.is_here:
            event = msgspec.structs.replace(event, is_here=False)  # whoever comes through a socket can die alone
        try:
            future = self._attacher.submit(self._engine.attach, event, connection.sink)
        except RuntimeError:  # this interpreter is shutting down; the client will find another server, or none
            connection.abort()
            return
        future.add_done_callback(lambda done: self._tell(connection.attached, done))

    def wrong_key(self, connection: Peer) -> float:
        """Note it; seconds to wait before the answer."""
        return self._failures.delay_s(source_of(connection.peer), self._loop.time())

    def complain(self, connection: Peer, text: str) -> None:
        """Log what a peer did, once for each source and minute."""
        kept_back = self._quiet.kept_back(source_of(connection.peer), self._loop.time())
        if kept_back is not None:
            more = f" ({kept_back} more of this address since the last line)" if kept_back else ""
            logger.warning("Refused %s: %s%s", connection.peer, text, more)

    def later(self, delay_s: float, function: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Call function in the loop after a while."""
        return self._loop.call_later(delay_s, function, *args)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Call function in the loop, from any thread; never, once the loop is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def in_background(self, function: Callable[[], object]) -> None:
        """Run what may wait for the engine's disk, in the thread that opens sessions and in order with them."""
        with contextlib.suppress(RuntimeError):  # this interpreter is shutting down
            self._attacher.submit(function)

    # -- inside

    def _say_where(self) -> None:
        logger.info("Serving a %s engine at %s", self._engine.name, self.url)
        if self._is_any:
            host = _sockets.address_on_the_network() or "this machine's address"
            logger.info("It listens on every interface; others dial %s", Address(host, self.address.port).url)

    def _check_first(self) -> None:
        """A second loop on the same listener would take connections that the first one's calls then never reach."""
        with self._stop_lock:
            if self._is_started:
                raise UsageError(f"The server at {self.url} was started before; start it once, or make another one.")
            self._is_started = True

    def _tell(self, function: Callable[[Future[Port]], None], future: Future[Port]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: the session was left with its connection
            self._loop.call_soon_threadsafe(function, future)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.writing = Writing(loop, self._turns)
        self._is_empty = asyncio.Event()
        loop.set_exception_handler(self._on_loop_error)
        self._asyncio_server = await loop.create_server(self._accept, sock=self._listener, backlog=ACCEPTS_A_TURN)
        self._listener.listen(_sockets.BACKLOG)

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log what the loop could not tell anybody else, once a minute for each kind; it goes on by itself."""
        text = context.get("message", "unknown")
        if self._quiet.kept_back(text, self._loop.time()) is None:
            return
        error = context.get("exception")
        if isinstance(error, OSError):  # out of descriptors or memory: no bug, so no traceback
            logger.error("%s: %s", text, error)
        else:
            logger.error("A bug in the server: %s", text, exc_info=error)

    def _accept(self) -> Connection:
        wire = ServerWire(keyring=self._keyring, random=os.urandom(RANDOM_BYTES), max_body_bytes=self._max_body_bytes)
        return Connection(self, wire)

    def _plan_sweep(self) -> None:
        due_s = self._pending.next_due_s(self._loop.time())
        # A little late, so that a flood is swept in a few rounds and not one by one.
        self._sweep = None if due_s is None else self._loop.call_later(due_s + 0.05, self._drop_overdue)

    def _drop_overdue(self) -> None:
        for connection in self._pending.overdue(self._loop.time()):
            self.complain(connection, "It did not authenticate in time.")
            connection.abort()
        self._plan_sweep()

    async def _close(self, reason: str) -> None:
        # What was just accepted becomes a connection in a task of asyncio's, which fails and leaves its socket open when the
        # server is closed meanwhile (CPython gh-109564).
        for _ in range(10):  # a flood shall not keep it
            arriving = asyncio.all_tasks() - {asyncio.current_task()}
            if not arriving:
                break
            await asyncio.wait(arriving, timeout=_FLUSH_S)
        if self._asyncio_server is not None:
            self._asyncio_server.close()
        if self._sweep is not None:
            self._sweep.cancel()
        self._is_empty.clear()
        closing = Closing(reason, await self._shut_down_queues())
        for connection in list(self._connections):
            connection.say_last(closing)
        if self._connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), max(each.linger_s for each in self._connections))
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)  # the turn in which the transports close their sockets

    async def _shut_down_queues(self) -> list[str]:
        """The queues that were shut down and are empty, asked of the engine as any client would; none if it is silent."""
        answered: asyncio.Future[Sequence[Reply]] = self._loop.create_future()

        def answer(replies: Sequence[Reply]) -> None:
            if not answered.done():
                answered.set_result(replies)

        def take(replies: Sequence[Reply]) -> None:  # in any thread
            self._loop.call_soon_threadsafe(answer, replies)

        try:
            port = self._engine.attach(Attach(secrets.token_hex(16), "stops the server"), take)
            try:
                port.send([Stats(1)])
                async with asyncio.timeout(_FLUSH_S):
                    replies = await answered
            finally:
                port.detach()
        except Exception as error:  # whatever is wrong with the engine, the stop goes on
            logger.debug("The engine did not say which queues are shut down: %s", error)
            return []
        queues = [each for reply in replies if isinstance(reply, StatsReply) for each in reply.queues]
        return [each.name for each in queues if each.is_shut_down and not each.ready + each.delayed]

    def _ended(self) -> None:
        self._is_stopped = True
        _forks.forget(self)
        self._attacher.shutdown(wait=False)
        with contextlib.suppress(OSError):
            self._listener.close()
        logger.info("Stopped serving at %s", self.url)
