"""How many messages to have in hand: enough to hide the way to the engine, few enough to lose or hog nothing. Pure."""

from __future__ import annotations

WORK_IN_HAND_S = 0.004
"""A few milliseconds of prefetched work hide a round trip; more would only be work that idle consumers cannot have."""
MAX_IN_HAND = 512
SHORT_S = 0.001
"""Below this a task is over before anybody could miss what was sent late with it, so its messages may gather."""
_WEIGHT = 0.2


class Pace:
    """Measures one queue's consumers and says how many deliveries to ask for.

    One sample proves little (the first of ten one-second tasks may fail at once), so the number at most doubles from one
    request to the next, and one slow task brings it down at once.
    """

    __slots__ = ("_reached", "in_hand", "service_s")

    def __init__(self) -> None:
        self.service_s = -1.0
        """Smoothed seconds from one get to the next; below 0 while unknown."""
        self.in_hand = 1
        """How many deliveries to ask for when none is left."""
        self._reached = 1

    @property
    def is_short(self) -> bool:
        """Whether tasks are measured to be so short that sending may be left to another thread."""
        return 0.0 <= self.service_s < SHORT_S

    def finished(self, elapsed_s: float, n: int = 1) -> None:
        """A consumer is done with n deliveries, elapsed_s after it got them."""
        sample = elapsed_s / n
        known = self.service_s
        if known < 0.0 or sample > 4 * known + WORK_IN_HAND_S:
            self.service_s = sample
        else:
            self.service_s = known + _WEIGHT * (sample - known)

    def ask(self) -> int:
        """How many to ask for now; each call may double the last answer."""
        if self.service_s < 0.0:
            return 1
        wanted = MAX_IN_HAND if self.service_s * MAX_IN_HAND <= WORK_IN_HAND_S else int(WORK_IN_HAND_S / self.service_s)
        self.in_hand = self._reached = max(1, min(wanted, self._reached * 2))
        return self.in_hand


def to_give_back(n_unbegun: int, n_wanted: int, running_s: float) -> int:
    """How many unbegun deliveries to give to consumers who wait for them.

    About half, so that two workers end a queue together; all when the task at hand runs long, since nobody knows for how
    much longer.

    Args:
        running_s: how long the longest of this process's current tasks on that queue has been running.
    """
    if running_s > WORK_IN_HAND_S:
        return min(n_unbegun, n_wanted)
    return min(n_unbegun, n_wanted, (n_unbegun + 1) // 2)
