"""A pool inside the worker's own process: its session at the engine, and what both kinds of pool share.

    engine ── Granted ──> begin ──> a thread, or a task of the event loop ──> finish ── Settle, Lease ──> engine

There is no child here that could be ended: a time limit or a cancellation cannot stop a thread, and stops a coroutine at its
next await. What runs when the worker has to end is given back when the process does.
"""

from __future__ import annotations

import contextlib
import logging
import math
import queue
import secrets
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import count

from manyhands._chance import CHANCE
from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.codec import Codec
from manyhands.engines.base import Engine, Port
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import ManyhandsError, ServerUnavailable
from manyhands.events import Attach, Done, Failed, Granted, Offer, Ping, Pong, Progress, Reply, Request, Settled, Stop
from manyhands.model import HEARTBEAT_S, Delivery, SettleKind, Settlement
from manyhands.worker.crew import ChildInfo
from manyhands.worker.running import Runner
from manyhands.worker.taking import Taking
from manyhands.worker.task_work import Work

log = logging.getLogger(__name__)

_SESSION_BYTES = 16
_CONFIRM_S = 5.0


class Inside:
    """The session of a pool, in a thread of its own.

    Args:
        address: the server's.
        queues: as users name them, in order of preference.
        size: how many calls run at a time.
        engine: where the session is attached; None: the server at `address`.
        tasks_only: refuse whatever is no registered task.
        name: who this is, for people.
        on_change: called when the engine was reached, and at the end.
    """

    def __init__(
        self,
        address: Address,
        keyring: Keyring,
        *,
        queues: Sequence[str],
        size: int,
        engine: Engine | None,
        tasks_only: bool,
        name: str,
        on_change: Callable[[], None],
    ) -> None:
        self.error: ManyhandsError | None = None
        self.failure = ""
        self.has_been_ready = False
        self.heard_mono = 0.0
        self.heartbeat_s = HEARTBEAT_S
        self.size = size
        self.n_run = 0
        self.running: dict[int, str] = {}
        """By token: the queue of each delivery that is being worked on."""
        self.cancelled: set[tuple[int, int]] = set()
        """Calls that were asked to stop: token, and of a pack which call, else -1."""
        self._has_warned = False
        self._rids = count(1)
        self._taking = Taking(queues, size, lambda: next(self._rids))
        self._lock = threading.Lock()  # of _taking and running
        self._session = secrets.token_hex(_SESSION_BYTES)
        self._name = name
        self._owns_engine = engine is None
        self._engine = engine or RemoteEngine(address.url, keyring, connect_timeout_s=math.inf, name=name)
        self._on_change = on_change
        self._port: Port | None = None
        self._news: queue.SimpleQueue[float | None] = queue.SimpleQueue()  # a deadline to end by; None: look around
        self._ended = threading.Event()
        self.runner = Runner(
            Codec([(key.id, key.body) for key in keyring]),
            utc=time.time,
            unit=CHANCE.random,
            tasks_only=tasks_only,
            on_progress=self._on_progress,
            is_cancelled=lambda token, part: (token, part) in self.cancelled,
        )
        self._thread = threading.Thread(target=self._run, name="manyhands-pool", daemon=True)

    # -- what each kind of pool does

    @abstractmethod
    def begin(self, queue_name: str, delivery: Delivery) -> None:
        """Work on a delivery and call `finish`. Called in the thread that reads the connection; returns at once."""

    @abstractmethod
    def cancel(self, token: int) -> None:
        """A running call was cancelled."""

    @abstractmethod
    def give_up(self) -> None:
        """The time is over: end what can be ended."""

    @abstractmethod
    def end(self) -> None:
        """Release what the pool has."""

    # -- Hands

    def start(self) -> None:
        self._thread.start()

    def replace(self) -> None:
        """There is nothing that could be replaced."""

    def drain(self, grace_s: float) -> None:
        self._news.put(time.monotonic() + grace_s)
        if self._port is None and self._owns_engine:
            self._engine.close()  # ends its tries to connect

    def wait(self, timeout_s: float | None = None) -> bool:
        if not self._ended.wait(timeout_s):
            return False
        self._thread.join()
        return True

    def close(self) -> None:
        if self._thread.ident is None:
            self._close_all()
            self._ended.set()
            return
        self.drain(0.0)
        self.wait()

    @property
    def children(self) -> list[ChildInfo]:
        with self._lock:
            busy = len(self.running)
        ident = self._thread.native_id or 0
        state = "ready" if self.has_been_ready else "starting"
        return [
            ChildInfo(ident, self._session, state, slot < busy, self.n_run if not slot else 0) for slot in range(self.size)
        ]

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._taking.is_draining

    # -- the engine

    def _take(self, replies: Sequence[Reply]) -> None:
        """The sink of the session."""
        begun: list[tuple[str, Delivery]] = []
        for reply in replies:
            if isinstance(reply, Pong):
                self.heard_mono = time.monotonic()
            elif isinstance(reply, Granted):
                with self._lock:
                    name, deliveries = self._taking.granted(reply)
                    begun += [(name, delivery) for delivery in deliveries]
                    if not self._taking.is_draining:
                        self.running |= {delivery.token: name for delivery in deliveries}
            elif isinstance(reply, Settled | Done | Failed):
                with self._lock:
                    self._taking.failed(reply.rid)
                    is_settled = self._taking.is_settled
                if is_settled:
                    self._news.put(None)
            elif isinstance(reply, Stop):
                self.cancelled.add((reply.token, reply.part))
                self.cancel(reply.token)
        for name, delivery in begun:
            if delivery.token in self.running:
                self.begin(name, delivery)
            else:
                self.finish(Settlement(delivery.token, SettleKind.RELEASE), 0)
        if begun:
            self._send_with(self._taking.ask)

    def finish(self, settlement: Settlement, n_run: int) -> None:
        """A delivery is over. From any thread."""

        def ended() -> list[Request]:
            self.running.pop(settlement.token, None)
            self.n_run += n_run
            return self._taking.ended(settlement)

        self._send_with(ended)
        if self.cancelled:
            self.cancelled -= {one for one in list(self.cancelled) if one[0] == settlement.token}
        if self._taking.is_draining:
            self._news.put(None)

    def runs_in_a_thread(self, work: Work) -> None:
        """Say so, once, of a call with a time limit: at the start only those of imported tasks are known."""
        if work.timeout_s and not self._has_warned:
            self._has_warned = True
            log.warning(
                "a call has a time limit of %g s and runs in a thread, which cannot be stopped; the pool 'process' keeps "
                "limits",
                work.timeout_s,
            )

    def report_rest(self, work: Work) -> None:
        """Report what its settlement cannot say. From any thread."""
        while work.is_too_much and (outcome := work.report()) is not None:
            self.report(work.token, *outcome)

    def report(self, token: int, calls: int, result: bytes) -> None:
        """The next calls of a pack have ended. From any thread."""
        self._send_with(lambda: self._taking.reported(token, calls, result))

    def _on_progress(self, token: int, part: int, done: float, total: float, note: str) -> None:
        self._send_with(lambda: [Progress(token, part, done, total, note)])

    def _send_with(self, make: Callable[[], list[Request]]) -> None:
        port = self._port
        with self._lock:  # a later seq must not overtake an earlier one
            requests = make()
            if port is not None and requests:
                with contextlib.suppress(ServerUnavailable):  # it was closed, or taken by another program; it was said
                    port.send(requests)

    # -- its thread

    def _run(self) -> None:
        try:
            self._work()
        except ManyhandsError as error:
            self.error = error
        finally:
            self._close_all()
            self._ended.set()
            self._on_change()

    def _work(self) -> None:
        try:
            attach = Attach(self._session, self._name, is_here=not self._owns_engine)
            port = self._port = self._engine.attach(attach, self._take)
        except ServerUnavailable:
            if self._news.empty():
                raise
            return  # it was told to stop first
        self.heard_mono = time.monotonic()
        self.heartbeat_s = port.attached.limits.heartbeat_s
        self.has_been_ready = True
        port.send([Offer(self.runner.offers())])
        self._send_with(self._taking.ask)
        self._on_change()
        ends_at = math.inf
        while True:
            try:
                news = self._news.get(timeout=min(self.heartbeat_s, max(0.0, ends_at - time.monotonic())))
            except queue.Empty:
                self._send_with(lambda: [Ping(next(self._rids))])
                news = None
            if news is not None:
                ends_at = min(ends_at, news)
                self._send_with(self._taking.drain)
            if self._taking.is_draining and (not self.running or time.monotonic() >= ends_at):
                break
        self._settle_up()

    def _settle_up(self) -> None:
        """End what still runs, and let the engine confirm what has ended."""
        if self.running:
            self.give_up()
        until = time.monotonic() + _CONFIRM_S
        while not self._taking.is_settled and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=max(0.0, until - time.monotonic()))

    def _close_all(self) -> None:
        self.end()
        if self._port is not None:
            self._port.detach()
        if self._owns_engine:
            self._engine.close()
