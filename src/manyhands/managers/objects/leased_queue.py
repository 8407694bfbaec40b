"""Leases around a queue that keeps its own order or rules: PriorityQueue, LifoQueue, SimpleQueue, subclasses.

Such a queue stays the program's own object. A consumer elsewhere takes an item under a lease: the item is done when that
consumer goes on or ends normally, and back in the queue when it is lost. The master's own use of the object, direct or
through a proxy, is what it was.

How that is done depends on what the class lets us do: `conditioned.py` for queue.Queue and whatever inherits from it,
`unconditioned.py` for SimpleQueue (docs/adr/0080-queues-that-stay-objects.md).
"""

from __future__ import annotations

import queue
from typing import Any

from manyhands.managers.objects.calls import IsWanted
from manyhands.managers.objects.conditioned import ConditionedQueue
from manyhands.managers.objects.held_items import Caller
from manyhands.managers.objects.unconditioned import UnconditionedQueue


class LeasedQueue:
    """One queue object and who has which of its items in hand. Safe in any number of threads.

    A caller makes one call at a time, and none after it has ended. An object may be wrapped again when its last wrapper is
    gone, and then goes on from where it was.

    Args:
        original: an object for which `is_leased_queue` holds.
    """

    def __init__(self, original: queue.Queue[Any] | queue.SimpleQueue[Any]) -> None:
        self.original = original
        self._way: ConditionedQueue | UnconditionedQueue
        if isinstance(original, queue.Queue):
            self._way = ConditionedQueue.around(original)
        else:
            self._way = UnconditionedQueue(original)

    def methods(self) -> tuple[str, ...]:
        """The public methods, as the standard library exposes them; shutdown also before Python 3.13."""
        found = {name for name in dir(self.original) if not name.startswith("_") and callable(getattr(self.original, name))}
        return tuple(sorted(found | {"shutdown"}))

    def call(
        self,
        caller: Caller,
        method: str,
        args: tuple[Any, ...] = (),
        kwds: dict[str, Any] | None = None,
        *,
        is_wanted: IsWanted | None = None,
    ) -> Any:
        """Call a method of the queue for a caller, in the caller's own thread; returns and raises what the method does.

        A wait that was withdrawn ends as one whose time is over (queue.Empty, queue.Full), and so does a call that nobody
        wants any more as it begins.
        """
        return self._way.call(caller, method, args, kwds or {}, is_wanted)

    def withdraw(self, caller: Caller) -> None:
        """End the caller's waiting get, put or join, if there is one; it takes and puts nothing."""
        self._way.withdraw(caller)

    def caller_ended(self, caller: Caller, *, is_lost: bool) -> None:
        """The caller is no more: its wait is withdrawn; what it has in hand is done or, if it is lost, back in the queue."""
        self._way.caller_ended(caller, is_lost=is_lost)

    def restore(self) -> None:
        """Make the original what it was before; for when nobody elsewhere can use it any more."""
        self._way.restore()
