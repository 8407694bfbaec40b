"""What has to happen in a child while a call runs, and would wait for its end otherwise. One thread.

It sends outcomes that have been finished for a while, takes what the engine says, and makes the connection anew when it
breaks, so that a network blip costs no lease. As long as calls come and go within a nap it does nothing but nap; when the
child has had nothing to do for a whole nap it sleeps until the next batch wakes it. A call that holds the interpreter's lock
keeps it from all that; what must not fail then is the parent's.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Protocol

NAP_S = 0.02
LONGEST_NAP_S = 0.25


class Kept(Protocol):
    """The child, as its keeper sees it."""

    def is_idle(self) -> bool:
        """Whether it waits for work."""
        ...

    def step(self) -> int:
        """A number that is another one when a call has begun or ended since; always the same without a connection."""
        ...

    def tend(self, nap_s: float) -> None:
        """A call has run for a nap: send, take, reconnect; then sleep until something comes, at most for nap_s."""
        ...


class Keeper:
    """Starts its thread on creation."""

    def __init__(self, child: Kept, fail: Callable[[BaseException], None]) -> None:
        """Begin to look after a child.

        Args:
            fail: takes an error that nobody else would see.
        """
        self._child = child
        self._fail = fail
        self._is_asleep = True
        self._call = threading.Lock()
        self._call.acquire()
        self._thread = threading.Thread(target=self._run, name="manyhands-keeper", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """A batch begins: the child is not idle any more. Costs nothing unless it had been for a while."""
        if self._is_asleep:
            self._is_asleep = False
            with contextlib.suppress(RuntimeError):  # woken already
                self._call.release()

    def _run(self) -> None:
        try:
            while True:
                self._call.acquire()
                self._stay_awake()
        except BaseException as error:
            self._fail(error)

    def _stay_awake(self) -> None:
        child = self._child
        nap_s, seen = NAP_S, -1
        while True:
            now = child.step()
            if now != seen:
                nap_s, seen = NAP_S, now
                time.sleep(nap_s)
            elif not child.is_idle():
                child.tend(nap_s)
                nap_s = min(2 * nap_s, LONGEST_NAP_S)
            else:
                self._is_asleep = True
                if child.is_idle():
                    return
                self._is_asleep = False  # a batch began just before, and found this thread awake
