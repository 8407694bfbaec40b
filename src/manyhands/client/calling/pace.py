"""How many calls of one function may share a message: by how long they were measured to take. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

PACK_S = 0.002
"""A message holds about so much work: enough to hide what a message costs, little enough that nobody waits for a share."""
PACK_CALLS = 8192
_WEIGHT = 0.25
_GROWTH = 4
_REMEMBERED_CALLS = 8192
"""What came apart before so many calls counts half."""


class PackPace:
    """Measures one function. One sample proves little, so a message at most quadruples from one answer to the next, and
    a slow call brings it down at once.

    Args:
        avoids_splits: whether a call that fails takes its message apart. Where one call in k does, a message of n calls is
            paid once instead of n times, and n / 2 times more with a chance of n / k: cheapest is about n = √(2k).
    """

    __slots__ = ("_avoids_splits", "_n_calls", "_reached", "call_s", "calls", "n_split")

    def __init__(self, *, avoids_splits: bool = False) -> None:
        self.call_s = -1.0
        """Smoothed seconds of one call; below 0 while unknown."""
        self.calls = 1
        """How many calls a message may hold now."""
        self._reached = 1
        self._avoids_splits = avoids_splits
        self._n_calls = 0.0
        self.n_split = 0.0
        """How many messages came apart, lately."""

    def was_split(self) -> None:
        """A message was taken apart; to be said once for each."""
        self.n_split += 1

    def took(self, times: Sequence[tuple[int, float]]) -> None:
        """Calls have ended.

        Args:
            times: (how many, seconds that they took together).
        """
        if not times:
            return
        known = self.call_s
        for n, seconds in times:
            sample = seconds / n if n > 0 else seconds
            self._n_calls += n
            if known < 0.0 or sample > 4 * known + PACK_S:
                known = sample
            else:
                known += _WEIGHT * (sample - known)
        self.call_s = known
        wanted = PACK_CALLS if known * PACK_CALLS <= PACK_S else int(PACK_S / known)
        if self._avoids_splits and self.n_split:
            wanted = min(wanted, int(math.sqrt(2 * self._n_calls / self.n_split)))
            if self._n_calls > _REMEMBERED_CALLS:
                self._n_calls /= 2
                self.n_split /= 2
        self.calls = self._reached = max(1, min(wanted, self._reached * _GROWTH))
