"""Who has which items of a queue in hand. Pure: its queue calls it under the queue's own lock.

get ──> held by the caller ──┬── its next get, unless its process counts by task_done ──> done
                             ├── task_done ──> the caller's oldest is done, else its process's oldest
                             ├── its end ──> done
                             └── its loss ──> back into the queue
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple

Caller = Hashable
"""One thread of one peer: (session, thread) for a native one, ("", thread) in the master, the connection for a stock one."""


class _Held(NamedTuple):
    caller: Caller
    item: Any


class _Process:
    def __init__(self) -> None:
        self.callers: set[Caller] = set()
        self.held: list[_Held] = []  # oldest first
        self.counts = False


def process_of(caller: Caller) -> Hashable:
    """What a caller's task_done speaks for. A stock connection is all that is known of its process."""
    return caller[0] if isinstance(caller, tuple) else caller


def is_masters_own(caller: Caller) -> bool:
    """Whether it is a thread of the master. It holds nothing under a lease: it would die with the queue itself."""
    return process_of(caller) == ""


class HeldItems:
    """The items of one queue that consumers have in hand."""

    def __init__(self) -> None:
        self._processes: dict[Hashable, _Process] = {}

    def take(self, caller: Caller, item: Any) -> None:
        """The caller got this item."""
        process = self._processes.setdefault(process_of(caller), _Process())
        process.callers.add(caller)
        process.held.append(_Held(caller, item))

    def goes_on(self, caller: Caller) -> None:
        """The caller gets again: what it had is done, unless its process says so by task_done."""
        process = self._processes.get(process_of(caller))
        if process is not None and not process.counts:
            process.held = [held for held in process.held if held.caller != caller]

    def one_is_done(self, caller: Caller) -> None:
        """The caller called task_done."""
        process = self._processes.setdefault(process_of(caller), _Process())
        process.callers.add(caller)
        process.counts = True
        for at, held in enumerate(process.held):
            if held.caller == caller:
                del process.held[at]
                return
        if process.held:
            del process.held[0]

    def end(self, caller: Caller) -> list[Any]:
        """Forget the caller; the items that it had in hand, oldest first."""
        process = self._processes.get(process_of(caller))
        if process is None:
            return []
        items = [held.item for held in process.held if held.caller == caller]
        process.held = [held for held in process.held if held.caller != caller]
        process.callers.discard(caller)
        if not process.callers:
            del self._processes[process_of(caller)]
        return items
