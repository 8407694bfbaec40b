"""A clock that moves only when told to."""

from __future__ import annotations

from manyhands.clock import Now


class ManualClock:
    """Both clocks under a test's hand; they advance together, and the wall clock may be set apart."""

    def __init__(self, *, mono: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self.mono = mono
        self.wall = wall

    def now(self) -> Now:
        return Now(self.mono, self.wall)

    def utc(self) -> float:
        return self.wall

    def advance(self, seconds: float) -> Now:
        """Let time pass on both clocks; the new reading."""
        self.mono += seconds
        self.wall += seconds
        return self.now()

    def set_wall(self, wall: float) -> Now:
        """Set the machine's time without any time passing; the new reading."""
        self.wall = wall
        return self.now()
