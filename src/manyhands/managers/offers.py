"""What a master offers: from a typeid to an engine's queue, by the identity of the object that its callable returns.

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
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from manyhands.errors import ManyhandsError, TaskFailed, UnsupportedFeature, UsageError
from manyhands.managers.objects.queue_kinds import is_plain_queue
from manyhands.managers.registry import Entry, names_of
from manyhands.managers.rerouting import Rerouted

_log = logging.getLogger(__name__)


class TargetQueue(Protocol):
    """What is needed of an engine's queue; the client's Queue."""

    def put_many(self, items: list[Any], timeout: float | None = None) -> None: ...

    def shutdown(self, immediate: bool = False) -> None: ...


class Offers:
    """The queues that a serving manager offers.

    Args:
        entries: the manager class's registry; read at each call, so that what is registered later is offered too.
        open_queue: gives the engine's queue of that name and bound.
        is_durable: whether queues outlive the master, and so must have a name to be found by.
    """

    def __init__(
        self, entries: Callable[[], dict[str, Entry]], open_queue: Callable[[str, int], TargetQueue], *, is_durable: bool
    ) -> None:
        self._entries = entries
        self._open_queue = open_queue
        self._is_durable = is_durable
        # Reentrant: a callable may itself ask its manager for another queue.
        self._lock = threading.RLock()
        self._rerouted: dict[int, tuple[str, Rerouted]] = {}
        self._taken: set[str] = set()
        self._anonymous: dict[str, str] = {}

    def create(self, session: str, typeid: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None) -> str:
        """Call what is registered under typeid; the name of the engine's queue that stands for what it returned.

        Args:
            session: who asks; a queue that nobody else can have is dropped when this session ends.

        Raises:
            UsageError: nothing of that name is offered; facts: offered.
            TaskFailed: the callable raised; the sentence has its traceback.
            UnsupportedFeature: it returned something that is not a plain queue.Queue.
        """
        entry = self._entries().get(typeid)
        if entry is None or entry.make is None:
            offered = names_of(self._entries(), offered=True)
            raise UsageError(
                f"The master offers no {typeid!r}; it offers: {', '.join(offered) or 'nothing'}. "
                f"Register it with a callable on the master, under the same name as in the worker.",
                offered=offered,
            )
        with self._lock:
            return self._name_of([_call(entry, args, kwds or {})], typeid, _label(typeid, args, kwds or {}), session)

    def drop(self, name: str, session: str) -> None:
        """The session has no more proxy for that queue; if it was made for it alone, it goes with all it holds."""
        with self._lock:
            if self._anonymous.get(name) != session:
                return
            del self._anonymous[name]
        self._open_queue(name, 0).shutdown(immediate=True)

    def end_session(self, session: str) -> None:
        """Drop what was made for that session alone."""
        with self._lock:
            names = [name for name, owner in self._anonymous.items() if owner == session]
        for name in names:
            self.drop(name, session)

    def restore(self) -> None:
        """Give the master's own queue objects their methods back."""
        with self._lock:
            for _, rerouted in self._rerouted.values():
                rerouted.restore()
            self._rerouted.clear()

    def _name_of(self, made: list[queue.Queue[Any]], typeid: str, label: str, session: str) -> str:
        """The queue's name for the object, which arrives in a list so that nobody here keeps it alive."""
        _check_kind(made[0], typeid)
        address = id(made[0])
        known = self._rerouted.get(address)
        if known is not None and known[1].leads(made[0]):
            return known[0]
        items, maxsize = made[0].queue, max(0, made[0].maxsize)
        kept = weakref.ref(made.pop())
        original = kept()
        if original is None:
            return self._make_anonymous(typeid, label, session, items, maxsize)
        name = self._free_name(label)
        target = self._open_queue(name, maxsize)
        rerouted = Rerouted(original, target)
        rerouted.take_over(target.put_many)
        self._taken.add(name)
        self._rerouted[address] = (name, rerouted)
        return name

    def _make_anonymous(self, typeid: str, label: str, session: str, items: deque[Any], maxsize: int) -> str:
        if self._is_durable:
            raise UnsupportedFeature(
                f"{typeid!r} makes a new queue for every call, and nobody could find a nameless queue again in a durable "
                f"store; let it return the same queue.Queue each time, or serve it with store='memory://'."
            )
        name = f"{label}#{secrets.token_hex(6)}"
        target = self._open_queue(name, maxsize)
        if items:
            target.put_many(list(items))
        self._anonymous[name] = session
        return name

    def _free_name(self, label: str) -> str:
        """The label, or the label with a number where another object has it."""
        name, n = label, 1
        while name in self._taken:
            n += 1
            name = f"{label}#{n}"
        return name


def _call(entry: Entry, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
    assert entry.make is not None
    try:
        return entry.make(*args, **kwds)
    except ManyhandsError:
        raise
    except Exception as error:
        _log.warning("the callable of %r raised", entry.typeid, exc_info=True)
        text = "".join(traceback.format_exception_only(error)).strip()
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise TaskFailed(
            f"The master's callable for {entry.typeid!r} raised {text} (in {where.name}, {where.filename}:{where.lineno}); "
            f"its whole traceback is in the master's log.",
            typeid=entry.typeid,
        ) from error


def _check_kind(made: object, typeid: str) -> None:
    if is_plain_queue(made):
        return
    kind = type(made).__name__
    if isinstance(made, queue.Queue | queue.SimpleQueue):
        raise UnsupportedFeature(
            f"{typeid!r} returns a {kind}, whose own order or rules this version of manyhands cannot keep; return a plain "
            f"queue.Queue (a proxy's put takes priority= for urgent items)."
        )
    raise UnsupportedFeature(
        f"{typeid!r} returns a {kind}, and this version of manyhands offers queue.Queue objects only; put what the workers "
        f"need to know into the items of a queue."
    )


def _label(typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> str:
    if not args and not kwds:
        return typeid
    return f"{typeid}({', '.join([*map(repr, args), *(f'{key}={value!r}' for key, value in sorted(kwds.items()))])})"
