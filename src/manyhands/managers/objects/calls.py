"""The calls that run in a queue of the master, each in a thread of its own, and how one that waits is ended."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from manyhands.managers.objects.held_items import Caller, is_masters_own

IsWanted = Callable[[], bool]
"""Whether anybody still waits for a call. It turns false before the call is withdrawn, never after."""


class Withdrawn(BaseException):
    """Raised inside a wait that was withdrawn; no `except Exception` of a program's own queue class shall keep it."""


class Call:
    """One running call."""

    __slots__ = ("caller", "gets", "has_taken", "is_over", "is_withdrawn", "leases", "puts")

    def __init__(self, caller: Caller, method: str) -> None:
        self.caller = caller
        self.gets = method in ("get", "get_nowait")
        self.puts = method in ("put", "put_nowait")
        self.leases = method.startswith("get") and not is_masters_own(caller)
        """Whether what it takes out of the queue is held under a lease: a class's own get_many too, but not its clear."""
        self.has_taken = False
        self.is_withdrawn = False
        self.is_over = False
        """Whether its caller ended meanwhile: what it takes after all goes straight back."""


class Calls:
    """The running calls of one queue."""

    def __init__(self) -> None:
        self._by_thread: dict[int, Call] = {}
        self._by_caller: dict[Caller, Call] = {}

    @contextmanager
    def running(self, caller: Caller, method: str, is_wanted: IsWanted | None = None) -> Iterator[Call]:
        """Around one call in the current thread. A withdrawn wait ends as one whose time is over."""
        call, ident = Call(caller, method), threading.get_ident()
        outer = self._by_thread.get(ident)  # a queue's own method may come back here through a proxy
        self._by_thread[ident] = self._by_caller[caller] = call
        try:
            # Asked when a withdrawal can find the call: one that came before then found nothing to withdraw.
            if is_wanted is not None and not is_wanted():
                raise Withdrawn
            yield call
        except Withdrawn:
            if call.puts:
                raise queue.Full from None
            raise queue.Empty from None
        finally:
            self._by_caller.pop(caller, None)
            if outer is None:
                del self._by_thread[ident]
            else:
                self._by_thread[ident] = self._by_caller[outer.caller] = outer

    def here(self) -> Call | None:
        """The call that runs in this thread; None for the program's own use of its object."""
        return self._by_thread.get(threading.get_ident())

    def of(self, caller: Caller) -> Call | None:
        """The caller's running call."""
        return self._by_caller.get(caller)
