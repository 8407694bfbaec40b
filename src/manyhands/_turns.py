"""An event loop that threads run in turn: the one that waits for what the loop brings runs it meanwhile.

    a thread of the program that waits ── lead: runs the loop until its waiter is set ──> goes on, no thread switch
    the loop's own thread             ── naps while others lead; runs the loop when nobody has for NAP_S

A server in a program's own process would else answer it over two threads: the loop's thread takes the worker's result from
the socket and wakes the program's, which costs a wake-up and a fight for the interpreter. It is the rule of the remote
port, too (engines/remote/port.py), with a whole loop in place of one socket.

A leader runs the server's code. So that Ctrl-C cannot end it in the middle of a step, the main thread defers SIGINT while it
leads, as asyncio.Runner does: the loop stops behind the step, and then the program's own handler is called. A program with
other signal handlers of its own does not lead from its main thread: they might raise anything anywhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import signal
import sys
import threading
import time
from _signal import getsignal as _getsignal  # the plain functions: without enums around them a tenth of the cost
from _signal import signal as _signal
from collections.abc import Coroutine
from typing import Any, TypeVar

from manyhands._waiter import Waiter
from manyhands.errors import UsageError

T = TypeVar("T")

NAP_S = 0.001
"""About the longest time for which nobody serves, when a leader has left and does not come back."""
BACK_S = 0.0005
"""Who comes back to wait so soon after its last wait may lead: what else the loop has to do is not kept waiting for it. A
program that computes longer in between, or copies large bodies, leaves the loop to its own thread, beside it."""
LOOK_S = 0.00025
"""A leader whose last wait was shorter looks again and again for so long before it sleeps (ADR 0035)."""
_LONG_S = 3600.0

# A Windows program has no loop that could change threads: its proactor keeps what it waits for by thread.
_CAN_LEAD = sys.platform != "win32"
_OTHERS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGALRM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGVTALRM")
    if hasattr(signal, name)
)


class SharedLoop:
    """See the module's text. The loop is closed by `stop`.

    Args:
        loop: a loop to run in the own thread only, for a server that nobody would lead (uvloop's is quicker, and cannot
            change threads); None makes one that can be led.
    """

    def __init__(self, name: str, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._name = name
        self.selector = _Selector()
        self._can_lead = _CAN_LEAD and loop is None
        if loop is None:
            loop = asyncio.SelectorEventLoop(self.selector) if _CAN_LEAD else asyncio.new_event_loop()
        self.loop: asyncio.AbstractEventLoop = loop
        self.runner = 0
        """The ident of the thread that runs the loop now; 0 is none."""
        self._turn = threading.Lock()
        self._leads = 0
        self._seen_leads = 0
        self._followers: list[Waiter] = []
        self._waited_at = 0.0
        """When a thread of the program last ended a wait here."""
        self._is_asleep = False
        self._is_ended = False
        self._nudge = threading.Lock()
        self._nudge.acquire()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._alarm: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Run the loop, in a daemon thread at first: it must not keep a program alive that has ended."""
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine in the loop; what it returns or raises.

        Raises:
            TimeoutError: it was not done in time; it is cancelled.
            UsageError: called by what the loop runs, which would wait for itself.
        """
        if self.runner == threading.get_ident():
            coroutine.close()
            raise UsageError(f"{self._name} cannot wait for itself; call this from another thread.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout_s: float) -> None:
        """End the loop and its thread. Idempotent."""
        if self.loop.is_closed() or self.runner == threading.get_ident():
            return
        self._is_ended = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        with self._turn:
            self._wake_own()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        with self._turn:
            if not self.runner and not self._thread.is_alive():
                self.loop.close()

    def lead(self, waiter: Waiter, timeout_s: float) -> bool:
        """Wait as `Port.wait` does, and run the loop meanwhile where that is quicker and no other thread does."""
        is_back_soon = time.monotonic() - self._waited_at < BACK_S
        try:
            if is_back_soon and self._may_lead():
                return self._take_part(waiter, timeout_s)
            self._leave_to_own()
            return waiter.block(timeout_s)
        finally:
            self._waited_at = time.monotonic()

    def _take_part(self, waiter: Waiter, timeout_s: float) -> bool:
        deadline = None if timeout_s < 0 else time.monotonic() + timeout_s
        if threading.current_thread() is threading.main_thread():
            with _Interruptions(self.loop, waiter):
                self._wait(waiter, deadline)
        else:
            self._wait(waiter, deadline)
        waiter.is_nudged = False
        return waiter.is_set

    def _may_lead(self) -> bool:
        if not self._can_lead or self._is_ended or asyncio._get_running_loop() is not None:
            return False
        if threading.current_thread() is threading.main_thread():
            return not any(callable(_getsignal(number)) for number in _OTHERS)
        return True

    # -- whoever waits

    def _wait(self, waiter: Waiter, deadline: float | None) -> None:
        while not (waiter.is_set or waiter.is_nudged):
            if self._try_to_lead(waiter):
                self._lead(waiter, deadline)
            elif self._is_ended:
                waiter.block(_left(deadline))
            else:
                self._follow(waiter, _left(deadline))
            if deadline is not None and time.monotonic() >= deadline:
                return

    def _try_to_lead(self, waiter: Waiter) -> bool:
        """Whether this thread runs the loop now; else it is a follower, and the own thread was asked to leave."""
        with self._turn:
            if self._is_ended:
                return False
            if not self.runner:
                self.runner = threading.get_ident()
                self._leads += 1
                return True
            self._followers.append(waiter)
            if self.runner == self._thread.ident:
                self.loop.call_soon_threadsafe(self.loop.stop)
            return False

    def _lead(self, waiter: Waiter, deadline: float | None) -> None:
        waiter.wake = self._leave_soon
        try:
            if waiter.is_set or waiter.is_nudged:
                return
            if deadline is not None:
                self._wake_at(deadline)
            self.selector.is_hurried = True
            self.loop.run_forever()
        finally:
            self.selector.is_hurried = False
            waiter.wake = None
            with self._turn:
                self._pass_on()

    def _follow(self, waiter: Waiter, timeout_s: float) -> None:
        try:
            waiter.block(timeout_s)
        finally:
            with self._turn:
                self._followers.remove(waiter)
                if not self.runner:
                    self._pass_on()  # it may have been roused to lead, and ends its wait for another reason

    def _leave_soon(self) -> None:
        """A waiter that leads is to look around."""
        if self.runner == threading.get_ident():
            self.loop.stop()
        else:
            with contextlib.suppress(RuntimeError):  # closed meanwhile
                self.loop.call_soon_threadsafe(self.loop.stop)

    def _wake_at(self, deadline: float) -> None:
        """Make the loop stop by then. One alarm for all waits: an early one only makes its leader look around."""
        due = self.loop.time() + max(0.0, deadline - time.monotonic())
        if self._alarm is not None and not self._alarm.cancelled() and self.loop.time() < self._alarm.when() <= due:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self.loop.call_at(due, self.loop.stop)

    def _pass_on(self) -> None:
        """The turn's lock is held: nobody runs the loop; whoever waits does, or the own thread will."""
        self.runner = 0
        if self._followers:
            self._followers[0].rouse()
        elif self._is_asleep:
            self._wake_own()

    def _leave_to_own(self) -> None:
        """Who would have led waits elsewhere: the own thread need not find that out by napping."""
        if not self.runner:
            with self._turn:
                self._seen_leads = self._leads
                self._wake_own()

    def _wake_own(self) -> None:
        with contextlib.suppress(RuntimeError):  # woken already
            self._nudge.release()

    # -- the loop's own thread

    def _run(self) -> None:
        while not self._is_ended:
            with self._turn:
                is_mine = not self.runner and self._leads == self._seen_leads
                if is_mine:
                    self.runner = threading.get_ident()
                elif self._leads == self._seen_leads:
                    self._is_asleep = True  # one has led through a whole nap: it says when it leaves
                self._seen_leads = self._leads
            if is_mine:
                self._run_own()
            else:
                self._nudge.acquire(timeout=_LONG_S if self._is_asleep else NAP_S)
                self._is_asleep = False

    def _run_own(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            with self._turn:
                self._pass_on()
                if self._followers:
                    self._seen_leads = self._leads - 1  # give the one that was roused a nap's time


class _Selector(selectors.DefaultSelector):
    """The platform's selector. While somebody waits for what comes, it looks again before it sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self.found_n = 0
        """How many descriptors the loop was told of in this turn."""
        self.is_hurried = False
        self._was_short = False

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if not self.is_hurried or (timeout is not None and timeout <= 0):
            found = super().select(timeout)
            self.found_n = len(found)
            return found
        started = time.perf_counter()
        found = []
        if self._was_short and (timeout is None or timeout > LOOK_S):
            while not found and time.perf_counter() - started < LOOK_S:
                found = super().select(0)
        found = found or super().select(timeout)
        self._was_short = time.perf_counter() - started < LOOK_S
        self.found_n = len(found)
        return found


class _Interruptions:
    """Defers SIGINT for the length of a block in the main thread; its handler is called behind it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, waiter: Waiter) -> None:
        self._loop = loop
        self._waiter = waiter
        self._handler = _getsignal(signal.SIGINT)
        self._came: tuple[int, Any] | None = None

    def _note(self, number: int, frame: Any) -> None:
        self._came = number, frame
        self._waiter.nudge()
        self._loop.call_soon_threadsafe(self._loop.stop)  # a signal alone does not end a select

    def __enter__(self) -> None:
        if callable(self._handler):
            _signal(signal.SIGINT, self._note)

    def __exit__(self, *_: object) -> None:
        if callable(self._handler):
            _signal(signal.SIGINT, self._handler)
            if self._came is not None:
                self._handler(*self._came)


def _left(deadline: float | None) -> float:
    return -1.0 if deadline is None else max(0.0, deadline - time.monotonic())
