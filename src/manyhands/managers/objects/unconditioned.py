"""Leases around a `queue.SimpleQueue`, which has neither conditions to wait on nor methods that could be led elsewhere.

A wait inside its own get could not be withdrawn: it would take the next item for a consumer that is gone. So a consumer
waits here, on a condition of ours, and takes an item only by a get that does not wait. What is put through a proxy wakes it
at once. What the master puts into the object directly nobody can see come; while consumers wait, one of them looks every
POLL_S.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Any

from manyhands.errors import ShutDown
from manyhands.managers.objects.calls import Call, Calls, IsWanted, Withdrawn
from manyhands.managers.objects.held_items import Caller, HeldItems

_SHUT_DOWN: weakref.WeakSet[queue.SimpleQueue[Any]] = weakref.WeakSet()
"""Outlives the last proxy of a queue, as long as the queue itself does: it has no place for a mark of ours."""
POLL_S = 0.01
"""How often one of the waiting consumers looks: 0.1 % of a core for the queue, however many wait."""


class UnconditionedQueue:
    """See `LeasedQueue`."""

    def __init__(self, original: queue.SimpleQueue[Any]) -> None:
        self._original = original
        self._calls = Calls()
        self._held = HeldItems()
        self._changed = threading.Condition(threading.Lock())
        self._has_poller = False

    def restore(self) -> None:
        """Nothing was changed."""

    def call(
        self, caller: Caller, method: str, args: tuple[Any, ...], kwds: dict[str, Any], is_wanted: IsWanted | None = None
    ) -> Any:
        """See `LeasedQueue.call`."""
        with self._calls.running(caller, method, is_wanted) as call:
            match method:
                case "get":
                    return self._get(call, *args, **kwds)
                case "get_nowait":
                    return self._get(call, False, *args, **kwds)
                case "shutdown":
                    return self._shut_down(*args, **kwds)
            own = getattr(self._original, method)
            if not call.puts:
                return own(*args, **kwds)
            with self._changed:
                if self._original in _SHUT_DOWN:
                    raise ShutDown
                if not isinstance(caller, tuple):
                    self._held.goes_on(caller)  # as in conditioned.py
            value = own(*args, **kwds)
            with self._changed:
                self._changed.notify()
            return value

    def withdraw(self, caller: Caller) -> None:
        """See `LeasedQueue.withdraw`."""
        with self._changed:
            self._withdraw(caller)

    def caller_ended(self, caller: Caller, *, is_lost: bool) -> None:
        """See `LeasedQueue.caller_ended`. A SimpleQueue has one end to put at: a lost item goes behind the others."""
        with self._changed:
            self._withdraw(caller)
            items = self._held.end(caller)
            if is_lost and not (self._original in _SHUT_DOWN and self._original.empty()):
                for item in items:
                    self._original.put(item)
                self._changed.notify_all()

    def _withdraw(self, caller: Caller) -> None:
        call = self._calls.of(caller)
        if call is not None:
            call.is_withdrawn = True
            self._changed.notify_all()

    def _get(self, call: Call, block: bool = True, timeout: float | None = None) -> Any:
        if block and timeout is not None and timeout < 0:
            raise ValueError("'timeout' must be a non-negative number")
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            self._held.goes_on(call.caller)
            try:
                while True:
                    if call.is_withdrawn:
                        raise Withdrawn
                    try:
                        item = self._original.get(block=False)
                    except queue.Empty:
                        if self._original in _SHUT_DOWN:
                            raise ShutDown from None
                        if not block or (deadline is not None and time.monotonic() >= deadline):
                            raise
                    else:
                        if call.leases:
                            self._held.take(call.caller, item)
                        return item
                    self._wait(deadline)
            finally:
                self._changed.notify()  # whoever waits next looks from here on, and a wake-up spent on this wait is not lost

    def _wait(self, deadline: float | None) -> None:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        if self._has_poller:
            self._changed.wait(left)
            return
        self._has_poller = True
        try:
            self._changed.wait(POLL_S if left is None else min(left, POLL_S))
        finally:
            self._has_poller = False

    def _shut_down(self, immediate: bool = False) -> None:
        with self._changed:
            _SHUT_DOWN.add(self._original)
            while immediate and not self._original.empty():
                try:
                    self._original.get(block=False)
                except queue.Empty:
                    break
            self._changed.notify_all()
