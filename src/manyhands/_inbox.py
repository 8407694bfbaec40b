"""Where requests gather for the one thread that writes."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """Many threads put, one thread takes; putting takes no lock unless the taker sleeps.

    No wake-up is lost: a putter appends and then looks whether the taker sleeps, the taker says that it sleeps and then
    looks whether there is something. A wake-up too many only makes it look once more.
    """

    __slots__ = ("_bell", "_is_asleep", "_items", "_wanted")

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._bell = threading.Lock()
        self._bell.acquire()
        self._is_asleep = False
        self._wanted = 1

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add at the end."""
        self._items.append(item)
        if self._is_asleep and len(self._items) >= self._wanted:
            self.ring()

    def ring(self) -> None:
        """Make the taker look, also when there is nothing."""
        self._is_asleep = False
        try:  # noqa: SIM105 - a context manager would cost as much as the rest
            self._bell.release()
        except RuntimeError:  # another thread rang first
            pass

    def wait(self, timeout_s: float | None, *, wanted: int = 1) -> None:
        """Sleep until so many items are there, somebody rings or the time is over (None: no limit)."""
        self._wanted = wanted
        self._is_asleep = True
        if len(self._items) < wanted:
            self._bell.acquire(timeout=-1 if timeout_s is None else min(timeout_s, threading.TIMEOUT_MAX))
        self._is_asleep = False

    def take(self, limit: int) -> list[T]:
        """Up to limit items, oldest first."""
        items = self._items
        return [items.popleft() for _ in range(min(limit, len(items)))]
