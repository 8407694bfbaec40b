"""Tasks in a test of yours: the real in-memory engine, and the workers' own code around your function, in the test's thread.

    from manyhands.testing.tasks import task_runner     # a pytest fixture

    def test_a_refused_mail_is_given_up(task_runner):
        future = send.submit("nobody@example.org")
        with pytest.raises(mh.GiveUp):
            future.result()

Arguments become signed bytes and are rebuilt, deliveries are leased and settled, errors retried as the task says. What the
test waits for is run while it waits, and where nothing is due, time is moved on: no test waits for a backoff.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, NamedTuple

import pytest

from manyhands._waiter import Waiter
from manyhands.auth import Keyring
from manyhands.client import Client
from manyhands.clock import Now, SystemClock
from manyhands.codec import Codec
from manyhands.engines.memory import MemoryEngine
from manyhands.events import Attach, Lease, Offer, Progress, Reply, Request, Settle, Stats
from manyhands.model import CALLS, DeadLetter, Delivery, SettleKind, Settlement
from manyhands.submitting import submitting_through
from manyhands.tasks import REGISTRY, Registry, shown
from manyhands.worker.running import Runner

_LONGEST_S = 366 * 24 * 3600.0
"""Time is not moved further than this for one wait: what is due later is not what the test waits for."""


class Ran(NamedTuple):
    """One attempt that was run, or that could not be."""

    task: str
    """Its name."""
    id: str
    attempt: int
    outcome: SettleKind
    """ACK: it returned. NACK: it is tried again. REJECT: it is a dead letter. PARK: the task is not known here."""
    reason: str
    """The attempt's error; "" for none."""
    delay_s: float
    """How long until it is tried again."""


class MovedClock(SystemClock):
    """The machine's clocks, and what was skipped."""

    def __init__(self) -> None:
        self.skipped_s = 0.0

    def now(self) -> Now:
        now = super().now()
        return Now(now.mono + self.skipped_s, now.wall + self.skipped_s)

    def utc(self) -> float:
        return super().utc() + self.skipped_s


class TaskRunner:
    """An engine in memory, a client to which `.submit(…)` goes meanwhile, and one worker that works when asked.

    Args:
        registry: the tasks that the worker knows; by default all that were imported.
        seed: of the random parts of backoffs.
    """

    def __init__(self, registry: Registry = REGISTRY, seed: int = 0) -> None:
        self.clock = MovedClock()
        self.engine = MemoryEngine(clock=self.clock)
        self.attempts: list[Ran] = []
        """What was run, in order."""
        self.progress: list[tuple[str, float, float, str]] = []
        """(id, done, total, note) of everything that tasks said by mh.current().progress(…)."""
        keyring = Keyring(secrets.token_bytes(32))
        self.client = Client(self.engine, keyring, clock=self.clock)
        self.client.shares_messages = False  # one delivery is one attempt here
        codec = Codec([(key.id, key.body) for key in keyring])
        self._runner = Runner(
            codec,
            utc=self.clock.utc,
            unit=random.Random(seed).random,
            registry=registry,
            on_progress=self._heard,
        )
        self._port = self.engine.attach(Attach(secrets.token_hex(16), "task runner", is_here=True), lambda replies: None)
        self.registry = registry
        self.offer()
        self._n_asked = 0
        self._running = ""
        self._through = contextlib.ExitStack()

    def __enter__(self) -> TaskRunner:
        self.engine.led_by(self._lead)
        self._through.enter_context(submitting_through(self.client))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._through.close()
        self.engine.led_by(None)
        self.client.close()
        self._port.detach()
        self.engine.close()

    def run(self) -> int:
        """Run everything, retries and what is delayed included, until nothing is left; how many attempts that took."""
        before = len(self.attempts)
        while self.run_one() or self._skip_to_next():
            pass
        return len(self.attempts) - before

    def run_one(self) -> bool:
        """Run the next attempt that is due now; whether there was one."""
        self.client.flush()
        self.engine.tick()
        queues = [each.name for each in self._ask(Stats, []).queues if each.name.endswith(CALLS)]
        if not queues:
            return False
        granted = self._ask(Lease, queues[0], wait_s=0.0, also=queues[1:])
        for delivery in granted.deliveries:
            self._attempt(granted.queue or queues[0], delivery)
        return bool(granted.deliveries)

    def offer(self) -> None:
        """Tell the engine which tasks are known here by now; those that were parked for want of one come again."""
        self._port.send([Offer(self._runner.offers())])

    def skip(self, seconds: float) -> None:
        """Let time pass."""
        self.client.flush()
        self.clock.skipped_s += seconds
        self.engine.tick()

    def dead(self, queue: str = "") -> Sequence[DeadLetter]:
        """The dead letters of a queue, or of all."""
        return self.client.dead(queue).list()

    # -- one attempt

    def _attempt(self, queue: str, delivery: Delivery) -> None:
        work = self._runner.open(queue, delivery)
        if isinstance(work, Settlement):
            settlement = work
        else:
            outer, self._running = self._running, delivery.message.id
            started = time.perf_counter()
            try:
                work.run(0, work.n)
            finally:
                self._running = outer
            took_s = time.perf_counter() - started
            work.took(took_s)
            # In a worker its process would have been killed; here it could only be waited for.
            is_late = 0 < work.timeout_s < took_s
            settlement = work.will(0) if is_late else work.settlement()
        call = shown(delivery.message)
        name = call.name if call is not None else ""
        kind = SettleKind(settlement.kind)
        self.attempts.append(Ran(name, delivery.message.id, delivery.attempt, kind, settlement.reason, settlement.delay_s))
        seq = len(self.attempts)
        self._ask(Settle, seq, seq, [settlement])

    def _heard(self, token: int, part: int, done: float, total: float, note: str) -> None:
        self.progress.append((self._running, done, total, note))
        self._port.send([Progress(token, part, done, total, note)])

    # -- time

    def _skip_to_next(self) -> bool:
        """Move time to when a delayed call becomes due; whether there is one within a year."""
        end = self.clock.now().mono + _LONGEST_S
        while True:
            queues = [each for each in self._ask(Stats, []).queues if each.name.endswith(CALLS)]
            if any(each.ready for each in queues):
                return True
            due = self.engine.tick()
            if due is None or due > end or not any(each.delayed for each in queues):
                return False
            self.clock.skipped_s += max(due - self.clock.now().mono, 0.0)
            self.engine.tick()

    def _lead(self, waiter: Waiter, timeout_s: float) -> bool:
        """The test waits for something: run tasks until it is there, or nothing is left to run."""
        while not waiter.is_set and not waiter.is_nudged:
            if not (self.run_one() or self._skip_to_next()):
                return waiter.block(timeout_s)
        waiter.is_nudged = False
        return waiter.is_set

    def _ask(self, make: Any, *args: Any, **kwargs: Any) -> Any:
        self._n_asked += 1
        request: Request = make(self._n_asked, *args, **kwargs)
        reply: Reply | None = self._port.answer_now(request)
        assert reply is not None, f"the engine did not answer {request} at once"
        return reply


@pytest.fixture
def task_runner() -> Iterator[TaskRunner]:
    """Runs tasks inside the test; see the module's text."""
    with TaskRunner() as runner:
        yield runner
