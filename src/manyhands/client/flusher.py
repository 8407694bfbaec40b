"""A thread that sends what was left to gather, should its owner not come back to send it.

Between two short tasks a client leaves its settlements and puts unsent, because the next get is only microseconds away and
sends many at once. When the next task turns out to be long, this thread sends them after LATE_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

LATE_S = 0.002


class Flusher:
    """Calls `flush` about LATE_S after it was armed. The thread starts when it is first needed and ends with `stop`."""

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._is_armed = False
        self._is_stopped = False
        self._signal = threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def arm(self) -> None:
        """Something was left."""
        if self._is_armed or self._is_stopped:
            return
        self._is_armed = True
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="manyhands-flusher", daemon=True)
            self._thread.start()
        self._signal.release()

    def stop(self) -> None:
        """End the thread; what is left is the caller's to send."""
        self._is_stopped = True
        self._signal.release()

    def _run(self) -> None:
        while True:
            self._signal.acquire()
            if self._is_stopped:
                return
            time.sleep(LATE_S)
            self._is_armed = False  # first: what is left from here on arms it again
            self._flush()
