"""How much a child asks for, and how many calls it claims at once. Pure.

Enough in hand to hide the way to the engine, little enough that nobody else waits for it: a few milliseconds of work while
calls are short, exactly one message while they are long or unknown.
"""

from __future__ import annotations

from manyhands.worker.block import MAX_IN_HAND

WORK_IN_HAND_S = 0.004
"""So much measured work is asked for at once."""
FEW, FEW_WORK_S = 12, 0.12
"""And so many messages, while they are together not more work than that and none is long: else calls of 10 ms would stand
still for several percent of the time, for the way to the engine. Who is idle gets what was not begun within a few
milliseconds."""
LONG_S = 0.05
"""A message of this length brings the number down to one, whatever was measured before."""
CLAIM_S = 0.0001
"""Very short calls are claimed together, so many as take about this: what one of them that turns out long can hold up."""
_GROWTH = 4
_WEIGHT = 0.25


class Pace:
    """Measures messages and says how many to ask for.

    One sample proves little (the first of ten one-second calls may fail at once), so the number at most doubles from one
    answer to the next, while one long message brings it down at once.

    Args:
        most: never ask for more; 0 is MAX_IN_HAND.
    """

    __slots__ = ("_most", "_reached", "message_s")

    def __init__(self, most: int = 0) -> None:
        self.message_s = -1.0
        """Smoothed seconds of one message; below 0 while unknown."""
        self._most = min(most or MAX_IN_HAND, MAX_IN_HAND)
        self._reached = 1

    def finished(self, n: int, seconds: float, longest_s: float) -> None:
        """n messages were run, one after another.

        Args:
            longest_s: how long the longest of them took.
        """
        sample = seconds / n
        if longest_s >= LONG_S:
            self.message_s = max(longest_s, self.message_s)
        elif self.message_s < 0.0:
            self.message_s = sample
        else:
            self.message_s += _WEIGHT * (sample - self.message_s)

    def ask(self) -> int:
        """How many messages to ask for now."""
        if self.message_s < 0.0:
            return 1
        message_s = max(self.message_s, 1e-6)
        few = min(FEW, int(FEW_WORK_S / message_s)) if message_s < LONG_S else 1
        self._reached = max(1, min(max(int(WORK_IN_HAND_S / message_s), few), 2 * self._reached, self._most))
        return self._reached


def claim(n: int, seconds: float) -> int:
    """How many calls of a pack to claim next, after n took so long."""
    fits = int(CLAIM_S * n / seconds) if seconds > 0.0 else _GROWTH * n
    return max(1, min(fits, _GROWTH * n))
