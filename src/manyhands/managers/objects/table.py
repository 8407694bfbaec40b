"""The objects that a master serves: made, referred to, called and forgotten, with the standard library's rules.

    create ──> callable ──┬─ plain queue.Queue ──> an engine's queue (offers.py)
                          ├─ another kind of queue ──> stays an object, with leases around its items
                          └─ anything else ──> Served, in the table

What keeps an object in the table: a reference that a holder (one process's session) has taken, a proxy in this process, or
having been handed on a moment ago. A proxy that was pickled or inherited by a fork is on its way to somebody whose own
reference comes only when it is rebuilt, so what is given up then lingers for LINGER_S.

Here are no sockets: the gate calls this for our own clients, the gateway for clients of the standard library, and a proxy in
the master itself calls it in its own thread.
"""

from __future__ import annotations

import secrets
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from itertools import count
from multiprocessing.managers import Token
from typing import Any, NamedTuple, Protocol

from manyhands.errors import ManyhandsError, ServerUnavailable, UnknownId, UnsupportedFeature
from manyhands.managers.objects.calls import IsWanted
from manyhands.managers.objects.holdings import NOTED, Caller, Holdings, is_lock
from manyhands.managers.objects.leased_queue import LeasedQueue
from manyhands.managers.objects.making import label, make, offered
from manyhands.managers.objects.queue_kinds import is_leased_queue, is_plain_queue
from manyhands.managers.objects.served import Served, plain_operators, public_methods, shape_of
from manyhands.managers.registry import Entry, Registry

RETURN, ERROR, TRACEBACK, UNSERIALIZABLE, PROXY = "#RETURN", "#ERROR", "#TRACEBACK", "#UNSERIALIZABLE", "#PROXY"
"""The standard library's kinds of answer."""
QUEUE_PREFIX = "q:"
"""An ident that begins so is an engine's queue."""
QUEUE_METHODS = (
    "empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "shutdown", "task_done",
)  # fmt: skip
LINGER_S = 60.0
_EPOCH_CHARS = 8
_NOT_PLAIN = Entry(None)


class Made(NamedTuple):
    """What create gives: how to reach the object, and what its proxy shows."""

    ident: str
    exposed: tuple[str, ...]
    queue: str = ""
    """The engine's queue that it is; "" for an object."""
    shape: str = ""
    """The standard proxy that fits when none was registered: "dict", "list"."""
    typeid: str = ""
    is_counted: bool = True
    """Whether it lives as long as its references: everything but a queue that has a name of its own."""
    served: Served | None = None
    """In this process: what keeps it alive until a proxy does. None for a queue that has a name of its own."""


class Queues(Protocol):
    """What the table needs of `Offers`."""

    @property
    def is_durable(self) -> bool: ...

    def adopt(self, made: list[Any], typeid: str, label: str) -> tuple[str, bool]:
        """The engine's queue for a queue.Queue (in a list, so that nobody else keeps it alive): name, whether it is the
        caller's own and goes with its last reference."""
        ...


