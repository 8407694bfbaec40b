"""The engine as callers see it: opening, attaching, closing. What happens to requests is in program.py and owner.py."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any

from manyhands._bridge import new_loop
from manyhands._resuming import ResumingEngine
from manyhands.engines.base import Sink
from manyhands.engines.nats.driver import Unreachable, as_engine_error
from manyhands.engines.nats.port import Attaching, NatsPort
from manyhands.engines.nats.program import Program
from manyhands.engines.nats.where import parse
from manyhands.events import Attach
from manyhands.model import Durability, Features, Limits

_log = logging.getLogger(__name__)

_CLOSE_S = 15.0


class NatsEngine(ResumingEngine):
    """Queues in a JetStream stream that many programs share; one of them at a time is its owner (ADR 0091).

    Args:
        url: see `where.Where`.
        limits: hold in the space from when this program becomes its owner, and are kept there; without them, what is kept.

    Raises:
        UsageError: the URL cannot be read, or the server is one that would lose messages; the sentence says why.
        EngineUnavailable: nobody answered within connect_timeout_s.
        AuthenticationFailed: it does not let us in.
    """

    name = "nats"

    def __init__(self, url: str, *, limits: Limits | None = None, connect_timeout_s: float = 10.0) -> None:
        where = parse(url)
        super().__init__(where.text, connect_timeout_s)
        self._loop = new_loop()
        self._program = Program(where, limits, self._loop)
        self._thread = threading.Thread(target=self._run, name="manyhands-nats", daemon=True)
        self._thread.start()
        try:
            self._do(self._program.start(connect_timeout_s))
        except BaseException:
            self._stop("")
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        # Tasks of nats-py fail with their connection, and nobody retrieves that.
        self._loop.set_exception_handler(lambda _, context: _log.debug("in the loop: %s", context))
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _do(self, what: Coroutine[Any, Any, None], timeout_s: float | None = None) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(timeout_s)

    @property
    def durability(self) -> Durability:
        assert self._program.found is not None  # an engine that was not opened is handed to nobody
        return self._program.found.durability

    @property
    def features(self) -> Features:
        return Features(survives_restart=True, moves=True)

    @property
    def limits(self) -> Limits:
        return self._program.limits

    def attach(self, attach: Attach, sink: Sink) -> NatsPort:
        """Open or resume a session; returns when JetStream has its name.

        Raises:
            UsageError: the engine belongs to the process that this one was forked from.
            ServerUnavailable: it is closed.
            EngineUnavailable: there is no owner within connect_timeout_s.
        """
        self._check()
        port = NatsPort(attach, sink, self._program.hand_over, self._check)
        self._program.hand_over(Attaching(port))
        self._wait_for(
            port, self._thread.is_alive, lambda: as_engine_error(Unreachable("the queues have no owner"), self._place)
        )
        return port

    def close(self, *, closing_reason: str = "") -> None:
        """Send what was handed over, tell every session `Closing`, end the sessions as if cut. Idempotent."""
        if self._is_closed or self._is_foreign:
            return
        self._stop(closing_reason)

    def _stop(self, reason: str) -> None:
        self._is_closed = True
        asyncio.run_coroutine_threadsafe(self._end(reason), self._loop)
        if threading.current_thread() is not self._thread:  # a sink may close the engine
            self._thread.join(_CLOSE_S)

    async def _end(self, reason: str) -> None:
        try:
            await self._program.stop(reason)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
        finally:
            self._loop.call_soon(self._loop.stop)
