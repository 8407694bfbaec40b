"""Moves a `queue.Queue` of the master into the engine, so that using the original object goes on working.

The tutorials warn that the master must put through the proxy and never through the queue itself, because under the
standard library the served queue is another process's copy. Here there is one queue: what the object holds moves to the
engine, and its methods lead there until the manager stops.

    task_queue.put(1)  ─┐
    task.put(2)  ───────┴──> the engine's queue ──> workers

A thread that already waits inside the object's own get or put goes on at the engine as well: it is woken, and finds
`_qsize`, `_get` and `_put`, which those methods call, led there too.
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import Callable
from typing import Any

METHODS = ("put", "get", "put_nowait", "get_nowait", "qsize", "empty", "full", "task_done", "join", "shutdown")


class _Some(int):
    """A size that is neither empty nor full, whatever the bound."""

    def __bool__(self) -> bool:
        return True

    def __ge__(self, other: object) -> bool:
        return False


class Rerouted:
    """One queue.Queue whose methods lead to the engine from take_over() to restore(). Does not keep it alive."""

    def __init__(self, original: queue.Queue[Any], target: Any) -> None:
        self._original = weakref.ref(original)
        self._target = target

    def take_over(self, put_many: Callable[[list[Any]], None]) -> None:
        """Hand what the queue holds to put_many and lead its methods to the target.

        Nobody can slip an item in between: the queue's own lock is held meanwhile. If put_many raises, nothing changed.
        """
        original = self._original()
        assert original is not None
        with original.mutex:
            if original.queue:
                put_many(list(original.queue))
                original.queue.clear()
            names = vars(original)
            for name in METHODS:
                names[name] = getattr(self._target, name)
            names["_qsize"] = _Some
            names["_get"] = self._target.get
            names["_put"] = self._target.put
            original.not_empty.notify_all()
            original.not_full.notify_all()

    def leads(self, original: object) -> bool:
        """Whether this is that very object (and not another one at its old address)."""
        return self._original() is original

    def restore(self) -> None:
        """Make it an ordinary, empty queue.Queue again."""
        original = self._original()
        if original is None:
            return
        # Without the queue's lock: a thread that was waiting inside the object when it was taken over may hold it.
        for name in (*METHODS, "_qsize", "_get", "_put"):
            vars(original).pop(name, None)
        original.unfinished_tasks = 0
