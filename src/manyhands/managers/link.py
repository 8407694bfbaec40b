"""A process's session at a master: asks for what it offers, calls its objects, keeps count of references."""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress
from itertools import count
from typing import Any

from manyhands.client import exits
from manyhands.client.client import Client
from manyhands.client.records import Call
from manyhands.client.session import ClientSession
from manyhands.codec import check_size, encode
from manyhands.errors import ProtocolError, ServerGone, ServerUnavailable, from_code
from manyhands.events import Create, Created, Failed, Invoke, Leave, Refer, Returned, Unrefer
from manyhands.managers.answering import CALLS
from manyhands.managers.objects.table import QUEUE_PREFIX, Made
from manyhands.model import Message, SettleKind

GIVE_UP_S = 60.0
"""A call ends with an error when there was no connection for so long; while there is one it waits as long as it takes."""
_LOOK_S = 10.0


class _Count:
    """References to one object."""

    __slots__ = ("n_counted", "n_here")

    def __init__(self) -> None:
        self.n_here = 0
        """Proxies in this process."""
        self.n_counted = 0
        """What the master has counted for this session."""


class Link:
    """See the module's text. Thread-safe; in a forked child it goes on with a session of its own.

    Args:
        client: whose session at the master it uses; closed with the link.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self._numbers = count(1)
        exits.opened(self)  # after the client, so that it is told of the process's end before it
        self._reset()

    def _reset(self) -> None:
        # What a collector noted, in whatever thread and lock it ran; told with the next request.
        self._closed: deque[tuple[ClientSession, str, bool]] = deque()
        self._counts: dict[str, _Count] = {}
        self._handed: set[str] = set()
        self._counted_for: ClientSession | None = None
        self._threads = threading.local()
        self._by_ident: dict[int, int] = {}

    @property
    def session(self) -> ClientSession | None:
        """This process's session; None before its first use in a forked child."""
        return self.client.session

    # -- asking

    def create(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Made:
        """What the master offers under typeid; for an object, with one reference counted that a proxy must take.

        Raises:
            UsageError: it offers nothing of that name; the sentence lists what it offers.
            TaskFailed: its callable raised.
            UnsupportedFeature: its callable returned something that cannot be served.
            ServerGone, ServerUnavailable: the master has ended, or was not reached for GIVE_UP_S.
        """
        session = self.client.open()
        arguments = None
        if args or kwds:
            arguments = self._sealed(session, typeid, (args, kwds))
        with session.lock:
            self._tell_closed(session)
            call = session.state.call(Create, typeid, arguments)
        reply = self._answer(session, call, f"{typeid}()")
        if not isinstance(reply, Created):
            raise ProtocolError(
                f"The master answered {type(reply).__name__} to a request for {typeid!r}; is it of another version?"
            )
        ident = reply.ident or QUEUE_PREFIX + reply.queue
        return Made(ident, tuple(reply.exposed), reply.queue, reply.shape, typeid, is_counted=bool(reply.ident))

    def invoke(
        self, ident: str, method: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None
    ) -> tuple[str, Any]:
        """Call a method of a served object; the kind of the answer and what `Returned` says of its value.

        Interrupted, it leaves nothing behind: what the call still obtains is given back, and its answer disturbs no other.

        Raises:
            UnknownId: the object is gone.
            PayloadNotEncodable, PayloadTooLarge: nothing was sent.
            ServerGone, ServerUnavailable: the master has ended, or was not reached for GIVE_UP_S.
        """
        session = self.client.open()
        message = self._sealed(session, CALLS, (ident, method, args, kwds or {}))
        thread = self._number(session)
        with session.lock:
            self._tell_closed(session)
            call = session.state.call(Invoke, thread, message)
        reply = self._answer(session, call, f"{method}()")
        if not isinstance(reply, Returned):
            raise ProtocolError(
                f"The master answered {type(reply).__name__} to a call of {method!r}; is it of another version?"
            )
        return reply.kind, session.codec.open_result(CALLS, message.id, reply.value)

    def _sealed(self, session: ClientSession, queue: str, body: Any) -> Message:
        encoding, data = encode(body)
        check_size(data, session.max_body_bytes)
        message_id = session.new_id()
        return Message(message_id, data, session.codec.seal(queue, message_id, encoding, data))

    def _answer(self, session: ClientSession, call: Call, what: str) -> Any:
        try:
            session.flush()
            self._wait(session, call, what)
        except BaseException:
            with session.lock:
                session.state.abandon(call)
            with suppress(ServerGone, ServerUnavailable):  # nobody is left to be told
                session.flush()
            raise
        reply = call.reply
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.text, reply.facts)
        return reply

    def _wait(self, session: ClientSession, call: Call, what: str) -> None:
        down_since = 0.0
        while not session.hear(call, _LOOK_S, ends_with_goodbye=True):
            if session.state.is_closing:
                raise ServerGone(
                    f"The master has shut down, and what it served ended with it; whether {what} was done is not known."
                )
            if getattr(session.port, "is_connected", True):
                down_since = 0.0
                continue
            now = time.monotonic()
            down_since = down_since or now - _LOOK_S
            if now - down_since >= GIVE_UP_S - _LOOK_S:
                raise ServerUnavailable(
                    f"The master at {self.client.url} was not reached for {now - down_since:.0f} s, so {what} was given up, "
                    f"and whether it was done is not known; check that the master runs and that the network is up."
                )

    # -- references

    def opened(self, ident: str, *, is_counted: bool) -> ClientSession:
        """A proxy here leads to it; the session that refers to it now."""
        session = self.client.open()
        with session.lock:
            self._start_counting(session)
            known = self._counts.setdefault(ident, _Count())
            known.n_here += 1
            if is_counted:
                known.n_counted += 1
            elif not known.n_counted:
                known.n_counted = 1
                # Nobody waits for the answer; it is sent again until there is one.
                session.state.outbox.append(Refer(session.state.next_rid(), ident))
        return session

    def closed(self, session: ClientSession, ident: str, *, lingers: bool) -> None:
        """One proxy here less. Takes no lock: a collector may call it anywhere."""
        self._closed.append((session, ident, lingers))

    def handed(self, ident: str) -> None:
        """A proxy of it was pickled, so another process may be about to refer to it."""
        self._handed.add(ident)

    def _tell_handed(self, session: ClientSession) -> None:
        """The session ends: what was handed on shall linger."""
        with session.lock:
            if self._counted_for is session:
                for ident in self._handed.intersection(self._counts):
                    unrefer = Unrefer(session.state.next_rid(), ident, self._counts.pop(ident).n_counted, lingers=True)
                    session.state.outbox.append(unrefer)

    def tell_closed(self) -> None:
        """Tell the master now which proxies are gone, and wait until it has let go of them."""
        session = self.client.open()
        with session.lock:
            self._tell_closed(session)
            call = session.state.call(Unrefer, "", 0)  # answered in order, behind everything else
        self._answer(session, call, "a question about objects")

    def _tell_closed(self, session: ClientSession) -> None:
        self._start_counting(session)
        while self._closed:
            of, ident, lingers = self._closed.popleft()
            known = self._counts.get(ident)
            if of is not session or known is None:
                continue
            known.n_here -= 1
            if known.n_here == 0:
                del self._counts[ident]
                self._handed.discard(ident)
                session.state.outbox.append(Unrefer(session.state.next_rid(), ident, known.n_counted, lingers))

    def _start_counting(self, session: ClientSession) -> None:
        if self._counted_for is not session:
            self._counted_for = session
            self._counts = {}

    # -- threads

    def _number(self, session: ClientSession) -> int:
        """The calling thread's number in this session; its end is told to the master."""
        known = getattr(self._threads, "number", None)
        if known is not None and known[0] is session:
            number: int = known[1]
            return number
        number = next(self._numbers)
        self._threads.number = (session, number)
        if threading.current_thread() is not threading.main_thread():  # whose end is the process's
            ident = threading.get_ident()
            self._by_ident[ident] = number
            self._threads.end = exits.ThreadEnd(self, ident)
        return number

    def thread_ended(self, ident: int, how: exits.End) -> None:
        """A thread that had called objects is over."""
        number = self._by_ident.pop(ident, 0)
        session = self.client.session
        if session is not None and number:
            self._leave(session, Leave(number, how.kind != SettleKind.ACK))

    def _leave(self, session: ClientSession, leave: Leave) -> None:
        with session.lock:
            session.state.outbox.append(leave)
        with suppress(ServerGone, ServerUnavailable):  # the master ended first, and its locks with it
            session.flush()

    # -- the end

    def close(self) -> None:
        """Leave the master. Idempotent."""
        exits.closed(self)
        session = self.client.session
        if session is not None:
            self._tell_handed(session)
        self.client.close()

    def end(self, how: exits.End, *, is_exit: bool = False) -> None:
        """The process ends: in a failure, its locks are released; in good order the goodbye that follows says it all."""
        exits.closed(self)
        session = self.client.session
        if session is None or self._counted_for is not session:
            return
        self._tell_handed(session)
        if how.kind != SettleKind.ACK:
            self._leave(session, Leave(0, is_lost=True))

    def forked(self) -> None:
        """In a forked child: the parent's references are the parent's."""
        self._inherited = (self._closed, self._counts, self._threads)  # kept: their ends must not run here
        self._reset()
