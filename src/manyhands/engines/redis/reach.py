"""Whether Redis is reached: one small state machine for the connections of a client.

```
   down ──connected──> up ──lost──> down
    ^  └──failed──┐                  (the first try at once, then backoff)
    └─────────────┘
```
Liveness is judged by the last successful poll: an idle client pulses, and an answer that does not come is a loss.
"""

from __future__ import annotations

from manyhands.retry import backoff_s

BASE_S, CAP_S = 0.05, 2.0
"""The first tries fall within resume_s, so that a blip costs no lease."""


class Reach:
    """Decides when to try again; does nothing itself."""

    __slots__ = ("attempts", "down_since", "is_up", "next_at")

    def __init__(self, now: float) -> None:
        self.is_up = False
        self.attempts = 0
        self.next_at = now
        self.down_since = now

    def connected(self) -> None:
        """A poll has succeeded on new connections."""
        self.is_up = True
        self.attempts = 0

    def lost(self, now: float) -> None:
        """A connection broke: try at once."""
        if self.is_up:
            self.is_up = False
            self.down_since = now
            self.next_at = now

    def failed(self, now: float, unit: float) -> None:
        """A try failed; unit is a number in [0, 1) from the caller's generator."""
        self.attempts += 1
        self.next_at = now + backoff_s(self.attempts, base_s=BASE_S, cap_s=CAP_S, unit=0.5 + unit / 2)
