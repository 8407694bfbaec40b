"""What engines that many programs share (Redis, NATS) have in common: whose they are, and their sessions' way back.

An engine that can be lost and found again attaches its sessions anew then: with the tokens that they hold, and with what
has no answer yet sent again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from manyhands import _forks
from manyhands._waiter import Waiter
from manyhands.errors import ManyhandsError, ServerUnavailable, UsageError
from manyhands.events import Attach, Attached, Granted, Recalled, Reply, Request, Settle, Settled

_log = logging.getLogger(__name__)


class ResumingPort:
    """One session's end of the engine.

    `unanswered` and `held` are what a new connection needs: the engine's thread notes what is sent before it leaves, whoever
    delivers notes what came.

    Args:
        put: takes (port, requests) for the engine's thread.
        end: takes (port, goodbye) for it.
        check: raises when the engine is not to be used any more.
    """

    def __init__(
        self,
        attach: Attach,
        sink: Callable[[Sequence[Reply]], None],
        put: Callable[[Any], None],
        end: Callable[[Any, bool], None],
        check: Callable[[], None],
    ) -> None:
        self.session = attach.session
        self.attach = attach
        self.is_over = False
        self.is_attached = False
        self.unanswered: dict[int, Request] = {}
        self.held: set[int] = set(attach.held or ())
        self.opened = Waiter()
        self.refusal: ManyhandsError | None = None
        self._attached: Attached | None = None
        self._sink = sink
        self._put = put
        self._end = end
        self._check = check
        self._turn = threading.Lock()

    @property
    def attached(self) -> Attached:
        assert self._attached is not None  # the port is handed out only after that
        return self._attached

    def open(self, attached: Attached) -> None:
        """The engine knows the session (again)."""
        self._attached = attached
        self.held.difference_update(attached.lost)
        self.is_attached = True
        if not self.opened.is_set:
            self.opened.set()

    def refuse(self, error: ManyhandsError) -> None:
        """The engine cannot attach it."""
        self.refusal = error
        self.is_over = True
        if not self.opened.is_set:
            self.opened.set()

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        """Hand requests to the engine's thread; returns at once. may_gather changes nothing here."""
        if self.is_over:
            raise ServerUnavailable(f"session {self.session:.8}… ended here or was taken over by another connection")
        self._check()
        self._put((self, requests))

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        """Block until the waiter is set or the time is over."""
        return waiter.block(timeout_s)

    def detach(self, *, goodbye: bool = True) -> None:
        """End the session for good, or as if its connection had been cut."""
        if not self.is_over:
            self.is_over = True
            self._end(self, goodbye)

    def note_sent(self, request: Request) -> None:
        """A request leaves now."""
        rid = getattr(request, "rid", 0)
        if rid:
            self.unanswered[rid] = request
        elif type(request) is Recalled:
            self.held.difference_update(request.tokens)

    def hand(self, replies: Sequence[Reply]) -> None:
        """Give replies to the session; a sink that fails hurts nobody else."""
        shown = [self._noted(reply) for reply in replies]
        with self._turn:
            try:
                self._sink(shown)
            except Exception:
                _log.exception("the receiver of session %.8s… failed; its replies were lost", self.session)

    def _noted(self, reply: Reply) -> Reply:
        rid: Any = getattr(reply, "rid", 0)
        request = self.unanswered.pop(rid, None) if rid else None
        kind = type(reply)
        if kind is Granted:
            assert isinstance(reply, Granted)
            self.held.update(delivery.token for delivery in reply.deliveries)
        elif kind is Settled and type(request) is Settle:
            self.held.difference_update(settlement.token for settlement in request.settlements)
        return reply


class ResumingEngine:
    """The process's own end of such an engine: usable until it is closed, and in the process that opened it only.

    Args:
        place: where it is, as sentences name it.
        connect_timeout_s: how long attaching a session may take.
    """

    def __init__(self, place: str, connect_timeout_s: float) -> None:
        self._place = place
        self._connect_timeout_s = connect_timeout_s
        self._is_closed = False
        self._is_foreign = False
        _forks.watch(self)

    def close_in_child(self) -> None:
        """This process was forked from the one whose engine it is."""
        self._is_foreign = True

    def _check(self) -> None:
        if self._is_foreign:
            raise UsageError(
                f"the connection to {self._place} belongs to the process that this one was forked from; "
                "connect again in this process"
            )
        if self._is_closed:
            raise ServerUnavailable(
                f"the connection to {self._place} was closed in this process, so it takes no more requests; open it again"
            )

    def _wait_for(self, port: ResumingPort, is_alive: Callable[[], bool], late: Callable[[], Exception]) -> None:
        """Return when the port's session is attached.

        Args:
            is_alive: whether anybody will still attach it; if not, the engine was closed.
            late: makes the error to raise when connect_timeout_s are over.
        """
        deadline = time.monotonic() + self._connect_timeout_s
        while not port.opened.block(0.5):
            if not is_alive():
                self._check()
            if time.monotonic() > deadline:
                port.is_over = True
                raise late()
        if port.refusal is not None:
            raise port.refusal
