"""One session over TCP: who reads the socket, who writes it, and the thread that stands in when nobody waits.

    waiting thread ── leads: poll, read, deliver ──> sink sets waiters ──> returns with its answer, no thread switch
    other waiting threads ── follow: blocked on their own waiter, nudged when the leader leaves
    background thread ── naps while the program leads; reads when nobody has for NAP_S; ticks, reconnects

At most one thread reads at a time (`_reader`). Leaving costs no wake-up as a rule: the background thread naps and looks by
itself whether somebody led meanwhile. When one thread has led through a whole nap, it sleeps until that one leaves; when
nobody did, it becomes the reader and sits in poll. So nothing polls while the program is idle, and a program that calls
often always reads for itself.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from typing import NoReturn

from manyhands import _forks
from manyhands._chance import CHANCE
from manyhands.engines.base import Sink, Waiter
from manyhands.engines.remote.link import Link
from manyhands.engines.remote.transport import Transport
from manyhands.errors import AuthenticationFailed, ProtocolError, ServerUnavailable, SessionTaken
from manyhands.events import Attached, Goodbye, Reply, Request

logger = logging.getLogger(__name__)

NAP_S = 0.02
BLOCKED_NAP_S = 0.001
"""Instead of NAP_S while bytes wait to be written: the thread that left them may be about to wait, and then writes them."""
GATHER_MAX = 128
"""So many gathered requests are written by the thread that adds the last, background thread or not."""
DIAL_S = 5.0
GOODBYE_S = 1.0
"""How long detach waits for the server to take the goodbye."""
_LONG_S = 3600.0


class RemotePort:
    """The Port of a RemoteEngine; made by it, already attached. Starts its background thread on creation."""

    def __init__(self, link: Link, sink: Sink, early: list[Reply]) -> None:
        """Take over a link that has just attached.

        Args:
            early: replies that arrived with Attached.
        """
        self._link = link
        self._lock = link.lock
        self._sink = sink
        self._reader = 0  # the reading thread's ident
        self._sinker = 0  # the ident of the thread that is in the sink
        self._leads = 0  # how often a waiting thread became the reader
        self._followers: list[Waiter] = []
        self._own_replies = early  # answers that came without the socket; a reader delivers them
        self._gathered = 0
        self._is_ended = False
        self._is_foreign = False
        self._is_asleep = False  # the background thread, until it is nudged or a heartbeat is due
        self._is_reading_behind = False  # the background thread is the reader
        self._is_reading_alone = False  # the reader is in read_answer, where no interrupt reaches it
        self._nap_until, self._seen_leads = time.monotonic() + NAP_S, 0
        self._was_blocked = False
        self._is_up = True
        self._told = ""
        self._nudge = threading.Lock()
        self._nudge.acquire()
        _forks.watch(self)
        self._thread = threading.Thread(target=self._run, name="manyhands-client", daemon=True)
        self._thread.start()

    @property
    def attached(self) -> Attached:
        attached = self._link.wire.attached
        assert attached is not None  # the engine hands out attached ports only
        return attached

    @property
    def is_foreign(self) -> bool:
        """Whether this process got the port by a fork: the session is its parent's, and it must open one of its own."""
        return self._is_foreign

    @property
    def is_connected(self) -> bool:
        """Whether the session is attached over a live connection right now."""
        return self._link.wire.is_open

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        if self._is_ended or self._is_foreign:
            self._raise_unusable()
        link = self._link
        with self._lock:
            is_hurried = not may_gather and self._sinker != threading.get_ident()
            if not (is_hurried and link.write_at_once(requests)):
                own = link.wire.send(requests)
                if own:
                    self._own_replies += own
                    self._nudge_background()
                if self._sinker == threading.get_ident():
                    return  # the reader writes when the sink is done
                if may_gather:
                    self._gathered += len(requests)
                    if self._gathered < GATHER_MAX:
                        if self._gathered == len(requests):
                            self._nudge_background()
                        return
                self._gathered = 0
                if not link.is_blocked:
                    link.write()
            if not link.is_blocked:
                return
            # Whoever reads also waits until the kernel takes more, but for one that waits in the read itself.
            if self._reader and not self._is_reading_alone and link.transport is not None:
                link.transport.interrupt()
            else:
                self._nudge_background()

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        if waiter.is_set:
            return True
        if self._is_ended or self._is_foreign:
            self._raise_unusable()
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        has_followed = False
        try:
            while True:
                transport = self._try_to_lead(waiter)
                if transport is not None:
                    self._lead(transport, waiter, deadline)
                else:
                    has_followed = True
                    self._follow(waiter, _LONG_S if deadline is None else max(0.0, deadline - time.monotonic()))
                if waiter.is_set or self._has_ended():
                    return waiter.is_set
                if waiter.is_nudged:
                    waiter.is_nudged = False
                    return False
                if deadline is not None and time.monotonic() >= deadline:
                    return False
        finally:
            if has_followed:
                # A nudge to lead may have come as this wait ended for another reason: it must not be lost.
                with self._lock:
                    if not self._reader:
                        self._pass_on()

    def read_answer(self, rid: int, timeout_s: float | None, *, is_hurried: bool) -> Reply | None:
        """One request, one answer, nobody else at work: what `wait` does for the usual case, in a fifth of its steps."""
        link = self._link
        with self._lock:
            transport = link.transport
            if self._reader or transport is None or link.is_blocked or self._own_replies:
                return None
            view = link.wire.buffer_for(rid)
            if view is None:  # a reader before us has given it to the sink
                return None
            self._reader = threading.get_ident()
            self._leads += 1
            self._is_reading_alone = True
        try:
            replies = link.receive(transport, view, timeout_s, is_hurried=is_hurried)
            self._is_reading_alone = False
            if len(replies) == 1 and not self._own_replies and getattr(replies[0], "rid", 0) == rid:
                return replies[0]
            if replies:
                self._deliver(replies)
            return None
        finally:
            with self._lock:
                self._is_reading_alone = False
                if self._followers or self._is_asleep or not link.is_tidy or link.transport is None:
                    self._pass_on()
                else:
                    self._reader = 0

    def detach(self, *, goodbye: bool = True) -> None:
        if self._is_foreign:
            return
        link = self._link
        with self._lock:
            if self._is_ended:
                return
            self._is_ended = True
            transport = link.transport
            if goodbye and transport is not None and link.wire.is_open:
                link.wire.send([Goodbye()])
                link.write()
                self._nudge_background()
            else:
                goodbye = False
        if goodbye and threading.get_ident() != self._sinker:
            self._see_off()
        with self._lock:
            if link.transport is not None:
                link.lose(link.transport, ServerUnavailable("This session has ended."))
            self._nudge_background()
            for follower in self._followers:
                follower.rouse()
            if not self._reader:
                link.close_dead()
        _forks.forget(self)

    def end(self, last: Reply) -> None:
        """End the session as if the connection had been cut, after one last word to the sink."""
        if not self._is_ended and not self._is_foreign:
            self._sink([last])
            self.detach(goodbye=False)

    def close_in_child(self) -> None:
        """After a fork (see _forks): the connection stays the parent's."""
        self._is_foreign = True
        self._link.close_in_child()

    # -- the reader's part

    def _try_to_lead(self, waiter: Waiter) -> Transport | None:
        """The connection to read, if this thread is the reader now; else it is noted as a follower."""
        with self._lock:
            transport = self._link.transport
            if not self._reader and transport is not None:
                self._reader = threading.get_ident()
                self._leads += 1
                return transport
            if not self._reader and self._own_replies:
                self._reader = threading.get_ident()
            else:
                self._followers.append(waiter)
                return None
        try:
            self._deliver([])
        finally:
            with self._lock:
                self._followers.append(waiter)
                self._pass_on()
        return None

    def _lead(self, transport: Transport, waiter: Waiter, deadline: float | None) -> None:
        try:
            while not (waiter.is_set or waiter.is_nudged) and transport is self._link.transport:
                left = None
                if deadline is not None:
                    left = deadline - time.monotonic()
                    if left <= 0:
                        # One look for what is there already: a wait of 0 is a poll.
                        self._step(transport, 0.0, waiter)
                        return
                self._step(transport, left, waiter)
        finally:
            with self._lock:
                self._pass_on()

    def _follow(self, waiter: Waiter, timeout_s: float) -> None:
        try:
            waiter.block(timeout_s)
        finally:
            with self._lock:
                self._followers.remove(waiter)

    def _pass_on(self) -> None:
        """The lock is held: this thread no longer reads; somebody who waits does, or the background thread will."""
        self._reader = 0
        self._link.close_dead()
        if self._link.transport is None:
            self._nudge_background()  # it reconnects
        elif self._followers:
            self._followers[0].rouse()
        elif self._is_asleep:
            self._nudge_background()

    def _step(self, transport: Transport, timeout_s: float | None, waiter: Waiter | None = None) -> bool:
        """Wait for bytes and deliver what they bring; whether anything was delivered. Only the reader calls it."""
        link = self._link
        if self._own_replies:
            self._deliver([])
        if waiter is None:
            is_readable = transport.wait(timeout_s, for_writing=link.is_blocked)
        else:
            # Another thread may end this wait too, not only what is read here.
            waiter.wake = transport.interrupt
            try:
                if waiter.is_set or waiter.is_nudged:
                    return False
                is_readable = transport.wait(timeout_s, for_writing=link.is_blocked, is_hurried=True)
            finally:
                waiter.wake = None
        if link.is_blocked:
            with self._lock:
                link.write()
        replies = link.read(transport) if is_readable else []
        if not replies and not self._own_replies:
            return False
        self._deliver(replies)
        return True

    def _deliver(self, replies: list[Reply]) -> None:
        """Hand replies to the sink, and write what the sink asked to send meanwhile."""
        if self._own_replies:
            with self._lock:
                replies, self._own_replies = self._own_replies + replies, []
        self._sinker = threading.get_ident()
        try:
            self._sink(replies)
        except Exception:
            logger.exception("A bug in the client: %d replies were not taken in", len(replies))
        finally:
            self._sinker = 0
        with self._lock:
            if not self._link.is_blocked:
                self._gathered = 0
                self._link.write()

    # -- the background thread's part

    def _run(self) -> None:
        while not self._is_ended:
            try:
                self._look_around()
            except Exception as error:
                # It must live as long as the port: nobody else reconnects or answers for a program that computes.
                logger.exception("A bug in the client's driver; its connection is made anew")
                with self._lock:
                    if self._link.transport is not None:
                        self._link.lose(self._link.transport, error)
        with self._lock:
            if not self._reader:
                self._link.close_dead()

    def _look_around(self) -> None:
        """Write and tick, then read, sleep, nap or reconnect, whichever the moment asks for."""
        link = self._link
        with self._lock:
            self._gathered = 0
            if not link.is_blocked:
                link.write()
            now = time.monotonic()
            due_at = link.tick(now)
            transport = link.transport
            if transport is not None:
                self._choose(now)
        if transport is None or due_at is None:
            self._is_up = False
            self._reconnect()
            self._nap_until = 0.0
            self._seen_leads = self._leads
            return
        if not self._is_up and link.wire.is_open:
            self._is_up = True
            logger.info("Connected to %s again", link.address.url)
        left = max(0.0, due_at - now)
        if self._is_reading_behind:
            if self._read_behind(transport, left) or self._followers:
                self._begin_nap()  # the program is at work: let its threads read for themselves
        elif self._is_asleep:
            is_nudged = self._nudge.acquire(timeout=left)
            self._is_asleep = False
            if is_nudged:
                self._begin_nap()
        else:
            nap_s = BLOCKED_NAP_S if link.is_blocked else self._nap_until - now
            self._nudge.acquire(timeout=max(0.0, min(left, nap_s)))

    def _choose(self, now: float) -> None:
        """The lock is held: become the reader, go to sleep behind another, or (neither) nap on."""
        was_blocked, self._was_blocked = self._was_blocked, self._link.is_blocked
        if self._was_blocked and was_blocked and not self._reader:
            self._nap_until = 0.0  # bytes wait to be written and no thread of the program came to do it
            self._seen_leads = self._leads
        if now < self._nap_until:
            return
        if self._leads != self._seen_leads:
            self._nap_until, self._seen_leads = now + NAP_S, self._leads
        elif self._reader:
            self._is_asleep = True
        else:
            self._reader = threading.get_ident()
            self._is_reading_behind = True

    def _begin_nap(self) -> None:
        self._nap_until, self._seen_leads = time.monotonic() + NAP_S, self._leads

    def _read_behind(self, transport: Transport, timeout_s: float) -> bool:
        try:
            return self._step(transport, timeout_s)
        finally:
            with self._lock:
                self._is_reading_behind = False
                self._pass_on()

    def _nudge_background(self) -> None:
        """The lock is held: make the background thread look around soon."""
        transport = self._link.transport
        if self._is_reading_behind and transport is not None:
            transport.interrupt()
            return
        try:  # noqa: SIM105 - as Waiter.nudge
            self._nudge.release()
        except RuntimeError:  # nudged already
            pass

    def _reconnect(self) -> None:
        """One try to connect again, after the pause that its number asks for. The handshake then is ordinary reading."""
        link = self._link
        with self._lock:
            if not self._reader:
                link.close_dead()
            if self._is_ended:
                return
            now = time.monotonic()
            at = link.wire.next_attempt_at(now, CHANCE.random())
            cause = link.cause
            if isinstance(cause, SessionTaken):
                self._give_up(cause)
                return
        # A server that is away comes back by itself; one that refuses us is somebody's to look at, and told once.
        is_news = isinstance(cause, AuthenticationFailed | ProtocolError) and str(cause) != self._told
        self._told = str(cause)
        log = logger.warning if is_news else logger.info
        log("No connection to %s, trying again in %.1f s: %s", link.address.url, at - now, cause)
        if not self._pause_until(at):
            return
        try:
            link.connect(DIAL_S)
        except OSError as error:
            with self._lock:
                link.cause = error
                link.wire.connection_lost(time.monotonic())
            return
        with self._lock:
            if self._has_ended() and link.transport is not None:
                link.lose(link.transport, ServerUnavailable("This session has ended."))

    def _give_up(self, cause: SessionTaken) -> None:
        """The lock is held: the session is another program's, and taking it back would go on for ever."""
        logger.error("%s", cause)
        self._is_ended = True
        for follower in self._followers:
            follower.rouse()

    def _pause_until(self, at: float) -> bool:
        """Wait for the next try, delivering answers of our own meanwhile; whether the port still lives."""
        while not self._has_ended():
            left = at - time.monotonic()
            if left <= 0:
                return True
            self._nudge.acquire(timeout=left)
            with self._lock:
                may_deliver = bool(self._own_replies) and not self._reader
                if may_deliver:
                    self._reader = threading.get_ident()
            if may_deliver:
                try:
                    self._deliver([])
                finally:
                    with self._lock:
                        self._reader = 0
        return False

    def _has_ended(self) -> bool:
        return self._is_ended  # another thread may have set it since this one last looked

    def _see_off(self) -> None:
        """Let the server take the goodbye and close first: closing with unread bytes would reset what is under way."""
        transport = self._link.transport
        if transport is None:
            return
        transport.end_writing()
        deadline = time.monotonic() + GOODBYE_S
        never = Waiter()
        while transport is self._link.transport and time.monotonic() < deadline:
            if self._try_to_lead(never) is not None:
                self._lead(transport, never, deadline)
            else:
                self._follow(never, NAP_S)

    def _raise_unusable(self) -> NoReturn:
        if self._is_foreign:
            raise ServerUnavailable(
                "This connection belongs to the parent process; a forked child must open its own (manyhands.connect)."
            )
        if isinstance(self._link.cause, SessionTaken):
            raise SessionTaken(str(self._link.cause))
        raise ServerUnavailable("This session was closed in this program; connect again to go on.")
