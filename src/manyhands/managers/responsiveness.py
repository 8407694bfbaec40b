"""Keeps the server answering while the master computes.

The server is a thread of the master's process. Python hands the interpreter from one busy thread to another only every
5 ms, so beside pure computation each answer would take that long; with 0.05 ms it takes 0.2 ms, and the computation loses
under 1 % (docs/adr/0052-switch-interval.md). The setting belongs to the whole process: it is lowered while at least one
manager serves and put back when the last one stops.
"""

from __future__ import annotations

import sys
import threading

SWITCH_INTERVAL_S = 5e-5

_lock = threading.Lock()
_holders = 0
_before_s = 0.0


class QuickSwitching:
    """Lowers the interpreter's switch interval from begin() to end(); several may overlap."""

    def __init__(self, interval_s: float = SWITCH_INTERVAL_S) -> None:
        self._interval_s = interval_s
        self._is_held = False

    def begin(self) -> None:
        """Lower the interval, unless the program itself set a lower one."""
        global _holders, _before_s
        with _lock:
            if self._is_held:
                return
            self._is_held = True
            _holders += 1
            if _holders > 1:
                return  # the first one's interval stands; setting it anew would lose a microsecond each time by rounding
            _before_s = sys.getswitchinterval()
            if self._interval_s < _before_s:
                sys.setswitchinterval(self._interval_s)

    def end(self) -> None:
        """Put back what was there before the first of those that overlap began. Idempotent."""
        global _holders
        with _lock:
            if not self._is_held:
                return
            self._is_held = False
            _holders -= 1
            if _holders == 0:
                sys.setswitchinterval(_before_s)
