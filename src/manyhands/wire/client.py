"""The client's end of one session, across all its connections: bytes and requests in, bytes and replies out.

    connection_made ──> CHALLENGE ── HELLO, AUTH ──> WELCOME ── Attach ──> Attached ──> open
          ^                                                                               │
          └───────────── next_attempt_at <── connection_lost <────────────────────────────┘

It remembers every request until its reply came. After a reconnect it attaches with the lease tokens it holds and sends
everything unanswered again, in order of rid; the engine recognises by seq what it had applied before.

When the engine no longer knows the session (`is_resumed` false), its leases are gone: what was to be settled under them is
answered here as lost, and a put under one of them ends with it here, since who gets the message again puts it again
(ADR 0085). Unanswered puts of their own are applied anew, and that is right: an engine keeps a session's watermarks with
what its puts stored, so one that forgot the session also forgot the puts (memory), or forgot it a day after the last word
(WATERMARK_KEPT_S), when a put that was acknowledged is no longer in doubt and one that was not may have to be made.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import Any, cast, get_args

from manyhands import auth
from manyhands.errors import LeaseLost, PayloadTooLarge, ProtocolError, ServerUnavailable, SessionTaken, UsageError
from manyhands.events import (
    Attach,
    Attached,
    Begin,
    Collect,
    Collected,
    Done,
    Failed,
    Granted,
    Lease,
    Offer,
    Outcome,
    Ping,
    Pong,
    Put,
    Recalled,
    Reply,
    Report,
    Request,
    Result,
    Settle,
    Settled,
    Withdraw,
)
from manyhands.model import HEARTBEAT_S, MAX_BODY_BYTES
from manyhands.retry import backoff_s
from manyhands.wire import handshake
from manyhands.wire.bodies import any_over, large
from manyhands.wire.frames import (
    CLIENT_PENDING_BYTES,
    NOT_ENCODABLE,
    TO_CLIENT,
    Buffer,
    FrameDecoder,
    FrameEncoder,
)

HANDSHAKE_S = 5.0
"""A server that has not welcomed us by then is none of ours."""
SILENT_HEARTBEATS = 3
"""After so many heartbeats without a byte the connection counts as lost."""
RECONNECT_BASE_S, RECONNECT_CAP_S = 0.05, 5.0
"""The first tries fall within resume_s, so that a network blip costs no lease."""
TAKEN_AGAIN_S = 60.0
"""Once, a connection of our own that we gave up may reach the server late; twice within this time it is another program."""
SEND_BYTES = 1024 * 1024
"""data_to_send gives about so much at once, so that a heartbeat can pass between the chunks of a large body."""

_PING_RID = 2**62
_WITHDRAWN_AT_MOST = 64
_NO_REPLY = frozenset(kind for kind in get_args(Request) if "rid" not in kind.__struct_fields__)
_BEFORE_RESENDING = frozenset({Begin, Recalled})
"""They speak of tokens that a resent Settle may end; the others speak of what is resent, or of the end."""


class _State(Enum):
    DOWN = auto()
    CHALLENGE = auto()
    WELCOME = auto()
    ATTACHING = auto()
    OPEN = auto()


class ClientWire:
    """One session's client end.

    Args:
        keyring: its first key is the one this client proves to have.
        where: the server's address as people write it, for sentences.
        session: at least 96 random bits as text; whoever knows it is this session.
        attach_name: who is here, for people.
        held: the lease tokens of a session that was attached before, by another wire; None for a new session.
        parent: the session of the worker process that looks after this one (events.Attach).
    """

    def __init__(
        self,
        *,
        keyring: auth.Keyring,
        session: str,
        attach_name: str = "",
        where: str = "the given address",
        heartbeat_s: float = HEARTBEAT_S,
        max_body_bytes: int = MAX_BODY_BYTES,
        held: Sequence[int] | None = None,
        parent: str = "",
    ) -> None:
        self.attached: Attached | None = None
        """The engine's newest answer to Attach; None before the first."""
        self._keyring = keyring
        self._session = session
        self._name = attach_name
        self._parent = parent
        self._offer: Offer | None = None  # the newest; told again after each reconnect
        self._where = where
        self._heartbeat_s = heartbeat_s
        self._max_body_bytes = max_body_bytes
        self._state = _State.DOWN
        self._unanswered: dict[int, Request] = {}
        self._queue: list[Any] = []  # not encoded yet
        self._outbox: list[Buffer] = []  # encoded, newest first, not given to the shell yet
        self._withdrawn: set[int] = set()  # targets of what was sent; a connection may end with it
        self._refused: list[Reply] = []  # to requests that could not be encoded; leave with the next send or received
        self._held: set[int] = set(held or ())
        self._is_known = held is not None  # the session was attached before
        self._attempts = 0
        self._taken_at = -TAKEN_AGAIN_S
        self._lost_at = self._made_at = self._heard_at = self._ticked_at = 0.0
        self._has_sent = False
        self._is_ping_due = False
        self._nonce = self._challenge = self._hello = b""
        self._reader: handshake.MessageReader | None = None
        self._encoder: FrameEncoder
        self._decoder: FrameDecoder[Reply | Attached]

    # -- the life of a connection

    @property
    def is_open(self) -> bool:
        """Whether the session is attached over a live connection."""
        return self._state is _State.OPEN

    @property
    def unanswered(self) -> int:
        """How many requests still wait for their reply."""
        return len(self._unanswered)

    def buffer_for(self, rid: int) -> memoryview | None:
        """Memory for the next read, which may bring the reply to this request; None if that has come already."""
        return self._decoder.get_buffer() if rid in self._unanswered and self._reader is None else None

    def connection_made(self, now: float, nonce: bytes) -> None:
        """A fresh connection is there: the handshake starts anew.

        Args:
            nonce: NONCE_BYTES from a cryptographic source.
        """
        self._state = _State.CHALLENGE
        self._nonce = nonce
        self._made_at = self._heard_at = self._ticked_at = now
        self._has_sent = self._is_ping_due = False
        self._reader = handshake.MessageReader()
        self._encoder = FrameEncoder(max_body_bytes=self._max_body_bytes)
        self._decoder = FrameDecoder(TO_CLIENT, max_body_bytes=self._max_body_bytes, max_pending_bytes=CLIENT_PENDING_BYTES)
        self._outbox.clear()

    def connection_lost(self, now: float) -> None:
        """The connection ended, for whatever reason. Requests are kept."""
        self._state = _State.DOWN
        self._attempts += 1
        self._lost_at = now

    def next_attempt_at(self, now: float, unit: float) -> float:
        """When to connect again, after connection_lost or a try that failed (which also counts by connection_lost).

        Args:
            unit: a random number in [0, 1).
        """
        wait_s = backoff_s(max(1, self._attempts), base_s=RECONNECT_BASE_S, cap_s=RECONNECT_CAP_S, unit=unit)
        return max(now, self._lost_at + wait_s)

    # -- sending

    def send(self, requests: Sequence[Request]) -> list[Reply]:
        """Queue requests, in order. With a connection data_to_send has them next; without one they wait for it.

        Returns:
            Answers that no server is needed for (usually none): a Withdraw while no server is there ends the wait of a
            Lease, Result or Collect here, so that a get's timeout holds through an outage.

        Raises:
            PayloadTooLarge: a body is over the server's limit. None of the requests was queued.
        """
        if any_over(requests, self._max_body_bytes):
            body = next(large(requests, self._max_body_bytes))
            raise PayloadTooLarge(
                f"A body of {len(body)} bytes is over the limit of {self._max_body_bytes} (max_body_bytes); "
                "put the data in a file or object store and send its path.",
                size_bytes=len(body),
                limit_bytes=self._max_body_bytes,
            )
        local, self._refused = self._refused, []
        for request in requests:
            kind = type(request)
            if kind not in _NO_REPLY:
                self._unanswered[request.rid] = request  # type: ignore[union-attr]
            elif kind is Recalled:
                self._held.difference_update(request.tokens)  # type: ignore[union-attr]
            elif kind is Offer:
                self._offer = request  # type: ignore[assignment]
            elif kind is Withdraw:
                target: int = request.target  # type: ignore[union-attr]
                if self._state is not _State.OPEN:
                    local += self._withdraw_here(target)
                else:
                    self._withdrawn.add(target)
                    if len(self._withdrawn) > _WITHDRAWN_AT_MOST:
                        self._withdrawn.intersection_update(self._unanswered)
        self._queue += requests
        if local and self.attached is None:
            # Before the first connection the queue is all there is: what was answered here must not be sent after all.
            over = {getattr(reply, "rid", 0) for reply in local}
            self._queue = [request for request in self._queue if getattr(request, "rid", 0) not in over]
        return local

    def send_at_once(self, requests: Sequence[Request]) -> list[Buffer] | None:
        """`send` and `data_to_send` in one step: requests that all get a reply, while nothing else waits to be written.

        Returns:
            What to write now; `data_to_send` has the rest of large bodies. None: nothing was done, use the two.
        """
        if self._state is not _State.OPEN or self._queue or self._outbox or self._is_ping_due or self._refused:
            return None
        for request in requests:
            if type(request) in _NO_REPLY:
                return None
        try:
            buffers = self._encoder.encode(requests)
        except (PayloadTooLarge, *NOT_ENCODABLE):
            return None
        unanswered = self._unanswered
        for request in requests:
            unanswered[request.rid] = request  # type: ignore[union-attr]
        self._has_sent = True
        if len(buffers) <= 2:
            return buffers
        self._outbox = buffers[::-1]
        return self._next_portion()

    def _withdraw_here(self, target: int) -> list[Reply]:
        parked = self._unanswered.get(target)
        if isinstance(parked, Lease):
            # A grant that is under way is not among the tokens that Attach will name: the engine releases it.
            answer: Reply = Granted(target, [])
        elif isinstance(parked, Result):
            answer = Outcome(target, parked.id)
        elif isinstance(parked, Collect):
            answer = Collected(target, parked.ack, [])
        else:
            return []  # a put may have been applied: only the engine knows
        del self._unanswered[target]
        return [answer]

    @property
    def has_data(self) -> bool:
        """Whether data_to_send may have something; a cheap no for the many times that it has not."""
        return bool(self._queue or self._outbox or self._is_ping_due)

    def data_to_send(self) -> list[Buffer]:
        """What to write now, about SEND_BYTES at most; call again when it was written, until it is empty."""
        if self._outbox and self._state is not _State.DOWN:
            return self._next_portion()
        if self._state is not _State.OPEN:
            return []
        if self._is_ping_due:
            self._is_ping_due = False
            self._queue.append(Ping(_PING_RID))
        if not self._queue:
            return []
        queue, self._queue = self._queue, []
        self._has_sent = True
        buffers = self._encode(queue)
        if len(buffers) <= 2:
            return buffers
        self._outbox = buffers[::-1]
        return self._next_portion()

    def _encode(self, requests: list[Any]) -> list[Buffer]:
        try:
            return self._encoder.encode(requests)
        except (PayloadTooLarge, *NOT_ENCODABLE) as error:
            # One request must not keep the others from leaving, nor be tried for ever: it is answered here.
            if len(requests) > 1:
                return [buffer for request in requests for buffer in self._encode([request])]
            rid = getattr(requests[0], "rid", 0)
            if self._unanswered.pop(rid, None) is not None:
                code = error.code if isinstance(error, PayloadTooLarge) else UsageError.code
                self._refused.append(Failed(rid, code, f"The request cannot be sent: {error}"))
            return []

    def _next_portion(self) -> list[Buffer]:
        outbox = self._outbox
        portion: list[Buffer] = []
        size = 0
        self._has_sent = True
        if self._is_ping_due and self._state is _State.OPEN:
            self._is_ping_due = False
            portion += self._encoder.encode([Ping(_PING_RID)])
        # A frame begins at a bytes object; never stop inside one.
        while outbox and (size < SEND_BYTES or isinstance(outbox[-1], memoryview)):
            buffer = outbox.pop()
            size += len(buffer)
            portion.append(buffer)
        return portion

    # -- receiving

    def get_buffer(self) -> memoryview:
        """Memory for the next read; never empty."""
        return self._reader.get_buffer() if self._reader is not None else self._decoder.get_buffer()

    def received(self, n: int, now: float) -> list[Reply]:
        """n bytes were read into the buffer; the replies they complete, for the sink. data_to_send may have more then.

        Raises:
            AuthenticationFailed: the keys differ; trying again is no use.
            ProtocolError: the peer is not a manyhands server, or sent what it may not. Close the connection.
            ServerUnavailable: the session attached over another connection. Connect again.
            SessionTaken: and it did so again; it is another program's. Connect no more.
        """
        self._heard_at = now
        if self._reader is None:
            events = self._decoder.buffer_updated(n)
            if len(events) == 1 and type(events[0]) is Done and self._state is _State.OPEN and not self._refused:
                self._unanswered.pop(events[0].rid, None)
                return cast(list[Reply], events)
            replies = self._noted(events)
            if self._refused:
                replies += self._refused
                self._refused = []
            return replies
        self._reader.buffer_updated(n)
        return self._shake_hands(self._reader)

    def _noted(self, events: list[Reply | Attached]) -> list[Reply]:
        """Strike answered requests off the list, keep the held tokens, take out what is for the wire alone."""
        replies: list[Reply] = []
        unanswered = self._unanswered
        for event in events:
            kind = type(event)
            if kind is Attached:
                replies += self._on_attached(event)  # type: ignore[arg-type]
                continue
            if self._state is not _State.OPEN:
                raise ProtocolError(f"The server at {self._where} sent {kind.__name__} before Attached.")
            rid = getattr(event, "rid", 0)
            request = unanswered.pop(rid, None)
            if kind is Granted:
                for delivery in event.deliveries:  # type: ignore[union-attr]
                    self._held.add(delivery.token)
            elif kind is Settled and type(request) is Settle:
                for settlement in request.settlements:
                    self._held.discard(settlement.token)
            elif kind is Pong and rid == _PING_RID:
                continue
            elif kind is Failed and event.code == SessionTaken.code:  # type: ignore[union-attr]
                raise self._on_taken(event.text)  # type: ignore[union-attr]
            replies.append(event)  # type: ignore[arg-type]
        return replies

    def _on_attached(self, attached: Attached) -> list[Reply]:
        if self._state is not _State.ATTACHING:
            raise ProtocolError(f"The server at {self._where} sent Attached twice on one connection.")
        is_return = self._is_known
        self.attached = attached
        self._is_known = True
        self._max_body_bytes = attached.limits.max_body_bytes
        self._encoder.max_body_bytes = self._decoder.max_body_bytes = self._max_body_bytes
        self._heartbeat_s = attached.limits.heartbeat_s
        self._state = _State.OPEN
        self._attempts = 0
        replies = self._leases_lost(attached) if is_return else []
        if is_return:
            # The wait of who has gone ends here: asked again, its request would wait for nobody.
            replies += [reply for target in self._withdrawn for reply in self._withdraw_here(target)]
            self._withdrawn.clear()
            # What was queued meanwhile is in _unanswered too, but for the requests without a reply.
            silent = [request for request in self._queue if type(request) in _NO_REPLY]
            if self._offer is not None and self._offer not in silent:
                silent.append(self._offer)  # an engine keeps no offers on its disk
            early = [request for request in silent if type(request) in _BEFORE_RESENDING]
            late = [request for request in silent if type(request) not in _BEFORE_RESENDING]
            self._queue = early + [self._unanswered[rid] for rid in sorted(self._unanswered, key=abs)] + late
        return replies

    def _leases_lost(self, attached: Attached) -> list[Reply]:
        """Forget tokens that are gone (who holds the leases looks at `attached.lost`); settlements that cannot be made."""
        settles = [request for request in self._unanswered.values() if isinstance(request, Settle)]
        if attached.is_resumed:
            # A token that is being settled may be gone because its settlement was applied: the resend will tell.
            settling = {settlement.token for settle in settles for settlement in settle.settlements}
            self._held.difference_update(token for token in attached.lost if token not in settling)
            return []
        self._held.clear()
        puts = [request for request in self._unanswered.values() if isinstance(request, Put) and request.causes]
        reports = [request for request in self._unanswered.values() if isinstance(request, Report)]
        for rid in [one.rid for one in puts] + [one.rid for one in settles] + [one.rid for one in reports]:
            del self._unanswered[rid]
        return [
            *(
                Failed(report.rid, LeaseLost.code, "The server forgot this session, so its leases are lost.")
                for report in reports
            ),
            *(Done(put.rid) for put in puts),
            *(Settled(settle.rid, [settlement.token for settlement in settle.settlements]) for settle in settles),
        ]

    def _on_taken(self, text: str) -> ServerUnavailable:
        earlier, self._taken_at = self._taken_at, self._heard_at
        if self._heard_at - earlier >= TAKEN_AGAIN_S:
            return ServerUnavailable(text)
        return SessionTaken(
            f"Another program uses this program's session at {self._where} and took it over again and again; a session is "
            "one program's, so a copy of a running program (a snapshot, say) must connect anew."
        )

    # -- the handshake

    def _shake_hands(self, reader: handshake.MessageReader) -> list[Reply]:
        while self._state in (_State.CHALLENGE, _State.WELCOME):
            try:
                body = reader.take()
                challenge = handshake.read_challenge(body) if body is not None and self._state is _State.CHALLENGE else None
            except ProtocolError as error:
                looks = handshake.guess(reader.arrived)
                what = f"it speaks {looks}" if looks else str(error)
                raise ProtocolError(
                    f"Something answers at {self._where}, but it is not a manyhands server: {what}; check host and port."
                ) from None
            if body is None:
                return []
            if challenge is not None:
                self._answer(challenge)
            else:
                self._check_welcome(body)
        self._reader = None
        return self._noted(self._decoder.feed(reader.arrived))

    def _answer(self, challenge: handshake.Challenge) -> None:
        if not challenge.is_native:
            raise ProtocolError(
                f"The server at {self._where} is a multiprocessing manager of the standard library, not a manyhands server; "
                "start the master with manyhands.managers, or connect with manyhands.managers.BaseManager.",
                is_stock=True,
            )
        if not challenge.oldest <= handshake.VERSION <= challenge.newest:
            raise ProtocolError(
                f"The server at {self._where} speaks versions {challenge.oldest} to {challenge.newest} of the protocol, "
                f"this program {handshake.VERSION}; install the same manyhands on both sides."
            )
        if challenge.flags & handshake.REQUIRES_TLS:
            raise ProtocolError(f"The server at {self._where} takes connections with TLS only; this version has no TLS yet.")
        key = self._keyring.first
        self._challenge, self._hello = challenge.body, handshake.build_hello(self._nonce)
        proof = auth.client_proof(key, handshake.VERSION, self._challenge, self._hello)
        both = handshake.message(self._hello) + handshake.message(handshake.build_auth(key.id, proof))
        self._outbox = [both]
        self._state = _State.WELCOME

    def _check_welcome(self, body: bytes) -> None:
        if body.startswith(handshake.FAILURE):
            raise handshake.failure(body, self._where)
        key = self._keyring.first
        expected = auth.server_proof(key, handshake.VERSION, self._challenge, self._hello)
        if not body.startswith(handshake.WELCOME) or not auth.is_same(body[len(handshake.WELCOME) :], expected):
            raise ProtocolError(
                f"The server at {self._where} could not prove that it has the authkey: it is not the server it claims to be."
            )
        self._state = _State.ATTACHING
        held = sorted(self._held) if self._is_known else None
        self._outbox = self._encoder.encode([Attach(self._session, self._name, held, parent=self._parent)])

    # -- time

    def next_due(self) -> float | None:
        """When tick must be called next; None while there is no connection."""
        if self._state is _State.DOWN:
            return None
        if self._state is not _State.OPEN:
            return self._made_at + HANDSHAKE_S
        return self._ticked_at + self._heartbeat_s

    def tick(self, now: float) -> None:
        """Time has passed: a heartbeat may be due (data_to_send has it then).

        Raises:
            ServerUnavailable: nothing was heard for too long; treat the connection as lost.
            ProtocolError: what answers there never greeted us.
        """
        if self._state is _State.DOWN:
            return
        if self._state is not _State.OPEN:
            if now - self._made_at >= HANDSHAKE_S:
                raise ProtocolError(
                    f"Something accepts connections at {self._where} but did not answer as a manyhands server within "
                    f"{HANDSHAKE_S} s; check host and port, and whether the server is overloaded."
                )
            return
        if now - self._ticked_at < self._heartbeat_s:
            return
        is_moving = self._has_sent and bool(self._outbox)  # a long upload: the server has nothing to say yet
        if is_moving:
            self._heard_at = now
        if now - self._heard_at > SILENT_HEARTBEATS * self._heartbeat_s:
            raise ServerUnavailable(
                f"Nothing was heard from the server at {self._where} for {now - self._heard_at:.0f} s; the connection "
                "counts as lost and is made anew."
            )
        self._is_ping_due = not self._has_sent or now - self._heard_at >= self._heartbeat_s
        self._has_sent = False
        self._ticked_at = now
