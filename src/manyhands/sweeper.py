"""One thread that calls a function when it is due, and otherwise sleeps."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Sweeper:
    """Runs `tick` at the times that it names itself; `nudge` brings the next one forward.

    tick returns the monotonic time of its next call, or None while there is nothing to come. It sleeps exactly so long:
    an idle engine wakes nobody.
    """

    def __init__(self, tick: Callable[[], float | None], *, name: str = "manyhands-sweeper") -> None:
        self._tick = tick
        self._name = name
        self._condition = threading.Condition(threading.Lock())
        self._due: float | None = None
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def start(self) -> None:
        """Start the thread, unless it runs or was stopped."""
        with self._condition:
            if self._thread is None and not self._is_stopped:
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def nudge(self, due: float | None) -> None:
        """Something is due at this monotonic time; wakes the thread only when that is sooner than what it sleeps for.

        Safe under any lock that tick takes: it never waits for a running tick.
        """
        if due is None:
            return
        # Reading without the lock is safe: a stale value costs one needless look, never a missed one, because the thread
        # asks tick itself for the next time after it has reset this.
        known = self._due
        if known is not None and known <= due:
            return
        with self._condition:
            if self._due is None or due < self._due:
                self._due = due
                self._condition.notify()

    def stop(self, *, must_wait: bool = True) -> None:
        """End the thread and wait for a tick under way, unless this is called from inside one or must not wait."""
        with self._condition:
            self._is_stopped = True
            self._condition.notify()
            thread, self._thread = self._thread, None
        if must_wait and thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        while self._sleep():
            try:
                due = self._tick()
            except Exception:
                _log.exception("a sweep failed; the next one is in a second")
                due = time.monotonic() + 1.0
            self.nudge(due)

    def _sleep(self) -> bool:
        """Sleep until something is due; False when stopped."""
        with self._condition:
            while not self._is_stopped:
                if self._due is None:
                    self._condition.wait()
                    continue
                left = self._due - time.monotonic()
                if left <= 0:
                    self._due = None
                    return True
                self._condition.wait(min(left, threading.TIMEOUT_MAX))
            return False
