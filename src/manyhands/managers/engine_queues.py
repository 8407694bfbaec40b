"""A manager whose queues live at an engine URL: in a server that others run, or in a store. No server of its own.

    QueueManager(address="tcp://jobs.example:5959", authkey=…)

    start()      each queue that a callable keeps moves there, under its typeid (and arguments); the object leads there
    connect()    a typeid is simply the queue of that name there; nobody is asked what it stands for

So everything must have a name that both sides can tell: a queue that is made anew for each call, an alias, and any object
but a plain queue.Queue raise UnsupportedFeature (docs/adr/0082-managers-at-an-engine-url.md).
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any, cast

from manyhands.address import SERVER_SCHEMES, scheme_of, without_password
from manyhands.client.connecting import connect
from manyhands.errors import ProtocolError, UnsupportedFeature, UsageError
from manyhands.events import Create
from manyhands.managers.objects.making import label, make
from manyhands.managers.objects.queue_kinds import is_plain_queue
from manyhands.managers.offers import Offers
from manyhands.managers.plain import XMLRPC
from manyhands.managers.proxies import QueueProxy, XmlQueueProxy
from manyhands.managers.registry import Entry, Registry

_log = logging.getLogger(__name__)

_REMEDY = "give the manager a (host, port) as address, where start() serves it"


def start_at(
    url: str,
    authkey: str | bytes | None,
    entries: Callable[[], Registry],
    serializer: str,
    initializer: Callable[..., object] | None,
    initargs: tuple[Any, ...],
) -> EngineQueues:
    """What `start()` does: the queues that this program's callables keep move there.

    Raises:
        UsageError: the URL, or the key for it, cannot be used; or it is a master's.
        UnsupportedFeature: a callable returns what cannot live there.
        TaskFailed: a callable raised.
        ServerUnavailable, AuthenticationFailed, EngineBusy, …: as `manyhands.connect` does.
    """
    queues = EngineQueues(url, authkey, entries, serializer)
    try:
        if queues.is_a_masters():
            raise UsageError(
                f"A master of manyhands.managers serves at {url} and offers what its own program has registered; connect() "
                "to it, or start `manyhands serve` for the queues of other programs."
            )
        if initializer is not None:
            initializer(*initargs)
        queues.place()
    except BaseException:
        queues.close()
        raise
    return queues


def connect_at(
    url: str, authkey: str | bytes | None, entries: Callable[[], Registry], serializer: str
) -> EngineQueues | None:
    """What `connect()` does; None if what answers there is a master, of either kind, and is to be talked to as one.

    Raises:
        UsageError: the URL, or the key for it, cannot be used.
        ServerUnavailable, AuthenticationFailed, EngineBusy, …: as `manyhands.connect` does.
    """
    if scheme_of(url) == "memory":
        raise UsageError(
            f"{url} is inside the process that starts it, where nobody can connect to it; use (host, port) or tcp://host:port."
        )
    try:
        queues = EngineQueues(url, authkey, entries, serializer)
    except ProtocolError as error:
        if getattr(error, "is_stock", False):
            return None
        raise
    if queues.is_a_masters():
        queues.close()
        return None
    return queues


class EngineQueues:
    """One process's queues at an engine URL.

    Args:
        entries: what the manager class has registered; read at each call.
    """

    def __init__(self, url: str, authkey: str | bytes | None, entries: Callable[[], Registry], serializer: str) -> None:
        self.url = without_password(url)
        self._entries = entries
        self._client = connect(url, authkey)
        self._offers = Offers(self._open, is_durable=True, holds=self._holds, remedy=_REMEDY)
        self._is_master = False
        self._proxytype = XmlQueueProxy if serializer == XMLRPC else QueueProxy

    def is_a_masters(self) -> bool:
        """Whether what answers there is a master with offers of its own, and no server."""
        if scheme_of(self.url) not in SERVER_SCHEMES:
            return False
        try:
            self._client.ask(Create, "", None)
        except UnsupportedFeature:
            return False
        except UsageError:
            return True
        return True

    def place(self) -> None:
        """Move the queues of this program there: those whose callables need no arguments now, the others when asked for."""
        self._is_master = True
        entries = [(typeid, entry) for typeid, entry in self._entries().items() if entry.callable and _needs_nothing(entry)]
        # All are looked at before the first one moves.
        for typeid, made in [(typeid, self._make(typeid, entry, (), {})) for typeid, entry in entries]:
            self._adopt(made, typeid, typeid)

    def proxy(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> QueueProxy:
        """The queue of that typeid and arguments.

        Raises:
            UnsupportedFeature: the typeid stands for what cannot live there.
        """
        entry = self._entries()[typeid]
        name = label(typeid, args, kwds)
        if self._is_master and entry.callable is not None:
            self._adopt(self._make(typeid, entry, args, kwds), typeid, name)
        elif _makes_objects(entry):
            raise self._unsupported(f"{typeid!r} makes objects of its own for every call")
        else:
            names = [stats.name for stats in self._client.stats().queues]
            if name not in names:
                _log.info(
                    "No queue is called %r at %s yet; there: %s. It is made when it is first used.",
                    name,
                    self.url,
                    ", ".join(sorted(names)) or "none",
                )
        return self._proxytype(self._client, name)

    def close(self) -> None:
        """Leave; what was moved there stays there, and the objects are ordinary, empty queues again. Idempotent."""
        self._client.close()
        self._offers.restore()

    def _make(self, typeid: str, entry: Entry, args: tuple[Any, ...], kwds: dict[str, Any]) -> list[Any]:
        """What the callable returns, in a list so that nobody here keeps it alive."""
        made = [make(entry, typeid, args, kwds)]
        if not is_plain_queue(made[0]):
            raise self._unsupported(f"{typeid!r} returns a {type(made[0]).__name__}")
        return made

    def _adopt(self, made: list[Any], typeid: str, wanted: str) -> None:
        name, _ = self._offers.adopt(made, typeid, wanted)
        if name != wanted:
            raise UnsupportedFeature(
                f"{wanted!r} returns a queue that {name!r} stands for already, or another one than before; at {self.url} a "
                f"queue is found by its one name: register it once, or {_REMEDY}."
            )

    def _unsupported(self, what: str) -> UnsupportedFeature:
        return UnsupportedFeature(
            f"{what}, and at {self.url} only plain queue.Queue objects can live, which one of the programs keeps; {_REMEDY}."
        )

    def _open(self, name: str, maxsize: int) -> QueueProxy:
        self._client.queue(name, maxsize)
        return self._proxytype(self._client, name)

    def _holds(self, name: str) -> bool:
        return any(stats.ready or stats.delayed or stats.leased for stats in self._client.stats(name).queues)


def _makes_objects(entry: Entry) -> bool:
    """Whether it stands for no queue, or for a new one at every call: a class, or something with a proxy of its own."""
    return entry.proxytype is not None or isinstance(entry.callable, type)


def _needs_nothing(entry: Entry) -> bool:
    """Whether it keeps a queue, as far as can be told, and needs no arguments to return it."""
    if _makes_objects(entry):
        return False
    try:
        inspect.signature(cast("Callable[..., Any]", entry.callable)).bind()
    except (TypeError, ValueError):
        return False
    return True
