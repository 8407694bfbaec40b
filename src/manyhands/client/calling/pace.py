"""How many calls of one function may share a message: by how long they were measured to take. Pure."""

from __future__ import annotations

from collections.abc import Sequence

PACK_S = 0.002
"""A message holds about so much work: enough to hide what a message costs, little enough that nobody waits for a share."""
PACK_CALLS = 8192
_WEIGHT = 0.25
_GROWTH = 4


class PackPace:
    """Measures one function. One sample proves little, so a message at most quadruples from one answer to the next, and
    a slow call brings it down at once."""

    __slots__ = ("_reached", "call_s", "calls")

    def __init__(self) -> None:
        self.call_s = -1.0
        """Smoothed seconds of one call; below 0 while unknown."""
        self.calls = 1
        """How many calls a message may hold now."""
        self._reached = 1

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
            if known < 0.0 or sample > 4 * known + PACK_S:
                known = sample
            else:
                known += _WEIGHT * (sample - known)
        self.call_s = known
        wanted = PACK_CALLS if known * PACK_CALLS <= PACK_S else int(PACK_S / known)
        self.calls = self._reached = max(1, min(wanted, self._reached * _GROWTH))
