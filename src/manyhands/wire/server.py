"""The server's end of one connection, as a state machine: bytes in, events out, no socket and no clock.

greeting() ── HELLO ──> proof awaited ── AUTH ──> attach awaited ── Attach ──> open
     │                        │
     └─ a standard-library    └─ anything else: `failure` holds what to write, then the connection is closed
        digest: PeerIsStock
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import Enum, auto
from typing import Any, cast

import msgspec

from manyhands import auth
from manyhands.errors import AuthenticationFailed, ManyhandsError, PayloadTooLarge, ProtocolError
from manyhands.events import Attach, Attached, Done, Failed, Ping, Reply, Request
from manyhands.model import MAX_BODY_BYTES
from manyhands.wire import handshake
from manyhands.wire.frames import (
    ATTACHING,
    CLIENT_PENDING_BYTES,
    NOT_ENCODABLE,
    TO_SERVER,
    Buffer,
    FrameDecoder,
    FrameEncoder,
    error_frame,
)


class Authenticated(msgspec.Struct, frozen=True):
    """The client has the key. Write `reply` to it; frames follow."""

    key_id: bytes
    reply: bytes


class PeerIsStock(msgspec.Struct, frozen=True):
    """A multiprocessing client of the standard library answered. Write `reply` to it and close, or let a StockWire go on."""

    dialect: str
    """How it signs: raw md5, sha256, …"""
    is_key_right: bool
    reply: bytes


MIN_SESSION_CHARS, MAX_SESSION_CHARS = 16, 128
"""96 bits take 16 characters at six bits each."""

ServerEvent = Authenticated | PeerIsStock | Attach | Request


class _State(Enum):
    HELLO = auto()
    AUTH = auto()
    ATTACH = auto()
    OPEN = auto()
    CLOSED = auto()


class ServerWire:
    """One connection's server end.

    Args:
        keyring: the keys that are accepted.
        random: RANDOM_BYTES of fresh randomness for the challenge.
        max_body_bytes: the engine's limit.
    """

    def __init__(self, *, keyring: auth.Keyring, random: bytes, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.failure = b""
        """After received() raised: the bytes to write before closing (may be none)."""
        self._keyring = keyring
        self._max_body_bytes = max_body_bytes
        self._challenge = handshake.build_challenge(random)
        self._hello = b""
        self._state = _State.HELLO
        self._reader: handshake.MessageReader | None = handshake.MessageReader()
        self.get_buffer: Callable[[], memoryview] = self._reader.get_buffer
        """Memory for the next read; never empty."""
        self._decoder: FrameDecoder[Request | Attach]
        self._encoder: FrameEncoder

    @property
    def is_authenticated(self) -> bool:
        """Whether the handshake is over."""
        return self._state in (_State.ATTACH, _State.OPEN)

    @property
    def arrived(self) -> bytes:
        """What came behind the handshake's last message, while it was not over."""
        return self._reader.arrived if self._reader is not None else b""

    def greeting(self) -> bytes:
        """The challenge: to be written as soon as the connection is there."""
        return handshake.message(self._challenge)

    def received(self, n: int) -> list[ServerEvent]:
        """n bytes were read into the buffer; what they mean, in order.

        Part of something larger shows up as Ping(0): a sign of life, so that a long upload keeps its session's leases.

        Raises:
            AuthenticationFailed: the client does not have the key.
            ProtocolError: what it sent is not this protocol.
        """
        try:
            if self._reader is None:
                events: list[Any] = self._decoder.buffer_updated(n)
                if self._state is _State.OPEN:
                    return events or [Ping(0)]
                return self._attached_first(events)
            self._reader.buffer_updated(n)
            return self._shake_hands(self._reader)
        except (AuthenticationFailed, ProtocolError) as error:
            if self.is_authenticated:
                self.failure = error_frame(str(error))
            self._state = _State.CLOSED
            raise

    def encode(self, replies: Sequence[Reply | Attached]) -> list[Buffer]:
        """The buffers that carry these replies, for a vectored write."""
        try:
            return self._encoder.encode(replies)
        except (PayloadTooLarge, *NOT_ENCODABLE) as error:
            # One reply must not keep the others from leaving: find it, and say in its place why it cannot be sent.
            if len(replies) > 1:
                return [buffer for reply in replies for buffer in self.encode([reply])]
            code = error.code if isinstance(error, PayloadTooLarge) else ManyhandsError.code
            return self._encoder.encode([Failed(getattr(replies[0], "rid", 0), code, f"The answer cannot be sent: {error}")])

    def encode_done(self, reply: Done) -> bytes:
        """The one frame that carries this answer."""
        return self._encoder.encode_plain((reply,))

    def goodbye(self, text: str) -> bytes:
        """The last frame before the server itself closes the connection for a reason that the client should log."""
        return error_frame(text) if self.is_authenticated else b""

    # -- after the handshake

    def _attached_first(self, events: list[ServerEvent]) -> list[ServerEvent]:
        if not events:
            return events
        if not isinstance(events[0], Attach):
            raise ProtocolError(f"The client sent {type(events[0]).__name__} before Attach.")
        if Attach in map(type, events[1:]):
            raise ProtocolError("The client sent Attach twice on one connection.")
        n_chars = len(events[0].session)
        if not MIN_SESSION_CHARS <= n_chars <= MAX_SESSION_CHARS:
            raise ProtocolError(
                f"The client's session id has {n_chars} characters; it needs {MIN_SESSION_CHARS} to {MAX_SESSION_CHARS}, "
                "96 random bits or more, because whoever knows it is that session."
            )
        self._state = _State.OPEN
        self._decoder.vocabulary = TO_SERVER  # from here on another Attach is no event of this protocol
        return events

    # -- the handshake

    def _shake_hands(self, reader: handshake.MessageReader) -> list[ServerEvent]:
        events: list[ServerEvent] = []
        while self._state in (_State.HELLO, _State.AUTH):
            body = self._take(reader)
            if body is None:
                return events
            answer = self._answer(body)
            if answer is not None:
                events.append(answer)
        if self._state is _State.ATTACH:
            self._reader = None
            self._encoder = FrameEncoder(max_body_bytes=self._max_body_bytes, max_pending_bytes=CLIENT_PENDING_BYTES)
            self._decoder = FrameDecoder(ATTACHING, max_body_bytes=self._max_body_bytes)
            self.get_buffer = self._decoder.get_buffer
            events += self._attached_first(cast(list[ServerEvent], self._decoder.feed(reader.arrived)))
        return events

    def _take(self, reader: handshake.MessageReader) -> bytes | None:
        try:
            return reader.take()
        except ProtocolError as error:
            looks = handshake.guess(reader.arrived)
            what = f"it looks like {looks}" if looks else str(error)
            raise ProtocolError(f"The peer does not speak manyhands: {what}.") from None

    def _answer(self, body: bytes) -> Authenticated | PeerIsStock | None:
        if self._state is _State.AUTH:
            return self._check_proof(body)
        if body.startswith(handshake.HELLO):
            self._check_hello(body)
            return None
        dialect = handshake.stock_dialect(body)
        if dialect is None:
            raise ProtocolError("The peer does not speak manyhands: its first message is neither a hello nor a digest.")
        self._state = _State.CLOSED
        is_right = handshake.is_right_stock_digest(body, dialect, self._challenge, self._keyring.raw)
        return PeerIsStock(dialect, is_right, handshake.message(handshake.FAILURE))

    def _check_hello(self, body: bytes) -> None:
        if len(body) < len(handshake.HELLO) + 2 or body[len(handshake.HELLO)] != handshake.VERSION:
            self._fail("version")
            raise ProtocolError(
                f"The client does not speak version {handshake.VERSION} of the protocol; "
                "install the same manyhands on both sides."
            )
        flags = body[len(handshake.HELLO) + 1]
        if flags & handshake.WANTS_TLS:
            self._fail("tls_not_offered")
            raise ProtocolError("The client wants TLS, which this server does not offer.")
        if flags or len(body) != len(handshake.HELLO) + 2 + handshake.NONCE_BYTES:
            self._fail("hello")
            raise ProtocolError("The client's hello has flags or fields that this version of manyhands does not know.")
        self._hello = body
        self._state = _State.AUTH

    def _check_proof(self, body: bytes) -> Authenticated:
        prefix = len(handshake.AUTH) + auth.KEY_ID_BYTES
        if not body.startswith(handshake.AUTH) or len(body) != prefix + auth.PROOF_BYTES:
            raise ProtocolError("The client sent something else than its proof after its hello.")
        key_id, proof = body[len(handshake.AUTH) : prefix], body[prefix:]
        # An unknown id is tried with the first key, so that it takes as long and looks like a wrong key.
        key = self._keyring.find(key_id) or self._keyring.first
        expected = auth.client_proof(key, handshake.VERSION, self._challenge, self._hello)
        if not auth.is_same(proof, expected) or key.id != key_id:
            self._fail("key")
            raise AuthenticationFailed("The client has another authkey than this server; use the same on both sides.")
        self._state = _State.ATTACH
        welcome = handshake.WELCOME + auth.server_proof(key, handshake.VERSION, self._challenge, self._hello)
        return Authenticated(key_id, handshake.message(welcome))

    def _fail(self, reason: str) -> None:
        self.failure = handshake.message(handshake.build_failure(reason))
