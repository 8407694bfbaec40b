"""When a program that finds no owner may claim to be it: pure.

Two that claim at once cost a reading of the log each and the fence decides; so each waits for a moment of its own. Who
has just been started and finds nobody claims at once: most spaces are opened by one program first.
"""

from __future__ import annotations

ABSENT_S, SILENT_S, LEFT_S = 0.3, 1.5, 0.0
"""How long to wait for an owner whose connection is gone (it may come back), that is connected and says nothing (it may
be asleep or beside a long computation), or that has said that it leaves."""
_SPREAD = {ABSENT_S: 0.3, SILENT_S: 0.5, LEFT_S: 0.05}
PULSE_S = 0.3
"""How often a program and its owner show each other that they live."""
GONE_S = 2.0
"""A program unheard for so long is detached."""


class Patience:
    """One program's waiting for an owner.

    Args:
        unit: a number in [0, 1) from the caller's generator.
    """

    def __init__(self) -> None:
        self._claim_at: float | None = None
        self._kind = -1.0
        self.knows_one = False
        """Whether there was an owner since this program began."""

    def seen(self) -> None:
        """There is an owner."""
        self._claim_at, self._kind, self.knows_one = None, -1.0, True

    def missed(self, now: float, kind: float, unit: float) -> None:
        """There is none: ABSENT_S, SILENT_S or LEFT_S, counted from when it was first missed in that way."""
        if kind == self._kind:
            return
        if self._kind >= 0 and kind > self._kind:
            return  # who was known to be gone has not become alive by saying nothing
        self._kind = kind
        wait_s = kind + _SPREAD[kind] * unit if self.knows_one or kind == SILENT_S else 0.0
        at = now + wait_s
        self._claim_at = at if self._claim_at is None else min(at, self._claim_at)

    def is_over(self, now: float) -> None:
        """Enough was waited already."""
        self._claim_at = now

    def left_s(self, now: float) -> float:
        """Seconds until a claim is due; 0: now."""
        return 0.0 if self._claim_at is None else max(0.0, self._claim_at - now)
