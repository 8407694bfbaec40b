"""The engine in this process's memory: a core under one lock, applied in the caller's thread.

A sink may send again from inside its own call. Such requests wait in `_inbox` until the step that called it has been
delivered, and are then applied by the outer frame: replies leave in order and the stack stays flat.

```
 send ──> [lock] apply ──> take ──> sinks ──┐
                    ^                       │ send from inside a sink
                    └────── _inbox <────────┘
```
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Sequence

from manyhands.clock import Clock, SystemClock
from manyhands.engines.base import Lead, Sink, Waiter
from manyhands.errors import ServerUnavailable, UsageError
from manyhands.events import Attach, Attached, Closing, Goodbye, Reply, Request
from manyhands.lifecycle import Core
from manyhands.model import Delivery, Durability, Features, Limits, Message
from manyhands.sweeper import Sweeper

_log = logging.getLogger(__name__)

_DURABILITY = Durability("process", "messages live in the memory of this process and survive the death of any client")


class MemoryEngine:
    """Queues in memory; an acknowledgement means that they survive the death of any producer or consumer."""

    name = "memory"
    durability = _DURABILITY
    features = Features(moves=True)

    def __init__(self, limits: Limits | None = None, clock: Clock | None = None, epoch: int | None = None) -> None:
        """Open an empty engine.

        Args:
            clock: with one of a test's own, nothing happens by itself: the test calls `tick`.
            epoch: made at random if not given; two engines' tokens must not be taken for one another's.
        """
        self.limits = limits or Limits()
        self._clock = clock or SystemClock()
        epoch = secrets.randbits(22) if epoch is None else epoch
        self._core = Core(limits=self.limits, epoch=epoch, now=self._clock.now())
        self._lock = threading.RLock()
        self._ports: dict[str, MemoryPort] = {}
        self._inbox: deque[tuple[MemoryPort, Sequence[Request]]] = deque()
        self._is_busy = False
        self._is_closed = False
        self._is_foreign = False
        self._sweeper = Sweeper(self.tick) if clock is None else None
        self._lead: Lead = Waiter.block
        _engines.add(self)

    def attach(self, attach: Attach, sink: Sink) -> MemoryPort:
        """Open or resume a session.

        Raises:
            UsageError: the engine belongs to the process that this one was forked from.
            ServerUnavailable: it is closed.
        """
        self._check()
        with self._lock:
            self._check()
            if self._sweeper is not None:
                self._sweeper.start()
            is_resumed, lost = self._core.attach(attach, self._clock.now())
            attached = Attached(self.name, self.durability, self.features, self.limits, is_resumed, lost)
            port = self._ports[attach.session] = MemoryPort(self, attach.session, sink, attached)
            self._deliver()
            return port

    def led_by(self, lead: Lead | None) -> None:
        """From now on this process's threads wait for answers by `lead`; None: by themselves."""
        self._lead = lead or Waiter.block

    def tick(self) -> float | None:
        """Do what is due; the monotonic time of the next call. The engine's own thread does this."""
        with self._lock:
            if self._is_closed or self._is_foreign:
                return None
            self._core.tick(self._clock.now())
            self._deliver()
            return self._core.next_due()

    def close(self, *, closing_reason: str = "") -> None:
        """Tell every session `Closing` and stop; settles nothing. Idempotent."""
        if self._is_foreign:
            return
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            is_inside = self._is_busy
            ports = list(self._ports.values())
            self._ports.clear()
            for port in ports:
                port.hand([Closing(closing_reason)])
        if self._sweeper is not None:
            # From inside a sink this thread still holds the lock that a sweep may be waiting for.
            self._sweeper.stop(must_wait=not is_inside)

    def _check(self) -> None:
        if self._is_foreign:
            raise UsageError(
                "this engine of another process cannot be used here: its queues stayed with the process that this one was "
                "forked from. Connect to that process instead, or open an engine after the fork"
            )
        if self._is_closed:
            raise ServerUnavailable("the engine was closed in this process, so it takes no more requests; open a new one")

    def _send(self, port: MemoryPort, requests: Sequence[Request]) -> None:
        with self._lock:
            if self._is_busy:
                self._check()
                self._inbox.append((port, requests))
            elif self._ports.get(port.session) is port:
                self._core.apply(port.session, requests, self._clock.now())
                self._deliver()
            else:  # nor is there any port at an engine that is closed, or another process's
                self._check()
                raise ServerUnavailable(f"session {port.session:.8}… ended here or was taken over by another connection")

    def _answer_now(self, port: MemoryPort, request: Request) -> Reply | None:
        with self._lock:
            if self._is_busy or self._ports.get(port.session) is not port:
                return None
            core = self._core
            core.apply(port.session, (request,), self._clock.now())
            effects = core.effects()
            if len(effects) == 1:
                reply = effects[0][1]
            else:
                mine = port.session, getattr(request, "rid", 0)
                at = [(to, getattr(reply, "rid", 0)) for to, reply in effects].index(mine)
                reply = effects.pop(at)[1]
                self._deliver(effects)
            if core.timers.is_sooner:
                self._plan()
            return reply

    def _put_nearby(self, port: MemoryPort, queue: str, message: Message, cause: int) -> bool:
        with self._lock:
            if self._is_busy or self._ports.get(port.session) is not port:
                return False
            core = self._core
            is_put = core.put_nearby(port.session, queue, message, cause)
            if core.is_unserved:
                core.serve(self._clock.now())
                self._deliver()
            return is_put

    def _get_nearby(self, port: MemoryPort, queue: str, done: int, is_task_done: bool) -> Delivery | None:
        with self._lock:
            if self._is_busy or self._ports.get(port.session) is not port:
                return None
            core = self._core
            delivery = core.get_nearby(port.session, queue, done, is_task_done, self._clock.utc())
            if core.is_unserved:
                core.serve(self._clock.now())
                self._deliver()
            return delivery

    def _detach(self, port: MemoryPort, goodbye: bool) -> None:
        if self._is_foreign:
            return
        with self._lock:
            if self._is_closed or self._ports.get(port.session) is not port:
                return
            if goodbye:
                self._core.apply(port.session, [Goodbye()], self._clock.now())
            else:
                self._core.detach(port.session, self._clock.now())
            del self._ports[port.session]
            self._deliver()

    def _deliver(self, effects: Sequence[tuple[str, Reply]] = ()) -> None:
        """Hand out these effects and those of what was applied, and apply what the sinks send meanwhile. Holds the lock."""
        if self._is_busy:
            return
        self._is_busy = True
        core, inbox, ports = self._core, self._inbox, self._ports
        try:
            while True:
                replies: dict[str, list[Reply]] = {}
                for session, reply in effects or core.effects():
                    if session in replies:
                        replies[session].append(reply)
                    else:
                        replies[session] = [reply]
                for session in replies:
                    if session in ports:
                        ports[session].hand(replies[session])
                if not inbox:
                    break
                effects = ()
                while inbox:
                    port, requests = inbox.popleft()
                    if ports.get(port.session) is port:
                        core.apply(port.session, requests, self._clock.now())
        finally:
            self._is_busy = False
        if core.timers.is_sooner:
            self._plan()

    def _plan(self) -> None:
        """The sweeper is to come by when something is due."""
        due = self._core.next_due()
        if self._sweeper is not None:
            self._sweeper.nudge(due)


