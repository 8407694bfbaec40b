"""Virtual time: what happens next is decided by one heap and one seed."""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable

from manyhands.clock import Now

_WALL_AT_START = 1_700_000_000.0
_TRACE_LINES = 400
_TICK_S = 1e-6


class Event:
    """Something that will happen, unless cancelled."""

    __slots__ = ("action", "is_cancelled")

    def __init__(self, action: Callable[[], None]) -> None:
        self.action = action
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Schedule:
    """The simulated world's time, order and chance. The same seed gives the same run."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.steps = 0
        self._mono = 1000.0
        self._heap: list[tuple[float, int, Event]] = []
        self._n = 0
        self._trace: deque[str] = deque(maxlen=_TRACE_LINES)

    @property
    def mono(self) -> float:
        return self._mono

    def now(self) -> Now:
        """Both clocks; they run together here."""
        return Now(self._mono, _WALL_AT_START + self._mono)

    def after(self, delay_s: float, action: Callable[[], None]) -> Event:
        """Do it delay_s from now; what is due at the same moment happens in the order in which it was asked for."""
        event = Event(action)
        self._n += 1
        # Rounded up, so that who waits for a moment never wakes a rounding error before it and waits again for ever.
        at = self._mono + delay_s + _TICK_S if delay_s > 0 else self._mono
        heapq.heappush(self._heap, (at, self._n, event))
        return event

    def step(self) -> bool:
        """Let the next thing happen; whether there was one."""
        while self._heap:
            at, _, event = heapq.heappop(self._heap)
            if event.is_cancelled:
                continue
            self._mono = max(self._mono, at)
            self.steps += 1
            event.action()
            return True
        return False

    def note(self, text: str) -> None:
        """A line for people who replay a seed; only the last ones are kept."""
        self._trace.append(f"{self._mono - 1000.0:10.4f}  {text}")

    def trace(self) -> str:
        return "\n".join(self._trace)
