"""Everything that runs in a serving master, from binding to shutdown.

    workers ──TCP──> SocketServer ──> Gate ──> engine <── the master's own Client <── proxies, rerouted queue objects
                                       │ Create
                                       v
                                    Objects ──> the program's callables ──> Offers: its queue.Queue objects

Stopping goes from the outside in: workers are told and their connections closed, the master's own session ends, the engine
closes, and only then do the program's queue objects get their own methods back, so that no thread of the program finds an
empty queue where the engine's was a moment ago.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.client.client import Client
from manyhands.engines.opening import open_engine
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import UnsupportedFeature
from manyhands.managers.gate import Gate
from manyhands.managers.missing import MasterQueueProxy
from manyhands.managers.objects import Made, Objects
from manyhands.managers.objects.callers import Callers
from manyhands.managers.objects.table import QUEUE_PREFIX
from manyhands.managers.offers import Offers
from manyhands.managers.proxies import QueueProxy
from manyhands.managers.registry import Registry
from manyhands.managers.responsiveness import QuickSwitching
from manyhands.managers.stock import StockGateway
from manyhands.model import Message
from manyhands.server.listener import SocketServer
from manyhands.settings import SHORT_BYTES

_log = logging.getLogger(__name__)

_OWN_SESSION = ""
"""Stands for the master itself among those who asked for a queue."""


class Master:
    """A bound master; it serves from start() or run() to stop().

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
    ) -> None:
        self._engine = open_engine(store)
        gate = Gate(self._engine, self._answer, self._unrefer, self._drop, self._end_session)
        self._offers = Offers(self._open, is_durable=self._engine.features.survives_restart, holds=self._holds)
        self.objects = Objects(entries, self._offers, gate.drop_later)
        self._callers = Callers(self.objects.holdings.holds)
        stock = StockGateway(self._engine, keyring, self.objects, self._callers, gate.run)
        try:
            # The drop-in listens where the program says, as the standard library does: its workers are on other machines.
            self._server = SocketServer(gate, host=host, port=port, keyring=keyring, is_insecure=True, meet_stock=stock.meet)
            address = self._server.address
            self._client = Client(self._engine, keyring, url=self._server.url, reopen=lambda: RemoteEngine(address, keyring))
        except BaseException:
            gate.close()
            raise
        self._gate = gate
        self._switching = None if switch_interval_s is None else QuickSwitching(switch_interval_s)
        if len(keyring.raw) < SHORT_BYTES and (not host or not Address(host, port).is_loopback):
            _log.info(
                "The authkey has only %d bytes and the master listens on the network at port %d: whoever guesses the key "
                "can run code here. Use 16 random characters or more.",
                len(keyring.raw),
                self.port,
            )

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
        """Tell every worker, close everything, put back what was changed. Idempotent."""
        self._server.stop("The master has shut down.")
        self._client.close()
        self._callers.stop()
        self._gate.close(closing_reason="The master has shut down.")
        self._offers.restore()
        self.objects.restore()
        if self._switching is not None:
            self._switching.end()

    def proxy(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> QueueProxy:
        """The queue that the callable of typeid stands for. Raises as `Offers.create` does."""
        made = _checked(self.objects.create(_OWN_SESSION, typeid, args, kwds), typeid)
        return MasterQueueProxy(self._client, made.queue, self.port, made.served)

    # -- for workers, in the gate's thread

    def _answer(self, session: str, typeid: str, arguments: Message | None) -> str:
        args, kwds = ((), {}) if arguments is None else self._client.open().codec.open_message(typeid, arguments)
        return _checked(self.objects.create(session, typeid, args, kwds), typeid).queue

    def _drop(self, name: str) -> None:
        self._offers.drop(name)

    def _unrefer(self, name: str, session: str) -> None:
        self.objects.decref(QUEUE_PREFIX + name, session)

    def _end_session(self, session: str) -> None:
        self.objects.holder_ended(session, is_lost=True)

    def _holds(self, name: str) -> bool:
        return any(stats.ready or stats.delayed or stats.leased for stats in self._client.stats(name).queues)

    def _open(self, name: str, maxsize: int) -> QueueProxy:
        """The engine's queue of that name and bound, as the program's own queue objects use it."""
        self._client.queue(name, maxsize)
        return MasterQueueProxy(self._client, name, self.port)


def _checked(made: Made, typeid: str) -> Made:
    if made.served is not None and not made.queue:
        raise UnsupportedFeature(
            f"{typeid!r} returns a {type(made.served.obj).__name__}, and this version of manyhands offers its own clients "
            f"queue.Queue objects only; put what the workers need to know into the items of a queue."
        )
    return made
