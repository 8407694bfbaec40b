"""What a master that waits for results is told: who is not there, and where its tasks are.

The standard library's `result.get(timeout=10)` ends in an Empty without a word, ten seconds after a master whose workers
were never started. Here a wait says in the log after PATIENCE_S that nobody is connected, and an Empty that ends a wait of
LONG_S or more carries the same in its text.
"""

from __future__ import annotations

import logging
import queue
import time
from typing import Any

from manyhands.client.client import Client
from manyhands.errors import ManyhandsError
from manyhands.events import StatsReply
from manyhands.managers.homes import Home
from manyhands.managers.proxies import QueueProxy
from manyhands.managers.references import Reference
from manyhands.model import public_id

_log = logging.getLogger(__name__)

PATIENCE_S = 5.0
LONG_S = 1.0


class MasterQueueProxy(QueueProxy):
    """A queue's proxy in the master itself."""

    def __init__(
        self, client: Client, name: str, port: int, home: Home | None = None, reference: Reference | None = None
    ) -> None:
        """The queue of that name.

        Args:
            port: where workers connect, for sentences.
            home, reference: see QueueProxy.
        """
        super().__init__(client, name, home, reference)
        self._port = port

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `manyhands.Queue.get`."""
        if not block or (timeout is not None and timeout < LONG_S):
            return QueueProxy.get(self, block, timeout)
        until = None if timeout is None else time.monotonic() + timeout
        if timeout is None or timeout > PATIENCE_S:
            try:
                return QueueProxy.get(self, True, PATIENCE_S)
            except queue.Empty as error:
                if isinstance(error, ManyhandsError):
                    raise
            self._say_who_is_missing("get")
        try:
            return QueueProxy.get(self, True, None if until is None else max(0.0, until - time.monotonic()))
        except queue.Empty as error:
            if isinstance(error, ManyhandsError):
                raise
            why = missing(self._client.stats(), self._own_id(), self._port)
            raise queue.Empty(f"nothing came on {self.name!r} within {timeout} s: {why}") from None

    def put(self, item: Any, block: bool = True, timeout: float | None = None, **options: Any) -> None:
        """See `manyhands.Queue.put`."""
        if not block or (timeout is not None and timeout <= PATIENCE_S):
            QueueProxy.put(self, item, block, timeout, **options)
            return
        try:
            QueueProxy.put(self, item, True, PATIENCE_S, **options)
        except queue.Full:
            self._say_who_is_missing("put")
            QueueProxy.put(self, item, True, None if timeout is None else timeout - PATIENCE_S, **options)

    def _say_who_is_missing(self, what: str) -> None:
        reply, own_id = self._client.stats(), self._own_id()
        if not workers(reply, own_id):
            why = missing(reply, own_id, self._port)
            _log.warning("%s() on %r has waited for %.0f s: %s", what, self.name, PATIENCE_S, why)

    def _own_id(self) -> str:
        return public_id(self._client.open().id)


def workers(reply: StatsReply, own_id: str) -> int:
    """How many others are connected."""
    return sum(each.is_connected and each.id != own_id for each in reply.sessions)


def missing(reply: StatsReply, own_id: str, port: int) -> str:
    """What a wait for results waits for.

    Args:
        own_id: the master's session as others see it.
    """
    n = workers(reply, own_id)
    queued = [f"{each.ready + each.delayed} in {each.name!r}" for each in reply.queues if each.ready + each.delayed]
    waiting = f" (waiting for one: {', '.join(queued)})" if queued else ""
    if not n:
        return f"no worker is connected{waiting}; start one that connects to port {port} of this machine"
    in_hand = sum(each.leased - each.unbegun for each in reply.queues)
    return f"{n} {'workers are' if n > 1 else 'worker is'} connected, with {in_hand} items in hand{waiting}"