class Objects:
    """The table of served objects. Thread-safe.

    Args:
        entries: the manager class's registry; read at each call, so that what is registered later is offered too.
        queues: where plain queues go.
        drop_queue: told, from any thread and inside any lock, that a queue of a caller's own has lost its last reference.
        standard: typeids that method_to_typeid may name although nobody registered them.
    """

    def __init__(
        self,
        entries: Callable[[], Registry],
        queues: Queues,
        drop_queue: Callable[[str], object],
        standard: Registry | None = None,
    ) -> None:
        self._entries = entries
        self._queues = queues
        self._drop_queue = drop_queue
        self._standard = standard or {}
        self.epoch = secrets.token_hex(_EPOCH_CHARS // 2)
        """Begins every ident of this run, so that a proxy of an earlier one cannot meet another object by chance."""
        self._numbers = count(1)
        # Reentrant: a collector may run an object's own code, or a callable may ask its manager for another object.
        self._creating = threading.RLock()
        self._lock = threading.RLock()
        self._alive: weakref.WeakValueDictionary[str, Served] = weakref.WeakValueDictionary()
        self._by_object: weakref.WeakValueDictionary[tuple[int, str], Served] = weakref.WeakValueDictionary()
        self._held: dict[str, dict[str, tuple[Served, int]]] = {}
        self._lingering: deque[tuple[float, Served]] = deque()
        self._leased: weakref.WeakValueDictionary[int, LeasedQueue] = weakref.WeakValueDictionary()
        self._calls: dict[Caller, list[_Call]] = {}
        self._leasing: dict[Caller, set[LeasedQueue]] = {}
        self.holdings = Holdings()

    # -- references ------------------------------------------------------------------------------------------------

    def create(self, holder: str, typeid: str, args: tuple[Any, ...] = (), kwds: dict[str, Any] | None = None) -> Made:
        """Call what is registered under typeid and serve what it returns; the holder has one reference more.

        Callables run one at a time, as under the standard library: one that makes what it does not find makes it once.

        Args:
            holder: who has the reference; "" is this process, where a proxy made of the answer has it.

        Raises:
            UsageError: nothing of that name is offered; facts: offered.
            TaskFailed: the callable raised.
            UnsupportedFeature: what it returned cannot be served here.
        """
        self.sweep()
        entry = offered(self._entries(), typeid)
        kwds = kwds or {}
        with self._creating:
            return self._serve([make(entry, typeid, args, kwds)], entry, typeid, label(typeid, args, kwds), holder)

    def incref(self, ident: str, holder: str) -> None:
        """One more proxy of the holder. A queue with a name of its own needs no references.

        Raises:
            UnknownId, ServerUnavailable: see `find`.
        """
        with self._lock:
            if ident.startswith(QUEUE_PREFIX) and ident not in self._alive:
                return
            self._refer(self.find(ident), holder)

    def decref(self, ident: str, holder: str, *, lingers: bool = False) -> None:
        """One proxy of the holder less. Too many are ignored: a holder that was forgotten may still say goodbye.

        Args:
            lingers: it was handed on, so somebody else's reference may be under way.
        """
        with self._lock:
            held = self._held.get(holder, {})
            if ident not in held:
                return
            served, n = held.pop(ident)
            if n > 1:
                held[ident] = (served, n - 1)
            elif not held:
                del self._held[holder]
            if lingers:
                self.linger(served)
        del served  # outside the lock: if it was the last reference, the object's own code runs

    def methods(self, ident: str) -> tuple[str, ...]:
        """What a proxy of it may call. Raises as `find` does."""
        if ident.startswith(QUEUE_PREFIX):
            return QUEUE_METHODS
        return self.find(ident).exposed

    def holder_ended(self, holder: str) -> None:
        """The holder is gone, and its references with it."""
        with self._lock:
            held = self._held.pop(holder, {})
        del held  # outside the lock: if it was the last reference to something, that object's own code runs

    def linger(self, served: Served) -> None:
        """Keep it for LINGER_S, whoever lets go of it."""
        with self._lock:
            self._lingering.append((time.monotonic() + LINGER_S, served))

    def sweep(self) -> None:
        """Let go of what has lingered long enough."""
        over = []
        now = time.monotonic()
        with self._lock:
            while self._lingering and self._lingering[0][0] <= now:
                over.append(self._lingering.popleft())
        del over

    def restore(self) -> None:
        """Nobody elsewhere can call any more: queues with leases around them are ordinary ones again."""
        with self._lock:
            leased = list(self._leased.values())
        for each in leased:
            each.restore()

    def find(self, ident: str) -> Served:
        """What is served under an ident.

        Raises:
            UnknownId: nothing is any more: its last proxy is gone.
            ServerUnavailable: it was an earlier run of the master that served it.
        """
        served = self._alive.get(ident)
        if served is not None:
            return served
        epoch = ident.removeprefix(QUEUE_PREFIX).partition(".")[0]
        if not ident.startswith(QUEUE_PREFIX) and len(epoch) == _EPOCH_CHARS and epoch != self.epoch:
            raise ServerUnavailable(
                "The master was started anew, and the object behind this proxy ended with its earlier run; whether the last "
                "call was done is not known. Ask the manager for the object again."
            )
        raise UnknownId(
            f"The master serves nothing under {ident!r} any more: the last proxy of it is gone. Keep a proxy while others "
            f"are to use the object, or let the registered callable return the same object each time."
        )

    def is_counted(self, ident: str) -> bool:
        """Whether it lives as long as its references: everything but a queue that has a name of its own."""
        return not ident.startswith(QUEUE_PREFIX) or ident in self._alive

    def opened(self, served: Served) -> None:
        """A proxy in this process leads to it."""
        with self._lock:
            served.proxies += 1

    def closed(self, served: Served) -> None:
        """One proxy in this process less."""
        with self._lock:
            served.proxies -= 1

    def number_of_objects(self) -> int:
        """How many objects somebody refers to."""
        return len(self._referred())

    def debug_info(self) -> str:
        """One line for each object with its references, and one with what it is; as the standard library prints it."""
        lines = []
        for ident, (served, n) in sorted(self._referred().items()):
            shown = str(served.obj)[:75]
            lines.append(f"  {ident}:       refcount={n}\n    {shown}")
        return "\n".join(lines)

    def _referred(self) -> dict[str, tuple[Served, int]]:
        self.sweep()
        found: dict[str, tuple[Served, int]] = {}
        with self._lock:
            for served in list(self._alive.values()):
                n = served.proxies + sum(held[served.ident][1] for held in self._held.values() if served.ident in held)
                if n:
                    found[served.ident] = (served, n)
        return found

    # -- serving ---------------------------------------------------------------------------------------------------

    def _serve(self, made: list[Any], entry: Entry, typeid: str, name: str, holder: str) -> Made:
        """Serve what came in a list, so that nobody here keeps it alive."""
        if is_plain_queue(made[0]):
            return self._serve_queue(made, entry, typeid, name, holder)
        obj = made.pop()
        with self._lock:
            served = self._by_object.get((id(obj), typeid))
        if served is None:
            served = self._new(obj, entry, typeid)
        if holder:
            self._refer(served, holder)
        return Made(served.ident, _shown(served), "", served.shape, typeid, served=served)

    def _serve_queue(self, made: list[Any], entry: Entry, typeid: str, name: str, holder: str) -> Made:
        name, is_own = self._queues.adopt(made, typeid, name)
        ident, exposed = QUEUE_PREFIX + name, entry.exposed or QUEUE_METHODS
        if not is_own:
            return Made(ident, exposed, name, "", typeid, is_counted=False)
        served = Served(ident, typeid, None, exposed)
        weakref.finalize(served, self._drop_queue, name).atexit = False
        with self._lock:
            self._alive[ident] = served
        if holder:
            self._refer(served, holder)
        return Made(ident, exposed, name, "", typeid, served=served)

    def _new(self, obj: Any, entry: Entry, typeid: str) -> Served:
        if self._queues.is_durable:
            raise UnsupportedFeature(
                f"{typeid!r} returns a {type(obj).__name__}, an object in the master's memory, which a durable store cannot "
                f"keep; serve it with store='memory://', from a second manager beside the one with the store."
            )
        if is_leased_queue(obj):
            return self._add(Served(self._new_ident(), typeid, obj, entry.exposed or (), leasing=self._leases_around(obj)))
        shape = "" if entry.proxytype is not None or entry.exposed else shape_of(obj)
        container = self._standard.get(shape, _NOT_PLAIN)
        methods = dict(entry.method_to_typeid or container.method_to_typeid or {})
        exposed = entry.exposed or (*public_methods(obj), *(container.exposed or plain_operators(obj)))
        return self._add(Served(self._new_ident(), typeid, obj, tuple(dict.fromkeys((*exposed, *methods))), methods, shape))

    def _add(self, served: Served) -> Served:
        with self._lock:
            self._alive[served.ident] = served
            self._by_object[id(served.obj), served.typeid] = served
        return served

    def _new_ident(self) -> str:
        return f"{self.epoch}.{next(self._numbers):x}"

    def _leases_around(self, obj: Any) -> LeasedQueue:
        """One for each queue, whatever typeids lead to it."""
        with self._lock:
            leasing = self._leased.get(id(obj))
            if leasing is None:
                leasing = self._leased[id(obj)] = LeasedQueue(obj)
            return leasing

    def _refer(self, served: Served, holder: str) -> None:
        with self._lock:
            held = self._held.setdefault(holder, {})
            held[served.ident] = (served, held[served.ident][1] + 1 if served.ident in held else 1)

    # -- calls -----------------------------------------------------------------------------------------------------

    def call(
        self,
        caller: Caller,
        ident: str,
        method: str,
        args: tuple[Any, ...] = (),
        kwds: dict[str, Any] | None = None,
        *,
        holder: str = "",
        is_wanted: IsWanted | None = None,
    ) -> tuple[str, Any]:
        """Call a method of a served object in this thread; may wait as long as that method does.

        Args:
            caller: one thread of one peer. All its calls must come in one thread while it holds a lock (see callers.py).
            holder: who gets the reference when the answer is another served object.
            is_wanted: asked when a lock was acquired, and before a queue's call: whether anybody still waits for that; turns
                false before `withdraw` is called.

        Returns:
            ('#RETURN', value) · ('#ERROR', the exception that it raised) · ('#TRACEBACK', text: there is no such method or
            object) · ('#PROXY', (exposed, Token)): the value is served under a typeid of its own. The Token has no address;
            without a holder it is the `Made`, which keeps the object alive until a proxy does.
        """
        try:
            served = self.find(ident)
        except ManyhandsError as error:
            return TRACEBACK, f"{error}\n"
        return self.call_served(caller, served, method, args, kwds or {}, holder=holder, is_wanted=is_wanted)

    def call_served(
        self,
        caller: Caller,
        served: Served,
        method: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any],
        *,
        holder: str = "",
        is_wanted: IsWanted | None = None,
    ) -> tuple[str, Any]:
        """`call`, for an object that was found already."""
        obj = served.obj
        try:
            if method not in served.exposed:
                raise AttributeError(
                    f"method {method!r} of a {type(obj).__name__} is not exposed; exposed are: {', '.join(served.exposed)}"
                )
            function = None if served.leasing is not None else getattr(obj, method)
        except AttributeError:
            return _fall_back(obj, method, args, kwds)
        try:
            if function is None:
                assert served.leasing is not None
                value = self._call_leasing(caller, served.leasing, method, args, kwds, is_wanted)
            elif method in NOTED and is_lock(obj):
                value = self._call_lock(caller, obj, function, method, args, kwds, is_wanted)
            else:
                value = function(*args, **kwds)
        except Exception as error:
            return ERROR, error
        typeid = served.method_to_typeid.get(method)
        if typeid is None:
            return RETURN, value
        try:
            return PROXY, self._as_proxy(typeid, value, holder)
        except Exception:
            return TRACEBACK, traceback.format_exc()

    def _as_proxy(self, typeid: str, value: Any, holder: str) -> tuple[tuple[str, ...], Token | Made]:
        entries = self._entries()
        entry = entries.get(typeid) or self._standard.get(typeid)
        if entry is None:
            raise KeyError(f"method_to_typeid names {typeid!r}, which nobody has registered on the master")
        if entry.callable is not None:
            made = self.create(holder, typeid, (value,))
        else:
            made = self._serve([value], entry, typeid, typeid, holder)
        if not holder:
            return made.exposed, made
        return made.exposed, Token(typeid, None, made.ident)

    def _call_leasing(
        self,
        caller: Caller,
        leasing: LeasedQueue,
        method: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any],
        is_wanted: IsWanted | None,
    ) -> Any:
        with self._lock:
            self._leasing.setdefault(caller, set()).add(leasing)
        return leasing.call(caller, method, args, kwds, is_wanted=is_wanted)

    def _call_lock(
        self,
        caller: Caller,
        obj: Any,
        function: Callable[..., Any],
        method: str,
        args: tuple[Any, ...],
        kwds: dict[str, Any],
        is_wanted: IsWanted | None,
    ) -> Any:
        """Call a lock's method and note what the caller holds then; if nobody waits for it any more, give it back."""
        if self.holdings.is_forfeited(caller, obj, method):
            raise RuntimeError(
                "this lock was released when the connection of its holder had been away for too long, and another may have "
                "acquired it since; look at what it protects before you go on"
            )
        call = _Call()
        with self._lock:
            self._calls.setdefault(caller, []).append(call)
        is_over = False
        try:
            value = function(*args, **kwds)
            is_over = True
        finally:
            with self._lock:
                calls = self._calls[caller]
                calls.remove(call)
                if not calls:
                    del self._calls[caller]
                is_abandoned = call.is_abandoned or (is_wanted is not None and not is_wanted())
                if is_over and not is_abandoned:
                    self.holdings.note(caller, obj, method, value)
        if is_abandoned:
            self.holdings.release_obtained(caller, obj, method, value)
            # A caller that was taken for dead and comes back must not believe that it holds the lock.
            raise ServerUnavailable(
                f"{method}() ended after its caller had been away for too long or had given it up, so what it obtained was "
                "released at once; call it again."
            )
        return value

    # -- the end of a caller ---------------------------------------------------------------------------------------

    def withdraw(self, caller: Caller) -> None:
        """Nobody waits for the caller's running calls: what they obtain is given back at once. From any thread."""
        with self._lock:
            for call in self._calls.get(caller, ()):
                call.is_abandoned = True
            leasing = list(self._leasing.get(caller, ()))
        for each in leasing:
            each.withdraw(caller)

    def caller_ended(self, caller: Caller, *, is_lost: bool, may_return: bool = False) -> None:
        """The caller makes no more calls. Runs in the thread that made them, because a lock's owner is a thread.

        Args:
            is_lost: it did not end in good order: all its locks are released, its leased items go back. Else locks that
                another process can release are left to it, and leased items are done.
            may_return: it may make calls again later; until it is ended without this, what it forfeits is remembered.
        """
        with self._lock:
            leasing = self._leasing.pop(caller, set())
        for each in leasing:
            each.caller_ended(caller, is_lost=is_lost)
        self.holdings.release_all(caller, is_lost=is_lost, may_return=may_return)


class _Call:
    """A call of a lock's method that is under way."""

    __slots__ = ("is_abandoned",)

    def __init__(self) -> None:
        self.is_abandoned = False


def _shown(served: Served) -> tuple[str, ...]:
    """What an AutoProxy shows. Iteration over a container needs a proxy class that knows how."""
    if not served.shape:
        return served.exposed
    return tuple(name for name in served.exposed if name not in served.method_to_typeid)


def _fall_back(obj: Any, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> tuple[str, Any]:
    """The methods that are answered although they are not exposed; else where and why there is no such method."""
    text = traceback.format_exc()
    try:
        match method:
            case "__str__":
                return RETURN, str(obj, *args, **kwds)
            case "__repr__":
                return RETURN, repr(obj, *args, **kwds)
            case "#GETVALUE":
                return RETURN, obj
    except Exception:
        text = traceback.format_exc()
    return TRACEBACK, text
