"""Everything that runs in a serving master, from binding to shutdown.

    workers ──TCP──> SocketServer ──> Gate ──> engine <── the master's own Client <── proxies, rerouted queue objects
                                       │ Create
                                       v
                                    Objects ──> the program's callables ──> Offers: its queue.Queue objects

A proxy in the master itself calls its object in its own thread, without any of these.

Stopping goes from the outside in: workers are told and their connections closed, the master's own session ends, the engine
closes, and only then do the program's queue objects get their own methods back, so that no thread of the program finds an
empty queue where the engine's was a moment ago.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.client.client import Client
from manyhands.codec import Codec
from manyhands.engines.opening import open_engine
from manyhands.engines.remote import RemoteEngine
from manyhands.managers import homes
from manyhands.managers.answering import TABLE, Answering
from manyhands.managers.errands import Errands
from manyhands.managers.gate import Gate
from manyhands.managers.link import Link
from manyhands.managers.missing import MasterQueueProxy
from manyhands.managers.objects.callers import Callers
from manyhands.managers.objects.table import QUEUE_PREFIX, Made, Objects
from manyhands.managers.offers import Offers
from manyhands.managers.plain import PICKLE, XMLRPC
from manyhands.managers.proxies import QueueProxy, XmlQueueProxy
from manyhands.managers.references import LocalReference, Reference, RemoteReference, copied
from manyhands.managers.registry import Registry
from manyhands.managers.responsiveness import QuickSwitching
from manyhands.managers.standard_proxies import STANDARD
from manyhands.managers.stock import StockGateway
from manyhands.server.listener import SocketServer
from manyhands.settings import SHORT_BYTES

_log = logging.getLogger(__name__)

_OWN_SESSION = ""
"""Stands for the master itself among those who asked for a queue."""


class Master:
    """A bound master; it serves from start() or run() to stop(). The Home of proxies in its process.

    Raises:
        AddressInUse: another program has the port.
        EngineBusy, EngineCorrupt: the store cannot be opened.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        keyring: Keyring,
        store: str,
        entries: Callable[[], Registry],
        switch_interval_s: float | None,
        serializer: str = PICKLE,
    ) -> None:
        self._host = host
        self._serializer = serializer
        self._pid = os.getpid()
        self._is_over = False
        self.authkey = keyring.raw
        self._engine = engine = open_engine(store)
        self._errands = Errands()
        self._offers = Offers(self._open, is_durable=engine.features.survives_restart, holds=self._holds)
        self.objects = Objects(entries, self._offers, self._drop_later, STANDARD)
        codec = Codec([(key.id, key.body) for key in keyring])
        self._callers = callers = Callers(self.objects.holdings.holds)
        self._gate = gate = Gate(engine, Answering(self.objects, codec), callers, self._errands)
        stock = StockGateway(engine, keyring, self.objects, callers, self._errands.put)
        try:
            # The drop-in listens where the program says, as the standard library does: its workers are on other machines.
            self._server = SocketServer(gate, host=host, port=port, keyring=keyring, is_insecure=True, meet_stock=stock.meet)
            address = self._server.address
            self._client = Client(engine, keyring, url=self._server.url, reopen=lambda: RemoteEngine(address, keyring))
        except BaseException:
            gate.close()
            raise
        self.link = Link(self._client)
        homes.add(self, keyring)
        self._switching = None if switch_interval_s is None else QuickSwitching(switch_interval_s)
        if len(keyring.raw) < SHORT_BYTES and (not host or not Address(host, port).is_loopback):
            _log.info(
                "The authkey has only %d bytes and the master listens on the network at port %d: whoever guesses the key "
                "can run code here. Use 16 random characters or more.",
                len(keyring.raw),
                self.port,
            )

    is_master = True
    """Whether proxies in this process find their objects here rather than over a connection to it."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self._server.address.port

    def start(self) -> None:
        """Serve from a thread."""
        if self._switching is not None:
            self._switching.begin()
        self._server.start()

    def run(self) -> None:
        """Serve in this thread, until a signal or stop()."""
        self._server.run()

    def stop(self) -> None:
        """Tell every worker, close everything, put back what was changed. Idempotent; does nothing in a forked child."""
        if os.getpid() != self._pid:
            return
        self._is_over = True
        homes.remove(self)
        self._server.stop("The master has shut down.")
        self.link.close()
        self._gate.close(closing_reason="The master has shut down.")
        self._offers.restore()
        self.objects.restore()
        if self._switching is not None:
            self._switching.end()

    # -- as proxies need it (homes.Home); in a forked child all of it is elsewhere, and asked for over the network

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return (self._host or "0.0.0.0", self.port)

    @property
    def is_open(self) -> bool:
        return not self._is_over

    def create(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Made:
        """What the callable of typeid makes, for a proxy in this process. Raises as `Objects.create` does."""
        if self._is_elsewhere:
            return self.link.create(typeid, args, kwds)
        return self.objects.create(_OWN_SESSION, typeid, copied(args), copied(kwds))

    def reference(self, made: Made | str) -> Reference:
        """See `homes.Home`."""
        if self._is_elsewhere:
            is_counted = isinstance(made, Made)
            return RemoteReference(self.link, made if isinstance(made, str) else made.ident, is_counted=is_counted)
        served = made.served if isinstance(made, Made) else None
        if served is None:
            served = self.objects.find(made if isinstance(made, str) else made.ident)
        return LocalReference(self.objects, served, self.link, lambda: self._is_over)

    def queue(self, made: Made | str) -> QueueProxy:
        """See `homes.Home`."""
        ident = made if isinstance(made, str) else made.ident
        name = ident.removeprefix(QUEUE_PREFIX)
        reference = self.reference(made) if self._is_elsewhere or self.objects.is_counted(ident) else None
        if self._serializer == XMLRPC:
            return XmlQueueProxy(self._client, name, self, reference)
        if self._is_elsewhere:
            return QueueProxy(self._client, name, self, reference)
        return MasterQueueProxy(self._client, name, self.port, self, reference)

    def methods(self, ident: str) -> tuple[str, ...]:
        """See `homes.Home`."""
        return tuple(self.ask_table("get_methods", ident))

    def ask_table(self, what: str, *args: Any) -> Any:
        """What the table of objects says of itself: number_of_objects, debug_info, get_methods."""
        if self._is_elsewhere:
            return self.link.invoke(TABLE, what, args)[1]
        asked: dict[str, Callable[..., Any]] = {
            "number_of_objects": self.objects.number_of_objects,
            "debug_info": self.objects.debug_info,
            "get_methods": self.objects.methods,
        }
        return asked[what](*args)

    @property
    def _is_elsewhere(self) -> bool:
        return os.getpid() != self._pid

    # -- inside

    def _drop_later(self, name: str) -> None:
        # A collector may call this, in any thread and inside any lock.
        self._errands.put(lambda: self._offers.drop(name))

    def _holds(self, name: str) -> bool:
        return any(stats.ready or stats.delayed or stats.leased for stats in self._client.stats(name).queues)

    def _open(self, name: str, maxsize: int) -> QueueProxy:
        """The engine's queue of that name and bound, as the program's own queue objects use it."""
        self._client.queue(name, maxsize)
        return MasterQueueProxy(self._client, name, self.port)
