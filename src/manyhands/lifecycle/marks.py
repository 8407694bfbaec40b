"""Recognising what was sent before: one watermark for each session and stream."""

from __future__ import annotations

import msgspec

from manyhands.lifecycle.refusal import Refused

# More requests than any session has under way at once; beyond it the numbers are nonsense and must not fill the memory.
_MAX_GAP = 100_000
_MAX_SEQ = 2**63 - 1  # what a store can keep


class Mark(msgspec.Struct):
    """The highest seq seen of a stream, and those at or below it that were not applied (refused, parked or skipped)."""

    seq: int = 0
    holes: set[int] | None = None

    def is_new(self, seq: int, floor: int) -> bool:
        """Whether this request was not applied before.

        Raises:
            Refused: "usage", a seq that no session counting by ones can have reached.
        """
        if seq <= self.seq:
            return self.holes is not None and seq in self.holes
        if seq - max(self.seq, floor) > _MAX_GAP or seq > _MAX_SEQ:
            raise Refused("usage", f"seq {seq} is far beyond the last one seen ({self.seq}); count by ones from 1")
        return True

    def note(self, seq: int, floor: int, *, is_applied: bool) -> None:
        """Remember that seq was seen, and whether it was applied; holes below floor are forgotten."""
        holes = self.holes or set()
        if seq > self.seq:
            holes.update(range(max(self.seq + 1, floor), seq))
            self.seq = seq
        if is_applied:
            holes.discard(seq)
        else:
            holes.add(seq)
        if floor > 1 and holes:
            holes = {hole for hole in holes if hole >= floor}
        self.holes = holes or None