class MemoryPort:
    """One session's end of a memory engine."""

    __slots__ = ("_engine", "_sink", "attached", "session")

    def __init__(self, engine: MemoryEngine, session: str, sink: Sink, attached: Attached) -> None:
        self._engine = engine
        self._sink = sink
        self.session = session
        self.attached = attached

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        self._engine._send(self, requests)

    def answer_now(self, request: Request) -> Reply | None:
        return self._engine._answer_now(self, request)

    def put_nearby(self, queue: str, message: Message, cause: int) -> bool:
        return self._engine._put_nearby(self, queue, message, cause)

    def get_nearby(self, queue: str, done: int, is_task_done: bool) -> Delivery | None:
        return self._engine._get_nearby(self, queue, done, is_task_done)

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        return self._engine._lead(waiter, timeout_s)

    def detach(self, *, goodbye: bool = True) -> None:
        self._engine._detach(self, goodbye)

    def hand(self, replies: Sequence[Reply]) -> None:
        """Give replies to the session; a sink that fails hurts nobody else."""
        try:
            self._sink(replies)
        except Exception:
            _log.exception("the receiver of session %.8s… failed; its replies were lost", self.session)


_engines: weakref.WeakSet[MemoryEngine] = weakref.WeakSet()


def _disown() -> None:
    """In a forked child: the engines are the parent's, and a lock that another thread held would never be released."""
    for engine in list(_engines):
        engine._is_foreign = True
        engine._ports = {}
        engine._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown)
