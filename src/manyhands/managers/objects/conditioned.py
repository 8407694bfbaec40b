"""Leases around a `queue.Queue` of a class with its own order or rules.

The object's own methods do all the work, whatever the class overrides. They call three small methods of the same object,
with its lock held, and those are led through here:

    get ── _qsize ──> here: is this wait withdrawn, or the queue shut down?
        └─ _get ────> here: the class's own _get, and the item is now held by the caller
    put ── _qsize, _put ──> likewise

So taking an item and holding it under a lease is one step under the queue's lock; a class whose get unpacks what its put
packed holds the packed item, which is what its `_put` takes when it has to go back; and the queue's own conditions wake
whoever waits, so nothing polls.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from manyhands.errors import ShutDown
from manyhands.managers.objects import heap
from manyhands.managers.objects.calls import Call, Calls, IsWanted, Withdrawn
from manyhands.managers.objects.held_items import Caller, HeldItems, is_masters_own

_log = logging.getLogger(__name__)


class _Returned(NamedTuple):
    """What a get returned that has nothing to do with `_get`; it goes back as it came, through put."""

    value: Any


class ConditionedQueue:
    """See `LeasedQueue`. Everything that is not said to take the queue's lock expects it to be held."""

    def __init__(self, original: queue.Queue[Any]) -> None:
        self._original = original
        self._calls = Calls()
        self._held = HeldItems()
        self._refused: deque[Any] = deque()
        """What came back and the class's own `_put` did not take; it is handed out before anything else."""
        self._is_shut_down = False
        self._is_emptied = False
        self._own_qsize: Callable[[], int] = original._qsize
        self._own_get: Callable[[], Any] = original._get
        self._own_put: Callable[[Any], None] = original._put
        self._put_back: Callable[[Any], None] = original._put
        if _has(original, queue.Queue):
            self._put_back = lambda item: original.queue.appendleft(item)  # first in, first out: it was the first
        elif _has(original, queue.PriorityQueue):
            entries = cast("list[Any]", original.queue)
            self._own_get = lambda: heap.pop(entries)
            self._own_put = self._put_back = lambda item: heap.push(entries, item)
        with original.mutex:
            vars(original).update(_qsize=self._qsize, _get=self._get, _put=self._put)

    @classmethod
    def around(cls, original: queue.Queue[Any]) -> ConditionedQueue:
        """The one that leads the object's methods already, or a new one."""
        there = getattr(vars(original).get("_get"), "__self__", None)
        return there if isinstance(there, cls) else cls(original)

    def restore(self) -> None:
        """Give the object its own methods back. Takes the lock."""
        with self._original.mutex:
            while self._refused:
                self._try_put(self._refused.popleft())
            for name in ("_qsize", "_get", "_put"):
                vars(self._original).pop(name, None)

    # -- calls

    def call(
        self, caller: Caller, method: str, args: tuple[Any, ...], kwds: dict[str, Any], is_wanted: IsWanted | None = None
    ) -> Any:
        """See `LeasedQueue.call`. Takes the lock."""
        with self._calls.running(caller, method, is_wanted) as call:
            own = getattr(self._original, method, None)
            if method == "shutdown":
                return self._shut_down(own, *args, **kwds)
            if own is None:
                raise AttributeError(f"{type(self._original).__name__!r} object has no attribute {method!r}")
            if method == "join" and getattr(type(self._original), "join", None) is queue.Queue.join:
                return self._join(call, *args, **kwds)
            if method == "task_done":
                return self._task_done(caller, own, *args, **kwds)
            if call.gets or (call.puts and not isinstance(caller, tuple)):
                # A stock consumer's put counts too: it is all the word that a worker of get, work, put ever gives.
                with self._original.mutex:
                    self._held.goes_on(caller)
            value = own(*args, **kwds)
            if call.gets and call.leases and not call.has_taken:
                self._hold_returned(call, value)
            return value

    def withdraw(self, caller: Caller) -> None:
        """See `LeasedQueue.withdraw`. Takes the lock."""
        with self._original.mutex:
            self._withdraw(caller)

    def caller_ended(self, caller: Caller, *, is_lost: bool) -> None:
        """See `LeasedQueue.caller_ended`. Takes the lock."""
        with self._original.mutex:
            call = self._withdraw(caller)
            if call is not None:
                call.is_over = True
            items = self._held.end(caller)
            if is_lost:
                # Last in, first out turns round what it is given; so the oldest comes last here, and first again there.
                for item in reversed(items):
                    self._give_back(item)

    def _withdraw(self, caller: Caller) -> Call | None:
        call = self._calls.of(caller)
        if call is not None:
            call.is_withdrawn = True
            # All, not one: a wake-up that an item has already spent on this wait is spent again on the others.
            for condition in (self._original.not_empty, self._original.not_full, self._original.all_tasks_done):
                condition.notify_all()
        return call

    def _join(self, call: Call) -> None:
        with self._original.all_tasks_done:
            while self._original.unfinished_tasks and not call.is_withdrawn:
                self._original.all_tasks_done.wait()

    def _task_done(self, caller: Caller, own: Callable[..., Any], *args: Any, **kwds: Any) -> Any:
        value = own(*args, **kwds)  # one call too many raises, and settles nothing
        if not is_masters_own(caller):
            with self._original.mutex:
                self._held.one_is_done(caller)
        return value

    def _shut_down(self, own: Callable[..., Any] | None, immediate: bool = False) -> None:
        if own is not None:
            own(immediate)
        with self._original.mutex:
            self._is_shut_down = True
            self._is_emptied = self._is_emptied or immediate
            while immediate and self._qsize_here():
                self._get_here()
                self._count_one_less()
            for condition in (self._original.not_empty, self._original.not_full, self._original.all_tasks_done):
                condition.notify_all()

    # -- what the object's own methods call

    def _qsize(self) -> int:
        size = self._qsize_here()
        call = self._calls.here()
        if call is not None:
            if call.is_withdrawn:
                raise Withdrawn
            if self._is_shut_down and (call.puts or (call.gets and not size)):
                raise ShutDown
        return size

    def _get(self) -> Any:
        call = self._calls.here()
        if call is not None and call.is_withdrawn:
            raise Withdrawn
        item = self._get_here()
        if call is not None and call.leases:
            if not call.has_taken:
                self._held.goes_on(call.caller)
                call.has_taken = True
            self._held.take(call.caller, item)
        return item

    def _put(self, item: Any) -> None:
        call = self._calls.here()
        if call is not None and call.puts:
            if call.is_withdrawn:
                raise Withdrawn
            if self._is_shut_down:
                raise ShutDown
        self._own_put(item)

    def _qsize_here(self) -> int:
        return self._own_qsize() + len(self._refused)

    def _get_here(self) -> Any:
        return self._refused.popleft() if self._refused else self._own_get()

    # -- back into the queue

    def _give_back(self, item: Any) -> None:
        """To where the class's own order has it; beyond a bound, and with the unfinished count as it is."""
        if self._is_emptied:
            self._count_one_less()
            return
        if isinstance(item, _Returned):
            # Its put may wait for room and takes the lock itself.
            threading.Thread(target=self._put_again, args=(item.value,), name="manyhands-gives-back", daemon=True).start()
            return
        self._try_put(item)
        self._original.not_empty.notify()

    def _try_put(self, item: Any) -> None:
        try:
            self._put_back(item)
        except Exception:
            _log.exception(
                "An item that a lost consumer had in hand was refused by _put of %s; it is handed out before the others. "
                "If its priority is shared, give each item a number as its second part: (priority, next(counter), item).",
                type(self._original).__name__,
            )
            self._refused.append(item)

    def _hold_returned(self, call: Call, value: Any) -> None:
        with self._original.mutex:
            if not call.is_over:
                self._held.take(call.caller, _Returned(value))
                return
        self._put_again(value)

    def _put_again(self, value: Any) -> None:
        """Put what was put before; it is one unfinished task still, not two. Takes the lock."""
        with self._original.mutex:
            before = self._original.unfinished_tasks
        try:
            self._original.put(value)
        except Exception:
            _log.exception(
                "An item that a lost consumer had in hand was refused by put of %s.", type(self._original).__name__
            )
            return
        with self._original.mutex:
            if self._original.unfinished_tasks > before:
                self._original.unfinished_tasks -= 1

    def _count_one_less(self) -> None:
        if self._original.unfinished_tasks > 0:
            self._original.unfinished_tasks -= 1
            if not self._original.unfinished_tasks:
                self._original.all_tasks_done.notify_all()


def _has(original: queue.Queue[Any], kind: type[queue.Queue[Any]]) -> bool:
    """Whether the object's order is that of this class of the standard library."""
    own = type(original)
    return own._put is kind._put and own._get is kind._get and own._init is kind._init
