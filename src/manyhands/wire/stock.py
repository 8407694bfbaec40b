"""The server's end of a connection with a standard-library peer, as a state machine: bytes in, events out.

It takes over where ServerWire has recognised a right digest (docs/protocol.md, "Standard-library peers"):

    greeting() ── #CHALLENGE# ──> our digest ── #WELCOME# ──> open: one request after another
    (#WELCOME#)       │                │
                      └────────────────┴─ anything else: ProtocolError or AuthenticationFailed, and the connection is closed
"""

from __future__ import annotations

import hashlib
import hmac
from enum import Enum, auto

import msgspec

from manyhands.errors import AuthenticationFailed, ProtocolError
from manyhands.wire import handshake
from manyhands.wire.stock_frames import StockFrames

_LEGACY_BYTES = 20
"""The random part of a challenge up to 3.11; it names no digest."""


class Answer(msgspec.Struct, frozen=True):
    """Write these bytes to the peer."""

    data: bytes


class Opened(msgspec.Struct, frozen=True):
    """Both sides have shown the key; requests follow."""


class Body(msgspec.Struct, frozen=True):
    """One whole request, not decoded."""

    data: bytes | bytearray


StockEvent = Answer | Opened | Body


class _State(Enum):
    CHALLENGE = auto()
    VERDICT = auto()
    OPEN = auto()
    CLOSED = auto()


class StockWire:
    """One connection's server end, from the peer's right digest on.

    Args:
        raw_key: the key as it was given; the standard library derives nothing from it.
        dialect: how the peer signed its digest (`handshake.stock_dialect`): it is answered in no weaker one.
        limit_bytes: a larger request is refused from its header.
        scratch: see `StockFrames`.
    """

    def __init__(self, *, raw_key: bytes, dialect: str, limit_bytes: int, scratch: bytearray | None = None) -> None:
        self._raw_key = raw_key
        self._dialect = dialect
        self.is_open = False
        """Whether the handshake is over."""
        self._state = _State.CHALLENGE
        self._reader: handshake.MessageReader | None = handshake.MessageReader()
        self._frames = StockFrames(limit_bytes, scratch)

    @property
    def is_midway(self) -> bool:
        """Whether the peer owes the rest of what it began: the handshake, or a request."""
        return not self.is_open or self._frames.is_midway

    @staticmethod
    def greeting() -> bytes:
        """The answer to the peer's digest."""
        return handshake.message(handshake.WELCOME)

    def get_buffer(self) -> memoryview:
        """Memory for the next read; never empty."""
        return self._frames.get_buffer() if self._reader is None else self._reader.get_buffer()

    def received(self, n: int) -> list[StockEvent]:
        """n bytes were read into the buffer; what they mean, in order.

        Raises:
            AuthenticationFailed: the peer would have us answer a challenge of our own, or does not take our answer.
            ProtocolError: what it sent is not this protocol.
        """
        try:
            if self._reader is None:
                return [Body(body) for body in self.bodies(n)]
            self._reader.buffer_updated(n)
            return self._shake_hands(self._reader)
        except (AuthenticationFailed, ProtocolError):
            self._state = _State.CLOSED
            self.is_open = False
            raise

    def bodies(self, n: int) -> list[bytes | bytearray]:
        """`received`, once it is open: the whole requests. Raises ProtocolError."""
        try:
            return self._frames.buffer_updated(n)
        except ProtocolError:
            self._state = _State.CLOSED
            self.is_open = False
            raise

    def feed(self, data: bytes) -> list[StockEvent]:
        """Take bytes that were received elsewhere."""
        events: list[StockEvent] = []
        view = memoryview(data)
        while view:
            room = self.get_buffer()
            n = min(len(room), len(view))
            room[:n] = view[:n]
            events += self.received(n)
            view = view[n:]
        return events

    def _shake_hands(self, reader: handshake.MessageReader) -> list[StockEvent]:
        events: list[StockEvent] = []
        while self._state is not _State.OPEN:
            body = reader.take()
            if body is None:
                return events
            if self._state is _State.CHALLENGE:
                events.append(Answer(handshake.message(answer_to(body, self._dialect, self._raw_key))))
                self._state = _State.VERDICT
            elif body == handshake.WELCOME:
                self._state = _State.OPEN
                self.is_open = True
                events.append(Opened())
            else:
                raise AuthenticationFailed("The standard-library client did not take this server's answer to its challenge.")
        self._reader = None
        events += [Body(body) for body in self._frames.feed(reader.arrived)]
        return events


def answer_to(body: bytes, dialect: str, raw_key: bytes) -> bytes:
    """Our answer to a standard-library client's challenge.

    Args:
        body: the whole message.
        dialect: the one in which the client itself has answered.

    Raises:
        AuthenticationFailed: a manyhands server made that challenge: answering would vouch for whoever passes it on.
        ProtocolError: it is no challenge, or asks for a digest that is not answered to this client.
    """
    if not body.startswith(handshake.CHALLENGE):
        raise ProtocolError("The standard-library client sent something else than its challenge.")
    if handshake.read_challenge(body).is_native:
        raise AuthenticationFailed("The peer sent back a challenge of this server or of another one; it was not answered.")
    challenge = body[len(handshake.CHALLENGE) :]
    if len(challenge) == _LEGACY_BYTES:
        if not dialect.startswith("raw "):
            raise ProtocolError(f"The standard-library client signs with {dialect} and asks for an answer in MD5.")
        return _mac(raw_key, challenge, dialect.removeprefix("raw "))
    prefix = challenge[: challenge.find(b"}") + 1]
    name = handshake.PREFIXED.get(prefix)
    if name is None or len(challenge) - len(prefix) < _LEGACY_BYTES:
        raise ProtocolError("The standard-library client's challenge names no digest that is known here, or is too short.")
    if name == "md5" and not dialect.endswith("md5"):
        raise ProtocolError(f"The standard-library client signs with {dialect} and asks for an answer in MD5.")
    return prefix + _mac(raw_key, challenge, name)


def _mac(raw_key: bytes, challenge: bytes, name: str) -> bytes:
    try:
        return hmac.new(raw_key, challenge, getattr(hashlib, name)).digest()
    except ValueError as error:  # md5 on a machine in FIPS mode
        raise ProtocolError(f"The standard-library client asks for {name}, which this machine does not allow.") from error
