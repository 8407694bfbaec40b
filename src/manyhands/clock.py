"""Time as an argument: the one place that reads the machine's clocks.

Leases and timeouts are counted on the monotonic clock, so that setting the machine's time ends none early. Due times of
delayed messages are wall-clock times, because they must survive a restart and mean the same on every machine.
"""

from __future__ import annotations

import time
from typing import Protocol

import msgspec


class Now(msgspec.Struct, frozen=True, gc=False):
    """One reading of both clocks."""

    mono: float
    """Seconds on a monotonic clock; comparable only within one run of one process."""
    wall: float
    """UTC seconds since 1970."""


class Clock(Protocol):
    """Where the shells (engines, clients, servers) get the time that they pass to the state machines."""

    def now(self) -> Now:
        """Read both clocks."""
        ...

    def utc(self) -> float:
        """UTC seconds since 1970."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now(self) -> Now:
        return Now(time.monotonic(), time.time())

    def utc(self) -> float:
        return time.time()
