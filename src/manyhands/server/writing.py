"""When what gathered for the peers is written: at once, with the next turn of the loop, or after a while.

```
 in the loop's thread   one read ── bring ──> engine ──> sinks ──> dirty ──┬─ nothing else came in this turn: written now
                                                                           └─ else one flush for all, with the next turn
 in any other thread    sinks ──> written there, or left for the loop (Mailbox)
 nobody waits for it    ──> LEISURE_S later, unless something takes it along
```
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from threading import get_ident
from typing import Protocol

from manyhands._bridge import Mailbox
from manyhands._turns import SharedLoop
from manyhands.engines.base import Port
from manyhands.events import Request
from manyhands.server.peers import Peer

logger = logging.getLogger(__name__)

LEISURE_S = 0.01
"""How long an answer that nobody waits for may wait for company: one write and one wake-up less for each task."""


class Patient(Protocol):
    """Who has answers that nobody waits for."""

    def flush_late(self) -> None: ...


class Writing:
    """One server's; made in the thread that runs its loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: SharedLoop | None) -> None:
        """Begin with nothing to write.

        Args:
            turns: by which threads the loop is run in turn; None: always by this one.
        """
        self._loop = loop
        self._turns = turns
        self._own_ident = get_ident()
        self._dirty: list[Peer] = []
        self._is_bringing = False
        """Whether the loop's thread is inside `bring`, which sees to what becomes dirty meanwhile."""
        self._is_flush_due = False
        self._marked = Mailbox(loop, self._flush_all)
        self._unhurried = Mailbox(loop, self._flush_unhurried)

    def is_elsewhere(self) -> bool:
        """Whether the calling thread is not the one that runs the loop now."""
        return get_ident() != (self._own_ident if self._turns is None else self._turns.runner)

    def flush_soon(self, connection: Peer) -> None:
        """Its outbox has something; from any thread. One flush a turn for all of them."""
        if self.is_elsewhere():
            if not connection.write_through():
                self._marked.post(connection)
            return
        self._dirty.append(connection)
        if not self._is_bringing:
            self._flush_next_turn()

    def bring(self, port: Port, requests: Sequence[Request]) -> None:
        """Hand the engine what one read brought, and write what came of it.

        At once, where no other socket had anything: another turn of the loop costs as much as the write (ADR 0104).
        Else with the next turn, so that who is answered several times in this one gets a single write.
        """
        self._is_bringing = True
        try:
            port.send(requests)
        finally:
            self._is_bringing = False
            if self._dirty:
                if self._turns is not None and self._turns.selector.found_n == 1:
                    self._flush_dirty()
                else:
                    self._flush_next_turn()

    def flush_late(self, connection: Patient) -> None:
        """Its outbox has only answers that nobody waits for; from any thread."""
        if not self.is_elsewhere():
            self._loop.call_later(LEISURE_S, connection.flush_late)
        else:
            self._unhurried.post(connection)

    def _flush_next_turn(self) -> None:
        if not self._is_flush_due:
            self._is_flush_due = True
            self._loop.call_soon(self._flush_dirty)

    def _flush_dirty(self) -> None:
        self._is_flush_due = False
        dirty, self._dirty = self._dirty, []
        self._flush_all(dirty)

    @staticmethod
    def _flush_all(connections: list[Peer]) -> None:
        for connection in connections:
            try:
                connection.flush()
            except Exception:  # one that cannot be written to must not keep the others from their answers
                logger.exception("Dropped %s: a bug in the server", connection.peer)
                connection.abort()

    def _flush_unhurried(self, connections: list[Patient]) -> None:
        for connection in connections:
            self._loop.call_later(LEISURE_S, connection.flush_late)
