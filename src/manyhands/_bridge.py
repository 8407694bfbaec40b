"""The one place where a thread meets an event loop: a loop in a thread of its own, and a mailbox that wakes it seldom.

A loop is woken from another thread through its self-pipe: a system call and, on a busy core, a scheduler's round. A
mailbox pays that once for everything that gathers until the loop gets to it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from manyhands.errors import UsageError

T = TypeVar("T")


def new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where it installs, asyncio's own elsewhere (Windows)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """An event loop that runs in one named thread, from start() to stop()."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None
        self.loop = new_loop()

    def start(self) -> None:
        """Run the loop in a daemon thread: it must not keep a program alive that has ended."""
        self._thread = threading.Thread(target=self.loop.run_forever, name=self._name, daemon=True)
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout_s: float) -> T:
        """Run a coroutine in the loop; what it returns or raises.

        Raises:
            TimeoutError: it was not done in time; it is cancelled.
            UsageError: called in the loop's own thread, which would wait for itself.
        """
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise UsageError(f"{self._name} cannot wait for itself; call this from another thread.")
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            future.cancel()
            raise

    def stop(self, timeout_s: float) -> None:
        """End the loop and its thread. Idempotent."""
        if self._thread is None or self.loop.is_closed():
            return
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout_s)
        if not self._thread.is_alive():
            self.loop.close()


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
