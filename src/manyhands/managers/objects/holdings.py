"""Who holds which lock through a proxy, so that what a dead process held does not stay locked for ever.

A lock is whatever has `acquire` and `release` (and `with`): threading's Lock, RLock, Semaphore, Condition, or a class of the
program's own. Locks with an owner (RLock, Condition) can only be released by the thread that acquired them; the others may
be handed over: acquired by one process and released by another. So an orderly end leaves those as they are, as the standard
library does, and gives back only what nobody else could; the end of a lost caller gives back everything.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Hashable
from typing import Any

Caller = Hashable
"""One thread of one peer: the same value for all its calls."""

_ACQUIRES = frozenset({"acquire", "__enter__"})
_RELEASES = frozenset({"release", "__exit__"})
NOTED = _ACQUIRES | _RELEASES | {"wait", "wait_for"}
"""The only methods that may change what a caller holds."""

_log = logging.getLogger(__name__)


class Holdings:
    """Counts what is held. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[Caller, dict[int, tuple[Any, int]]] = {}
        """By caller, then by the lock's identity: the lock (kept alive meanwhile) and how often it was acquired."""
        self._forfeited: dict[Caller, dict[int, tuple[Any, int]]] = {}
        """What was released for a caller that may come back and not know it."""

    def note(self, caller: Caller, obj: Any, method: str, value: Any) -> None:
        """The caller has called a lock's method, which returned value."""
        if not is_lock(obj):
            return
        if method in _ACQUIRES:
            # A custom lock's __enter__ or acquire may return None, or itself; only a plain False says that it failed.
            if value is not False:
                with self._lock:
                    held = self._held.setdefault(caller, {})
                    held[id(obj)] = (obj, held.get(id(obj), (obj, 0))[1] + 1)
        elif method in _RELEASES:
            with self._lock:
                owner = caller if id(obj) in self._held.get(caller, ()) else self._holder_of(obj)
                if owner is not None:
                    self._lower(owner, obj)

    def holds(self, caller: Caller) -> bool:
        """Whether the caller holds anything, so that its calls must go on in the same thread."""
        return caller in self._held

    def is_forfeited(self, caller: Caller, obj: Any, method: str) -> bool:
        """Whether the caller is about to release what was released for it already; then another may hold it now."""
        if caller not in self._forfeited or method not in _RELEASES:
            return False
        with self._lock:
            locks = self._forfeited.get(caller, {})
            if id(obj) not in locks or id(obj) in self._held.get(caller, ()):
                return False
            count = locks.pop(id(obj))[1] - 1
            if count:
                locks[id(obj)] = (obj, count)
            return True

    def release_all(self, caller: Caller, *, is_lost: bool, may_return: bool = False) -> None:
        """Give back what the caller holds. Runs in the thread that made its calls.

        Args:
            is_lost: it did not end in good order: everything is released, also what another process could release.
            may_return: it may come back, and must not release then what others have acquired meanwhile.
        """
        with self._lock:
            held = self._held.pop(caller, {})
            if may_return and held:
                self._forfeited[caller] = dict(held)
            elif not may_return:
                self._forfeited.pop(caller, None)
        for obj, count in reversed(held.values()):
            if is_lost or _has_owner(obj):
                _release(obj, count)

    def release_obtained(self, caller: Caller, obj: Any, method: str, value: Any) -> None:
        """Give back what an abandoned call has obtained: nobody knows that it did."""
        if not is_lock(obj):
            return
        if method in _ACQUIRES:
            if value is not False:
                _release(obj, 1)
        elif method in ("wait", "wait_for"):
            if value and hasattr(obj, "notify"):
                obj.notify()  # the wake-up was meant for somebody who is still there
            with self._lock:
                _, count = self._held.get(caller, {}).get(id(obj), (obj, 0))
                for _ in range(count):
                    self._lower(caller, obj)
            _release(obj, count)

    def _holder_of(self, obj: Any) -> Caller | None:
        return next((caller for caller, held in self._held.items() if id(obj) in held), None)

    def _lower(self, caller: Caller, obj: Any) -> None:
        held = self._held[caller]
        count = held[id(obj)][1] - 1
        if count > 0:
            held[id(obj)] = (obj, count)
            return
        del held[id(obj)]
        if not held:
            del self._held[caller]


def is_lock(obj: Any) -> bool:
    """Whether something can be acquired and released."""
    return callable(getattr(obj, "acquire", None)) and callable(getattr(obj, "release", None))


def _has_owner(obj: Any) -> bool:
    return hasattr(obj, "_is_owned")  # threading's RLock and Condition


def _release(obj: Any, count: int) -> None:
    for _ in range(count):
        try:
            obj.release()
        except Exception as error:
            _log.warning("a %s that its holder left locked could not be released: %s", type(obj).__name__, error)
            return
