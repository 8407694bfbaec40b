"""What one standard-library thread holds at the engine, and what its calls on queues become there. Pure.

Each thread of a standard-library program has one connection, asks one thing at a time and sends no acknowledgements, so its
calls say when it is done with what it got:

    get ──> held ──┬── its next get on that queue ─┐
                   ├── its next put, once stored ──┼──> acknowledged
                   ├── task_done on that queue ────┘
                   ├── the end, after the proxies were let go (hosts.py) ──> acknowledged
                   └── any other end ──> the engine is told that the consumer is lost, and the message goes back

A call that arrives while another one waits says that the waiting one was interrupted (Ctrl-C in a get): that one is
withdrawn and never answered, so that the new call gets its own answer and not the old one's.

An engine in this process is asked by its short ways (`LocalPort.put_nearby`, `get_nearby`) first. What a put acknowledges
leaves there with the next get, which acks and takes in one step; it is done in any case, however the connection ends.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable
from typing import Any

from manyhands.codec.stock import Unknown
from manyhands.engines.base import LocalPort
from manyhands.errors import ShutDown, from_code
from manyhands.events import (
    FOREVER,
    Count,
    Failed,
    Granted,
    Join,
    Lease,
    Put,
    QueueInfo,
    Reply,
    Request,
    Settle,
    Size,
    TaskDone,
    Withdraw,
)
from manyhands.events import ShutDown as ShutDownRequest
from manyhands.managers.stock.answers import ERROR, NOTHING, RETURN, TRACEBACK, Answer, Call, Item
from manyhands.model import Delivery, Message, QueueStats, SettleKind, Settlement

EXPOSED = ("empty", "full", "get", "get_nowait", "join", "put", "put_nowait", "qsize", "shutdown", "task_done")
"""What a standard-library proxy of a queue shows: queue.Queue's methods."""

_SIZES: dict[str, Callable[[int, QueueStats], Any]] = {
    "qsize": lambda n, stats: n,
    "empty": lambda n, stats: n == 0,
    "full": lambda n, stats: 0 < stats.maxsize <= n,
}


class NeedsWhole(Exception):
    """An argument is no plain data: rebuild the call's objects and try again."""


class _Waiting:
    """The one request whose answer decides the peer's reply."""

    __slots__ = ("is_abandoned", "method", "queue", "rid")

    def __init__(self, rid: int, queue_name: str, method: str) -> None:
        self.rid = rid
        self.queue = queue_name
        self.method = method
        self.is_abandoned = False


