"""What one session has asked of objects, so that asking again after a broken connection does nothing twice. Pure.

A client sends again what it got no answer for, with the same rid. Its rids grow, and each of its threads makes one call at
a time, so a call of a thread says that the answers to its earlier ones have arrived: the last answer of each thread is all
that must be kept. After an answer too large to keep, or when the session was forgotten, a resend is told that nobody knows.
"""

from __future__ import annotations

from collections import OrderedDict
from enum import Enum, auto
from typing import Any

KEPT_BYTES = 1024 * 1024
"""A larger answer is not kept to be given again."""
_ORDERED_KEPT = 256


class Verdict(Enum):
    """What to do with a call."""

    RUN = auto()
    WAIT = auto()
    """It is running; its answer will come."""
    AGAIN = auto()
    """It was run; its answer is at hand."""
    UNKNOWN = auto()
    """It may have been run; nobody knows any more."""


class _Thread:
    __slots__ = ("answer", "rid")

    def __init__(self, rid: int) -> None:
        self.rid = rid
        self.answer: Any = None


class SessionCalls:
    """One session's calls.

    Args:
        forgotten_to: the highest rid of an earlier time of this session, which was forgotten.
    """

    def __init__(self, forgotten_to: int = 0) -> None:
        self.highest = self._forgotten_to = forgotten_to
        """The highest rid that was ever seen."""
        self.running: dict[int, int] = {}
        """By rid: the thread whose call it is."""
        self.abandoned: set[int] = set()
        """Those of the running calls whose answer nobody waits for."""
        self._threads: dict[int, _Thread] = {}
        self._ordered: OrderedDict[int, Any] = OrderedDict()
        self._last_ordered = forgotten_to

    @property
    def threads(self) -> list[int]:
        """The threads that have called."""
        return list(self._threads)

    # -- calls

    def invoke(self, rid: int, thread: int) -> tuple[Verdict, Any]:
        """A call has come: what to do, and its answer for AGAIN."""
        if rid in self.running:
            return Verdict.WAIT, None
        known = self._threads.get(thread)
        if known is not None and known.rid == rid and known.answer is not None:
            return Verdict.AGAIN, known.answer
        if rid <= self._forgotten_to or (known is not None and rid <= known.rid):
            return Verdict.UNKNOWN, None
        self._threads[thread] = _Thread(rid)
        self.running[rid] = thread
        self.highest = max(self.highest, rid)
        return Verdict.RUN, None

    def answered(self, rid: int, answer: Any, size_bytes: int) -> None:
        """A call is over."""
        thread = self._threads.get(self.running.pop(rid))
        self.abandoned.discard(rid)
        if thread is not None and thread.rid == rid and size_bytes <= KEPT_BYTES:
            thread.answer = answer

    def abandon(self, thread: int) -> None:
        """Nobody waits for the answers to a thread's calls any more."""
        self.abandoned.update(rid for rid, caller in self.running.items() if caller == thread)

    def leave(self, thread: int) -> None:
        """A thread makes no more calls."""
        self._threads.pop(thread, None)

    # -- what is answered in order

    def ordered(self, rid: int) -> tuple[bool, Any]:
        """A Create, Refer or Unrefer has come: whether it was applied before, and the answer it got (None: not kept)."""
        if rid <= self._last_ordered:
            return True, self._ordered.get(rid)
        self._last_ordered = rid
        self.highest = max(self.highest, rid)
        return False, None

    def ordered_answer(self, rid: int, answer: Any) -> None:
        """Keep an answer for a resend; only the newest are kept."""
        self._ordered[rid] = answer
        if len(self._ordered) > _ORDERED_KEPT:
            self._ordered.popitem(last=False)
