"""Where a thread meets an event loop: a mailbox that wakes it seldom. Which thread runs a loop is in _turns.py.

A loop is woken from another thread through its self-pipe: a system call and, on a busy core, a scheduler's round. A
mailbox pays that once for everything that gathers until the loop gets to it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it installs, asyncio's own elsewhere (Windows)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class Mailbox(Generic[T]):
    """Items for a loop, from any thread; take is called in the loop, once for all that gathered."""

    def __init__(self, loop: asyncio.AbstractEventLoop, take: Callable[[list[T]], None]) -> None:
        self._loop = loop
        self._take = take
        self._items: deque[T] = deque()
        self._is_called = False

    def post(self, item: T) -> None:
        """Leave an item; wakes the loop only if nothing has since it last looked. Never raises: a closed loop drops it."""
        self._items.append(item)
        if not self._is_called:
            self._is_called = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:  # the loop is closed: nobody is left to tell
                self._items.clear()

    def _run(self) -> None:
        # Lowered before the items are taken: what is posted from here on calls again, at worst for nothing.
        self._is_called = False
        self._take([self._items.popleft() for _ in range(len(self._items))])
