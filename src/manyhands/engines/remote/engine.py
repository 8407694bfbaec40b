"""An engine behind a manyhands server, as its clients see it."""

from __future__ import annotations

import logging
import math
import secrets
import socket
import threading
import time
import weakref
from collections.abc import Sequence

from manyhands._chance import CHANCE
from manyhands.address import Address, parse_address
from manyhands.auth import Keyring
from manyhands.engines.base import Sink
from manyhands.engines.remote.link import Link
from manyhands.engines.remote.port import RemotePort
from manyhands.engines.remote.trying import Trying
from manyhands.errors import AuthenticationFailed, ProtocolError, ServerUnavailable, SessionTaken, UsageError
from manyhands.events import Attach, Attached, Closing, Reply
from manyhands.model import Durability, Features, Limits
from manyhands.wire.client import ClientWire

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0


class RemoteEngine:
    """Sessions at the server behind an address; each port is one TCP connection of its own.

    Args:
        where: `tcp://host:port` or (host, port).
        connect_timeout_s: how long attach goes on trying while nobody answers; a worker may be started before its server.
            math.inf is until the engine is closed.
        name: who this is, for people; attaches without a name of their own use it.
    """

    def __init__(
        self,
        where: str | tuple[str, int],
        keyring: Keyring,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        name: str = "",
    ) -> None:
        self.address = parse_address(where) if isinstance(where, str) else Address(*where)
        self._keyring = keyring
        self._connect_timeout_s = connect_timeout_s
        self._client_name = name
        self._about: Attached | None = None
        self._ports: weakref.WeakSet[RemotePort] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = threading.Event()

    @property
    def name(self) -> str:
        """The kind of the engine behind the server."""
        return self._ask().engine

    @property
    def durability(self) -> Durability:
        return self._ask().durability

    @property
    def features(self) -> Features:
        return self._ask().features

    @property
    def limits(self) -> Limits:
        return self._ask().limits

    def attach(self, attach: Attach, sink: Sink) -> RemotePort:
        """Connect and open (or resume) the session.

        Raises:
            ServerUnavailable: nobody answered within connect_timeout_s, or until the engine was closed; the sentence says
                what to check.
            AuthenticationFailed: the keys differ. At once.
            ProtocolError: what answers there is no manyhands server. At once.
        """
        if self._closed.is_set():
            raise UsageError(f"This engine's client for {self.address.url} was closed; make a new one.")
        wire = ClientWire(
            keyring=self._keyring,
            session=attach.session,
            attach_name=attach.name or self._client_name,
            where=self.address.url,
            held=attach.held,
            parent=attach.parent,
        )
        link = Link(self.address, wire)
        port = RemotePort(link, sink, self._open(link))
        self._about = port.attached
        self._ports.add(port)
        return port

    def close(self, *, closing_reason: str = "") -> None:
        """End every session of this process at that server as if its connection had been cut, and every try. Idempotent."""
        self._closed.set()
        for port in list(self._ports):
            port.end(Closing(closing_reason))

    def _ask(self) -> Attached:
        """What the server said of its engine; a passing session asks if none has yet."""
        with self._lock:
            if self._about is None:
                port = self.attach(Attach(secrets.token_hex(16), "asks what the engine is"), _ignore)
                port.detach()
            assert self._about is not None
            return self._about

    def _open(self, link: Link) -> list[Reply]:
        """Connect until the session is attached; what arrived with it."""
        started = time.monotonic()
        deadline = started + self._connect_timeout_s
        trying = Trying(self.address, started, deadline)
        while True:
            try:
                return self._try_once(link, deadline, trying.say_at)
            except (AuthenticationFailed, ProtocolError, SessionTaken):
                raise
            except socket.gaierror as error:
                if error.errno == socket.EAI_NONAME and deadline != math.inf:
                    raise ServerUnavailable(
                        f"The host name {self.address.host!r} is not known here; check its spelling.", host=self.address.host
                    ) from error
                cause: OSError = error
            except OSError as error:
                cause = error
            now = time.monotonic()
            at = trying.next_at(link.wire.next_attempt_at(now, CHANCE.random()), now)
            if self._closed.is_set():
                at = None
            if at is None:
                raise ServerUnavailable(
                    trying.verdict(cause, now), host=self.address.host, port=self.address.port
                ) from cause
            if line := trying.line(cause, now):
                logger.warning("%s", line)
            self._closed.wait(max(0.0, at - time.monotonic()))

    def _try_once(self, link: Link, deadline: float, say_at: float) -> list[Reply]:
        replies: list[Reply] = []
        try:
            # An attempt that nobody refuses ends when it is time to say so, and another follows.
            link.connect(min(max(0.1, min(deadline, say_at) - time.monotonic()), CONNECT_TIMEOUT_S))
        except OSError:
            link.wire.connection_lost(time.monotonic())
            raise
        transport = link.transport
        assert transport is not None
        try:
            while not link.wire.is_open:
                with link.lock:
                    due_at = link.tick(time.monotonic())
                if due_at is None:
                    break
                left = max(0.0, min(due_at, deadline) - time.monotonic())
                transport.wait(left, for_writing=link.is_blocked)
                replies += link.read(transport)
                if time.monotonic() >= deadline and not link.wire.is_open:
                    raise TimeoutError("it accepted the connection and then said nothing")
        except BaseException:
            with link.lock:
                link.lose(transport, ConnectionAbortedError("gave up"))
                link.close_dead()
            raise
        if link.wire.is_open:
            return replies
        with link.lock:
            link.close_dead()
        assert link.cause is not None
        raise link.cause


def _ignore(_: Sequence[Reply]) -> None:
    """The sink of a session that asks nothing."""