class StockConsumer:
    """See the module's text. Requests gather in `outbox`; the shell sends them, in order, after every call.

    Args:
        seal: makes the message that a put call carries, for a queue.
    """

    def __init__(self, seal: Callable[[str, Call], Message]) -> None:
        self.outbox: list[Request] = []
        self.near: LocalPort | None = None
        """The session's end at an engine of this process."""
        self.is_ending = False
        """Whether the master shuts down: from then on there is nothing more to get."""
        self._seal = seal
        self._held: dict[str, list[Delivery]] = {}
        self._done: dict[str, list[Delivery]] = {}
        """Acknowledged, and the engine not told yet."""
        self._rid = 0
        self._wait_s = 0.0
        self._waiting: _Waiting | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a call has no answer yet."""
        return self._waiting is not None

    @property
    def holds(self) -> bool:
        """Whether anything that it got is not settled."""
        return bool(self._held)

    # -- calls

    def call(self, name: str, call: Call) -> Answer | Item | None:
        """A call on the queue of that name; its answer, or None while the engine is asked.

        Raises:
            NeedsWhole: see there.
            TypeError, ValueError: the arguments do not fit, as queue.Queue says it.
            ManyhandsError: the item cannot be stored.
        """
        method = call.method
        if method in ("get", "get_nowait"):
            return self._get(name, get_wait_s(call))
        if method in ("put", "put_nowait"):
            wait_s = put_wait_s(call)
            message = self._seal(name, call)
            if self.near is not None and self.near.put_nearby(name, message, 0):
                self._acknowledge_all()
                return NOTHING
            self._ask(name, "put", lambda rid: Put(rid, name, 0, 0, [message], wait_s))
        elif method in _SIZES:
            _no_arguments(call)
            self._ask(name, method, lambda rid: Size(rid, name))
        elif method == "task_done":
            _no_arguments(call)
            self._task_done(name)
        elif method == "join":
            _no_arguments(call)
            self._ask(name, "join", lambda rid: Join(rid, name, FOREVER))
        elif method == "shutdown":
            immediate = bool(_bound(call, ("immediate",), (False,))[0])
            self._ask(name, "shutdown", lambda rid: ShutDownRequest(rid, name, immediate))
        elif method in ("__repr__", "__str__"):
            return Answer(RETURN, f"<the queue {name!r} of a manyhands master>")
        else:
            return Answer(TRACEBACK, f"{method!r} is no method of a queue; it has {', '.join(EXPOSED)}.\n")
        return None

    def _get(self, name: str, wait_s: float) -> Answer | Item | None:
        self._wait_s = wait_s
        if name in self._held:
            self._done[name] = [*self._done.get(name, ()), *self._held.pop(name)]
        if self.is_ending:
            self._tell_done()
            return Answer(ERROR, queue.Empty())
        if self.near is not None:
            done = self._done.get(name, ())
            delivery = self.near.get_nearby(name, done[0].token if done else 0, False) if len(done) < 2 else None
            if delivery is not None:
                self._done.pop(name, None)
                self._held[name] = [delivery]
                return Item(name, delivery)
        self._ask(name, "get", lambda rid: Lease(rid, name, 1, 1, wait_s))
        return None

    def _task_done(self, name: str) -> None:
        held = self._held.get(name)
        if not held:
            self._ask(name, "task_done", lambda rid: TaskDone(rid, 0, 0, name))
            return
        token = held.pop(0).token
        if not held:
            del self._held[name]
        self._ask(name, "task_done", lambda rid: Settle(rid, 0, 0, [Settlement(token, is_task_done=True)]))

    def _ask(self, name: str, method: str, make: Callable[[int], Request]) -> None:
        self._tell_done()
        self._rid += 1
        self._waiting = _Waiting(self._rid, name, method)
        self.outbox.append(make(self._rid))

    def _settle(self, deliveries: Any, kind: SettleKind = SettleKind.ACK, reason: str = "") -> None:
        settlements = [Settlement(delivery.token, kind, reason=reason) for delivery in deliveries]
        if settlements:
            self._rid += 1
            self.outbox.append(Settle(-self._rid, 0, 0, settlements))  # nobody waits for the answer

    # -- the engine's answers

    def on_reply(self, reply: Reply) -> Answer | Item | None:
        """An answer or unasked event of the engine; what to tell the peer, if anything."""
        waiting = self._waiting
        if waiting is None or getattr(reply, "rid", 0) != waiting.rid:
            return None
        self._waiting = None
        if isinstance(reply, Granted):
            return self._granted(waiting, reply.deliveries)
        if waiting.is_abandoned:
            return None
        if isinstance(reply, Failed):
            return Answer(ERROR, _error(waiting.method, reply))
        if isinstance(reply, QueueInfo):
            stats = reply.stats
            return Answer(RETURN, _SIZES[waiting.method](stats.ready + stats.delayed + stats.unbegun, stats))
        if isinstance(reply, Count) and reply.n:  # join: an item came between
            name = waiting.queue
            self._ask(name, "join", lambda rid: Join(rid, name, FOREVER))
            return None
        if waiting.method == "put":
            # Only now: had the peer been killed while it waited for room, what it works on must come again.
            self._acknowledge_all()
            self._tell_done()
        return NOTHING

    def _granted(self, waiting: _Waiting, deliveries: list[Delivery]) -> Answer | Item | None:
        if waiting.is_abandoned:
            self._settle(deliveries, SettleKind.RELEASE)
            return None
        if not deliveries:
            return Answer(ERROR, queue.Empty())
        delivery = deliveries[0]
        self._held.setdefault(waiting.queue, []).append(delivery)
        return Item(waiting.queue, delivery)

    # -- trouble and the end

    def undeliverable(self, item: Item, kind: SettleKind, reason: str) -> None:
        """What a get was given cannot be told to this peer."""
        held = self._held[item.queue]
        held.remove(item.delivery)
        if not held:
            del self._held[item.queue]
        self._settle([item.delivery], kind, reason)

    def get_again(self, item: Item) -> None:
        """Wait for another one in its place."""
        self._ask(item.queue, "get", lambda rid: Lease(rid, item.queue, 1, 1, self._wait_s))

    def abandon(self) -> None:
        """The peer has given up what it was waiting for."""
        if self._waiting is not None and not self._waiting.is_abandoned:
            self._waiting.is_abandoned = True
            self.outbox.append(Withdraw(self._waiting.rid))

    def end_soon(self) -> None:
        """The master shuts down: a waiting get, and every later one, finds nothing."""
        self.is_ending = True
        if self._waiting is not None and self._waiting.method == "get":
            self.outbox.append(Withdraw(self._waiting.rid))

    def unread(self, replies: list[Reply]) -> None:
        """The peer is gone, and these answers never left for it: what they grant is given back, charged nothing."""
        for reply in replies:
            if isinstance(reply, Granted):
                self._settle(reply.deliveries, SettleKind.RELEASE)

    def end(self, *, is_orderly: bool) -> None:
        """The peer makes no more calls.

        Args:
            is_orderly: it is done with what it got; else the engine hears, in another way, that it is lost.
        """
        if is_orderly:
            self._acknowledge_all()
        self._tell_done()

    def _acknowledge_all(self) -> None:
        if self._held:
            for name, held in self._held.items():
                self._done[name] = [*self._done.get(name, ()), *held]
            self._held = {}

    def _tell_done(self) -> None:
        if self._done:
            self._settle(delivery for done in self._done.values() for delivery in done)
            self._done = {}


# -- arguments, as queue.Queue takes them -------------------------------------------------------------------------------


def get_wait_s(call: Call) -> float:
    """How long a get waits, as an engine takes it. Raises as `StockConsumer.call`."""
    if call.method == "get_nowait":
        _no_arguments(call)
        return 0.0
    if not call.args and not call.kwds:
        return FOREVER
    block, timeout = _bound(call, ("block", "timeout"), (True, None))
    return _wait_s(block, timeout)


def put_wait_s(call: Call) -> float:
    """How long a put waits, as an engine takes it. Raises as `StockConsumer.call`."""
    if call.method == "put_nowait":
        _bound(call, ("item",), ())
        return 0.0
    if len(call.args) == 1 and not call.kwds:
        return FOREVER
    _, block, timeout = _bound(call, ("item", "block", "timeout"), (True, None))
    return _wait_s(block, timeout)


def _wait_s(block: Any, timeout: Any) -> float:
    if block is Unknown or timeout is Unknown:
        raise NeedsWhole
    if not block:
        return 0.0
    if timeout is None:
        return FOREVER
    timeout = float(timeout)
    if timeout < 0 or math.isnan(timeout):
        raise ValueError("'timeout' must be a non-negative number")
    return FOREVER if math.isinf(timeout) else timeout


def _bound(call: Call, names: tuple[str, ...], defaults: tuple[Any, ...]) -> list[Any]:
    """The arguments in the order of their names. Raises TypeError as a Python function does."""
    args, kwds = call.args, call.kwds
    if len(args) > len(names):
        raise TypeError(f"{call.method}() takes {len(names)} arguments but {len(args)} were given")
    unknown = kwds.keys() - set(names[len(args) :])
    if unknown:
        raise TypeError(f"{call.method}() got an unexpected keyword argument or a second value for it: {sorted(unknown)}")
    n_required = len(names) - len(defaults)
    bound = list(args)
    for at in range(len(args), len(names)):
        if names[at] in kwds:
            bound.append(kwds[names[at]])
        elif at >= n_required:
            bound.append(defaults[at - n_required])
        else:
            raise TypeError(f"{call.method}() missing 1 required positional argument: {names[at]!r}")
    return bound


def _no_arguments(call: Call) -> None:
    _bound(call, (), ())


def _error(method: str, reply: Failed) -> Exception:
    if reply.code == "shut_down":
        return ShutDown(method)
    if reply.code == "too_many_task_done":
        return ValueError("task_done() called too many times")
    if reply.code in ("full", "empty"):
        return queue.Full() if reply.code == "full" else queue.Empty()
    return from_code(reply.code, reply.text, reply.facts)
