"""Which of the engine's queues a `queue.Queue` of the master is, by the identity of the object.

    same object as before         the same queue, under whatever typeid (an alias)
    an object the master keeps    a queue named by the typeid (and arguments), shared by all
    an object nobody keeps        a queue for this caller alone, dropped with its last proxy

Whether somebody keeps the object is simply asked of the interpreter: if it is gone when we let go of it, the callable made
it for this call. The standard library's rule comes out the same: an object lives as long as something refers to it.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
import weakref
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from manyhands.errors import UnsupportedFeature
from manyhands.managers.rerouting import Rerouted

_log = logging.getLogger(__name__)


class TargetQueue(Protocol):
    """What is needed of an engine's queue; the client's Queue."""

    def put_many(self, items: list[Any], timeout: float | None = None) -> None: ...

    def shutdown(self, immediate: bool = False) -> None: ...


class Offers:
    """The engine's queues that stand for queue.Queue objects.

    Args:
        open_queue: gives the engine's queue of that name and bound.
        is_durable: whether queues outlive the master, and so must have a name to be found by.
        holds: whether the engine's queue of that name holds messages, of an earlier run; asked if is_durable.
        remedy: what to do about a queue that has no name, for the sentence.
    """

    def __init__(
        self,
        open_queue: Callable[[str, int], TargetQueue],
        *,
        is_durable: bool,
        holds: Callable[[str], bool],
        remedy: str = "serve it with store='memory://'",
    ) -> None:
        self._open_queue = open_queue
        self.is_durable = is_durable
        self._holds = holds
        self._remedy = remedy
        # Reentrant: a put that moves first items may run an item's own code.
        self._lock = threading.RLock()
        self._rerouted: dict[int, tuple[str, Rerouted]] = {}
        self._taken: set[str] = set()

    def adopt(self, made: list[queue.Queue[Any]], typeid: str, label: str) -> tuple[str, bool]:
        """The name of the engine's queue that stands for the object, and whether it is the caller's own.

        Args:
            made: the object, in a list so that nobody else keeps it alive; may be empty afterwards.
            label: what a queue of its own name is called.

        Raises:
            UnsupportedFeature: it would be a nameless queue in a durable store.
        """
        with self._lock:
            address = id(made[0])
            known = self._rerouted.get(address)
            if known is not None and known[1].leads(made[0]):
                return known[0], False
            items, maxsize = made[0].queue, max(0, made[0].maxsize)
            kept = weakref.ref(made.pop())
            original = kept()
            if original is None:
                return self._make_anonymous(typeid, label, items, maxsize), True
            name = self._free_name(label)
            target = self._open_queue(name, maxsize)
            rerouted = Rerouted(original, target)
            # Only what this run began with: puts that come after the take-over are the engine's already.
            if self.is_durable and items and self._holds(name):
                rerouted.take_over(partial(_leave_out, name))
            else:
                rerouted.take_over(target.put_many)
            self._taken.add(name)
            self._rerouted[address] = (name, rerouted)
            return name, False

    def drop(self, name: str) -> None:
        """Nobody has a proxy of a queue that was a caller's own any more: it goes with all it holds."""
        self._open_queue(name, 0).shutdown(immediate=True)

    def restore(self) -> None:
        """Give the master's own queue objects their methods back."""
        with self._lock:
            for _, rerouted in self._rerouted.values():
                rerouted.restore()
            self._rerouted.clear()

    def _make_anonymous(self, typeid: str, label: str, items: deque[Any], maxsize: int) -> str:
        if self.is_durable:
            raise UnsupportedFeature(
                f"{typeid!r} makes a new queue for every call, and where queues outlive the master nobody could find a "
                f"nameless one again; let it return the same queue.Queue each time, or {self._remedy}."
            )
        name = f"{label}#{secrets.token_hex(6)}"
        target = self._open_queue(name, maxsize)
        if items:
            target.put_many(list(items))
        return name

    def _free_name(self, label: str) -> str:
        """The label, or the label with a number where another object has it."""
        name, n = label, 1
        while name in self._taken:
            n += 1
            name = f"{label}#{n}"
        return name


def _leave_out(name: str, items: list[Any]) -> None:
    _log.info(
        "%d first items of the queue %r were not put again: what an earlier run left there is not done yet.",
        len(items),
        name,
    )
