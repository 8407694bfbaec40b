"""A session at a store that this process has open itself: the engine's threads on one side, the loop on the other.

    loop ── send ──> Port of the engine ── its own thread ──> sink ── Mailbox, one wake-up for all that gathered ──> loop

No call has a thread of its own: only opening and closing, which may take a network or a disk, run in a
thread beside the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence

from manyhands._bridge import Mailbox
from manyhands.engines.base import Engine, Port
from manyhands.engines.opening import open_engine
from manyhands.errors import ServerUnavailable
from manyhands.events import Attach, Attached, Reply, Request


class StoreConnection:
    """What `Connection` is for a server."""

    def __init__(
        self,
        url: str,
        session: str,
        name: str,
        sink: Callable[[Sequence[Reply]], None],
        on_gone: Callable[[Exception], None],
    ) -> None:
        """Make one without opening the store.

        Args:
            on_gone: called once, should the session be over for the engine; nothing comes after it.
        """
        self._url = url
        self._attach = Attach(session, name, is_here=True)
        self._sink = sink
        self._on_gone = on_gone
        self._mailbox: Mailbox[Sequence[Reply]] = Mailbox(asyncio.get_running_loop(), self._take)
        self._lock = threading.Lock()
        self._engine: Engine | None = None
        self._port: Port | None = None
        self._is_ended = False

    @property
    def attached(self) -> Attached | None:
        """What the engine last said of itself."""
        return self._port.attached if self._port is not None else None

    async def open(self, timeout_s: float) -> None:
        """Open the store and attach. A wait that is cancelled leaves nothing open.

        Raises:
            UsageError: the URL cannot be used; the sentence says why.
            EngineBusy, EngineCorrupt, EngineUnavailable, AuthenticationFailed: as its engine does.
        """
        try:
            await asyncio.to_thread(self._open, timeout_s)
        except asyncio.CancelledError:
            with self._lock:  # the thread is on its way: what it opens from here on it closes
                self._is_ended = True
                engine = self._engine
            if engine is not None:
                engine.close()
            raise

    def _open(self, timeout_s: float) -> None:
        engine = open_engine(self._url, timeout_s=timeout_s)
        try:
            port = engine.attach(self._attach, self._mailbox.post)
            with self._lock:
                if not self._is_ended:
                    self._engine, self._port = engine, port
                    return
        except BaseException:
            engine.close()
            raise
        engine.close()

    def send(self, requests: Sequence[Request]) -> None:
        """Hand requests over; never waits for an answer.

        Raises:
            ServerUnavailable: closed for good.
        """
        if self._is_ended or self._port is None:
            raise ServerUnavailable("This session was closed in this program; connect again to go on.")
        try:
            self._port.send(requests)
        except ServerUnavailable as error:
            self._on_gone(error)

    async def close(self, *, goodbye: bool) -> None:
        """End the session, with a goodbye for good, and close the store. Idempotent."""
        if self._is_ended:
            return
        self._is_ended = True
        await asyncio.shield(asyncio.to_thread(self._close, goodbye))

    def _close(self, goodbye: bool) -> None:
        if self._port is not None and self._engine is not None:
            self._port.detach(goodbye=goodbye)
            self._engine.close()

    def _take(self, batches: list[Sequence[Reply]]) -> None:
        for replies in batches:
            self._sink(replies)
