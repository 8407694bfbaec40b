"""What all standard-library peers of one master share: its objects, the threads of their calls, their sessions.

connection ──┬─ create, get_methods ──> run (the callables' thread) ──> Objects
             ├─ incref, decref ──> hosts, Objects
             └─ a call of an object ──> callers (one connection's calls in one thread) ──> Objects
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Hashable
from itertools import count
from multiprocessing.managers import Token
from typing import Any

from manyhands.auth import Keyring
from manyhands.codec import Codec, check_size
from manyhands.engines.base import Engine, Port
from manyhands.errors import ManyhandsError, UsageError
from manyhands.events import Attach, ReportDead
from manyhands.managers.objects import Objects
from manyhands.managers.objects.callers import Callers
from manyhands.managers.stock.answers import NOTHING, PROXY, RETURN, TRACEBACK, Answer, Call
from manyhands.managers.stock.connection import StockConnection
from manyhands.managers.stock.hosts import Hosts
from manyhands.managers.stock.passing import Passing
from manyhands.model import Message
from manyhands.server.connection import Arrival
from manyhands.server.listener import SocketServer
from manyhands.wire.stock import StockWire
from manyhands.wire.stock_frames import SCRATCH_BYTES

logger = logging.getLogger(__name__)

_REQUEST_BYTES = 64 * 1024
"""What a request may have around its item."""
_REFUSED = {
    "shutdown": "ends a master for everybody; call shutdown() in the master's own program",
    "debug_info": "is not told to peers; 'manyhands status' shows the queues",
    "number_of_objects": "is not told to peers; 'manyhands status' shows the queues",
}


class StockGateway:
    """Meets standard-library peers; its `meet` is SocketServer's `meet_stock`.

    Args:
        engine: where the queues are.
        keyring: the master's key.
        objects: what it offers, and what it serves that is no queue.
        callers: the threads of calls.
        run: runs a function in a thread that may wait, one after another.
    """

    def __init__(
        self,
        engine: Engine,
        keyring: Keyring,
        objects: Objects,
        callers: Callers,
        run: Callable[[Callable[[], object]], None],
    ) -> None:
        self.hosts = Hosts()
        self.codec = Codec([(key.id, key.body) for key in keyring])
        self.now = time.monotonic
        self._engine = engine
        self._raw_key = keyring.raw
        self._objects = objects
        self.passing = Passing(objects, lambda: (self._server.address.host, self._server.address.port))
        self._callers = callers
        self._run = run
        self._server: SocketServer
        self._max_body_bytes = engine.limits.max_body_bytes
        self._scratch = bytearray(SCRATCH_BYTES)
        self._id_prefix = secrets.token_hex(8) + "-"
        self._ids = count(1)
        self._port: Port | None = None

    def meet(self, server: SocketServer, arrival: Arrival) -> StockConnection:
        """A peer has answered the challenge with the right digest; what its transport belongs to from here."""
        self._server = server
        wire = StockWire(
            raw_key=self._raw_key,
            dialect=arrival.dialect,
            limit_bytes=self._max_body_bytes + _REQUEST_BYTES,
            scratch=self._scratch,
        )
        return StockConnection(self, server, arrival, wire)

    def sealed(self, queue: str, encoding: int, body: bytes) -> Message:
        """A message of that body. Raises PayloadTooLarge."""
        check_size(body, self._max_body_bytes)
        message_id = f"{self._id_prefix}{next(self._ids):x}"
        return Message(message_id, body, self.codec.seal(queue, message_id, encoding, body))

    # -- requests of the manager

    def manage(self, connection: StockConnection, call: Call) -> None:
        """Answer a connection's one request, by connection.managed, now or later."""
        method = call.method
        if method == "dummy":
            connection.managed(NOTHING)
        elif method in ("incref", "decref") and len(call.args) == 1:
            self._count(connection, method, str(call.args[0]))
        elif method in ("create", "get_methods"):
            self._later(connection, lambda: self._made_or_shown(connection, call))
        else:
            why = _REFUSED.get(method, "is no request that a manyhands master knows")
            connection.managed(Answer(TRACEBACK, f"{method!r} {why}.\n"))

    def _later(self, connection: StockConnection, work: Callable[[], Answer]) -> None:
        def answer() -> None:
            try:
                found = work()
            except Exception as error:
                if not isinstance(error, ManyhandsError):
                    logger.exception("answering %s failed", connection.peer)
                found = Answer(TRACEBACK, f"{error}\n")
            self._server.soon(connection.managed, found)

        self._run(answer)

    def _made_or_shown(self, connection: StockConnection, call: Call) -> Answer:
        """In the callables' thread: create, get_methods."""
        whole = connection.rebuild(call)
        if not whole.args:
            raise UsageError(f"{call.method}() needs the name or token of what is asked for.")
        if call.method == "get_methods":
            return Answer(RETURN, self._objects.methods(str(getattr(whole.args[0], "id", whole.args[0]))))
        made = self._objects.create(_holder(connection), str(whole.args[0]), whole.args[1:], whole.kwds)
        self._created(connection, made.ident)
        return Answer(RETURN, (made.ident, made.exposed))

    def _created(self, connection: StockConnection, ident: str) -> None:
        # Ahead of the answer, behind which the peer's own decref comes.
        self._server.soon(self.hosts.created, connection.peer, ident, self.now())

    def _count(self, connection: StockConnection, method: str, ident: str) -> None:
        """One proxy of that host more or less."""
        holder = _holder(connection)
        if method == "incref":
            try:
                self._objects.incref(ident, holder)
                connection.managed(NOTHING)
            except ManyhandsError as error:
                connection.managed(Answer(TRACEBACK, f"{error}\n"))
            return
        self.hosts.decreffed(connection.peer, ident, self.now())
        self._run(lambda: self._objects.decref(ident, holder))  # an object's own code may run as it goes
        connection.managed(NOTHING)

    # -- calls of objects

    def call(
        self,
        connection: StockConnection,
        caller: Hashable,
        call: Call,
        done: Callable[[bytes], None],
        is_wanted: Callable[[], bool],
    ) -> None:
        """Make a call in the caller's thread, then done with the reply, in the loop."""
        try:
            self._callers.submit(
                caller, lambda: self._called(connection, caller, call, is_wanted), lambda r: self._server.soon(done, r)
            )
        except RuntimeError as error:
            text = f"The master has no thread for another call ({error}); try again, or use fewer waiting calls.\n"
            self._server.soon(done, connection.said(Answer(TRACEBACK, text)))

    def _called(self, connection: StockConnection, caller: Hashable, call: Call, is_wanted: Callable[[], bool]) -> bytes:
        """In the caller's thread, where the peer's objects are built as well."""
        try:
            whole = connection.rebuild(call)
            assert whole.ident is not None
            kind, value = self._objects.call(
                caller,
                whole.ident,
                whole.method,
                whole.args,
                whole.kwds,
                holder=_holder(connection),
                is_wanted=is_wanted,
            )
            if kind == PROXY:
                exposed, token = value
                value = (exposed, Token(token.typeid, None, token.id))
                self._created(connection, token.id)
            return connection.said(Answer(kind, value))
        except ManyhandsError as error:
            return connection.said(Answer(TRACEBACK, f"{error}\n"))
        except BaseException as error:  # sys.exit() in the program's own method, say: the caller must hear of it
            return connection.said(Answer(TRACEBACK, f"{type(error).__name__}: {error}\n"))

    def withdraw(self, caller: Hashable) -> None:
        """Its running call need wait no longer."""
        self._objects.withdraw(caller)

    def give_up(self, caller: Hashable) -> None:
        """Nobody waits for the caller's running call any more."""
        self._objects.withdraw(caller)
        self._callers.abandon(caller)

    def end_caller(self, caller: Hashable, *, is_lost: bool) -> None:
        """It makes no more calls: its locks are released and what it had leased goes back, or is done."""
        self._objects.withdraw(caller)
        with contextlib.suppress(RuntimeError):
            self._callers.submit(caller, lambda: self._objects.caller_ended(caller, is_lost=is_lost), _nothing)

    def rebuild(self, connection: StockConnection, call: Call) -> None:
        """Rebuild a call's objects, then connection.rebuilt."""

        def work() -> None:
            try:
                self._server.soon(connection.rebuilt, connection.rebuild(call), "")
            except ManyhandsError as error:
                self._server.soon(connection.rebuilt, None, str(error))

        self._run(work)

    # -- sessions

    def attach_now(self, connection: StockConnection, session: str, name: str) -> Port | None:
        """Open a session at the engine for a connection's calls; None where that may wait for a disk.

        It lives in the engine's process: however long its peer is silent over a task, it loses nothing while its
        connection lives.
        """
        if self._engine.features.survives_restart:
            return None
        return self._engine.attach(Attach(session, name, is_here=True), connection.sink)

    def attach(self, connection: StockConnection, session: str, name: str) -> None:
        """The same in another thread, then connection.attached."""

        def work() -> None:
            try:
                port = self._engine.attach(Attach(session, name, is_here=True), connection.sink)
                self._server.soon(connection.attached, port, None)
            except Exception as error:
                self._server.soon(connection.attached, None, error)

        self._server.in_background(work)

    def report_lost(self, session: str, port: Port) -> None:
        """The session's peer was lost: what it held goes back at once, and travels alone from now on."""

        def work() -> None:
            with contextlib.suppress(ManyhandsError):
                if self._port is None:
                    attach = Attach(secrets.token_hex(16), "watches standard-library peers")
                    self._port = self._engine.attach(attach, _nothing)
                self._port.send([ReportDead(0, session, "its connection ended, and it had not let its proxies go")])
            port.detach()

        self._server.in_background(work)


def _holder(connection: StockConnection) -> str:
    """Whose references they are: a decref names no process, so all of a host's are counted together."""
    return f"standard library {connection.peer}"


def _nothing(*_: Any) -> None:
    pass
