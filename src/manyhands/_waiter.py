"""One thread's wait for one answer."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

# Short on Windows, where a lock's wait cannot be interrupted, so that Ctrl-C works.
_SLICE_S = 0.5 if sys.platform == "win32" else 3600.0


class Waiter:
    """One thread's wait for one answer; `Port.wait` blocks on it, the sink ends it. Not reusable.

    A bare lock: half the cost of threading.Event, and a wait of zero seconds costs nothing.
    """

    __slots__ = ("_lock", "is_nudged", "is_set", "wake")

    def __init__(self) -> None:
        self.is_set = False
        self.is_nudged = False
        """Whether the wait shall return early; `Port.wait` lowers it when it does."""
        self.wake: Callable[[], None] | None = None
        """While the waiting thread sits somewhere else than in `block`: what makes it look here."""
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        """End the wait; called once."""
        self.is_set = True
        self.rouse()

    def nudge(self) -> None:
        """Make the wait return early although it is not over: its thread has something else to look at."""
        self.is_nudged = True
        self.rouse()

    def rouse(self) -> None:
        """Make the waiting thread look around; `Port.wait` goes on waiting if it finds nothing."""
        try:  # noqa: SIM105 - a context manager would cost as much as the rest
            self._lock.release()
        except RuntimeError:  # roused already, and nobody blocked since
            pass
        wake = self.wake
        if wake is not None:
            wake()

    def block(self, timeout_s: float) -> bool:
        """Wait at most timeout_s (below 0: for ever); whether it is set. Only one thread may wait. May return early."""
        if self.is_set:
            return True
        deadline = time.monotonic() + timeout_s if timeout_s >= 0 else None
        while not self.is_set:
            left = _SLICE_S if deadline is None else min(_SLICE_S, deadline - time.monotonic())
            if left <= 0 or self._lock.acquire(timeout=left):
                break
        return self.is_set
