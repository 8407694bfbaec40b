"""The engine as callers see it: opening, attaching, closing. What happens to requests is in program.py and owner.py."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
import weakref
from collections.abc import Coroutine
from typing import Any

from manyhands._bridge import new_loop
from manyhands.engines.base import Sink
from manyhands.engines.nats.driver import Unreachable, as_engine_error
from manyhands.engines.nats.port import Attaching, NatsPort
from manyhands.engines.nats.program import Program
from manyhands.engines.nats.where import parse
from manyhands.errors import ServerUnavailable, UsageError
from manyhands.events import Attach
from manyhands.model import Durability, Features, Limits

_log = logging.getLogger(__name__)

_CLOSE_S = 15.0


class NatsEngine:
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
        self._where = parse(url)
        self._is_closed = False
        self._is_foreign = False
        self._connect_timeout_s = connect_timeout_s
        self._loop = new_loop()
        self._program = Program(self._where, limits, self._loop)
        self._thread = threading.Thread(target=self._run, name="manyhands-nats", daemon=True)
        self._thread.start()
        try:
            self._do(self._program.start(connect_timeout_s))
        except BaseException:
            self._stop("")
            raise
        _engines.add(self)

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
        deadline = time.monotonic() + self._connect_timeout_s
        while not port.opened.block(0.5):
            if not self._thread.is_alive():
                self._check()
            if time.monotonic() > deadline:
                port.is_over = True
                raise as_engine_error(Unreachable("the queues have no owner"), self._where.text)
        if port.refusal is not None:
            raise port.refusal
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

    def _check(self) -> None:
        if self._is_foreign:
            raise UsageError(
                f"the connection to {self._where.text} belongs to the process that this one was forked from; "
                "connect again in this process"
            )
        if self._is_closed:
            raise ServerUnavailable(
                f"the connection to {self._where.text} was closed in this process, so it takes no more requests; "
                "open it again"
            )


_engines: weakref.WeakSet[NatsEngine] = weakref.WeakSet()


def _disown_all() -> None:
    for engine in list(_engines):
        engine._is_foreign = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
