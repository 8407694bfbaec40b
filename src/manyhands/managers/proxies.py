"""What `manager.get_task_queue()` returns."""

from __future__ import annotations

import queue
import sys
from multiprocessing.context import get_spawning_popen
from typing import Any

from manyhands.client.client import Client
from manyhands.client.queue import Queue
from manyhands.managers import homes
from manyhands.managers.forgotten_import import supply_the_forgotten_name
from manyhands.managers.homes import Address, Home
from manyhands.managers.objects.table import QUEUE_PREFIX
from manyhands.managers.plain import narrowed
from manyhands.managers.references import Reference


class QueueProxy(Queue):
    """A queue of the master, with `queue.Queue`'s methods; everything that `manyhands.Queue` can do besides.

    It differs from `manyhands.Queue` in one kindness: a program that catches `Queue.Empty` without importing `Queue` is
    handed that name when it is needed (see `forgotten_import`).
    """

    def __init__(self, client: Client, name: str, home: Home | None = None, reference: Reference | None = None) -> None:
        """The queue of that name.

        Args:
            home: the master, as a pickled proxy finds it again; None for one that is never sent anywhere.
            reference: keeps a queue that was made for its callers alone.
        """
        super().__init__(client, name)
        self._home = home
        self._reference = reference

    def handed(self) -> None:
        """A proxy of it is pickled."""
        if self._reference is not None:
            self._reference.handed()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._home is None:
            return Queue.__reduce__(self)
        self.handed()
        authkey = self._home.authkey if get_spawning_popen() is not None else None
        return rebuild_queue, (self._home.address, QUEUE_PREFIX + self.name, authkey)

    def __deepcopy__(self, memo: object) -> QueueProxy:
        return self

    def _opened(self) -> None:
        if self._reference is not None:
            self._reference.renew()

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `manyhands.Queue.get`."""
        try:
            return Queue.get(self, block, timeout)
        except queue.Empty:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def get_nowait(self) -> Any:
        """See `manyhands.Queue.get_nowait`."""
        try:
            return Queue.get_nowait(self)
        except queue.Empty:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def put(self, item: Any, block: bool = True, timeout: float | None = None, **options: Any) -> None:
        """See `manyhands.Queue.put`."""
        try:
            Queue.put(self, item, block, timeout, **options)
        except queue.Full:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def put_nowait(self, item: Any) -> None:
        """See `manyhands.Queue.put_nowait`."""
        try:
            Queue.put_nowait(self, item)
        except queue.Full:
            supply_the_forgotten_name(sys._getframe(1))
            raise


class XmlQueueProxy(QueueProxy):
    """A queue's proxy of a manager with serializer='xmlrpclib'."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None, **options: Any) -> None:
        """See `manyhands.Queue.put`; raises also what XML-RPC cannot carry."""
        QueueProxy.put(self, narrowed(item), block, timeout, **options)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `manyhands.Queue.get`."""
        return narrowed(QueueProxy.get(self, block, timeout))


def rebuild_queue(address: Address, ident: str, authkey: bytes | None) -> QueueProxy:
    """A queue's proxy that arrived in pickled form."""
    proxy: QueueProxy = homes.find(address, authkey).queue(ident)
    return proxy
