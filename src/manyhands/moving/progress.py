"""How far a move has come, as one value."""

from __future__ import annotations

from typing import NamedTuple


class Progress(NamedTuple):
    """Numbers of messages, but where it says otherwise."""

    moved: int = 0
    """Acknowledged by the target and gone from the source."""
    size_bytes: int = 0
    """Of the bodies of those."""
    dead: int = 0
    """Dead letters that were moved."""
    left: int = 0
    """Still at the source, as far as this move may take them: ready, delayed, dead, or with a worker there."""
    working: int = 0
    """Of those left: with a consumer at the source."""
    retrying: int = 0
    """Of those left: failed there and waiting for their next attempt."""
    staying: int = 0
    """Calls whose programs wait at the source for their results."""
    dead_staying: int = 0
    """Dead letters that the target cannot take over, or that are such calls."""
    too_large: int = 0
    """Over the target's max_body_bytes, so they stay."""
    refused: int = 0
    """Signed with no key of the source's: dead letters there now."""
    overtaken: int = 0
    """Put at the target when the source had given them to another consumer meanwhile: they may run twice."""
    queues: int = 0
    users: tuple[str, ...] = ()
    """The names of other programs that are connected to the source."""
    is_idle: bool = False
    """Nothing is left to take now."""
