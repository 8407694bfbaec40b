"""What must happen at a time: one heap for the monotonic clock, one for the wall clock.

A waiting request that is answered leaves its timer behind; taking it out of a heap's middle would cost more than skipping
it later. `discard` counts those, and a heap that is mostly such leftovers is built anew, so that a program which waits with
a long timeout a hundred thousand times a second holds no memory for it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from manyhands.clock import Now
from manyhands.lifecycle.waiting import Waiting

Action = Callable[[Any, Now], None]
_Timer = tuple[float, int, Action, Any]

# A wall clock may be set forward while the shell sleeps; it then notices at the latest after this.
_WALL_CHECK_S = 60.0


class Timers:
    """Timers of one core. `action(subject, now)` is called once the time has come, unless `subject.is_over` by then."""

    __slots__ = ("_mono", "_order", "_over", "_wall", "is_sooner")

    def __init__(self) -> None:
        self._mono: list[_Timer] = []
        self._wall: list[_Timer] = []
        self._order = 0
        self._over = 0
        self.is_sooner = False
        """Whether something was added that is due before all else; whoever asks `next_due` lowers it."""

    def at_mono(self, when: float, action: Action, subject: Any) -> None:
        """Call action at this monotonic time."""
        self._order += 1
        timer = when, self._order, action, subject
        heapq.heappush(self._mono, timer)
        self.is_sooner = self.is_sooner or self._mono[0] is timer

    def at_wall(self, when: float, action: Action, subject: Any) -> None:
        """Call action at this wall-clock time."""
        self._order += 1
        timer = when, self._order, action, subject
        heapq.heappush(self._wall, timer)
        self.is_sooner = self.is_sooner or self._wall[0] is timer

    def discard(self) -> None:
        """One pending timer's subject is over."""
        self._over += 1
        if self._over > 64 and self._over * 2 > len(self._mono):
            # In place: `run` may be going through it.
            self._mono[:] = [timer for timer in self._mono if not getattr(timer[3], "is_over", False)]
            heapq.heapify(self._mono)
            self._over = 0

    def late_s(self, now: Now) -> float:
        """How long ago the first monotonic timer should have been run."""
        self._skip()
        return now.mono - self._mono[0][0] if self._mono else 0.0

    def run(self, now: Now) -> None:
        """Call everything that is due."""
        for heap, limit in (self._mono, now.mono), (self._wall, now.wall):
            while heap and heap[0][0] <= limit:
                _, _, action, subject = heapq.heappop(heap)
                if getattr(subject, "is_over", False):
                    self._over -= 1
                    continue
                if isinstance(subject, Waiting):
                    subject.has_timer = False
                action(subject, now)

    def next_due(self, now: Now) -> float | None:
        """The monotonic time at which `run` should be called next, as seen from now."""
        self.is_sooner = False
        self._skip()
        due = self._mono[0][0] if self._mono else None
        if self._wall:
            wall_due = now.mono + min(_WALL_CHECK_S, max(0.0, self._wall[0][0] - now.wall))
            if due is None or wall_due < due:
                due = wall_due
        return due

    def _skip(self) -> None:
        while self._mono and getattr(self._mono[0][3], "is_over", False):
            heapq.heappop(self._mono)
            self._over -= 1
