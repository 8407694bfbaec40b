"""The engine as callers see it: opening, attaching, closing. What happens to requests is in writer.py."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

import msgspec

from manyhands._chance import CHANCE
from manyhands._resuming import ResumingEngine
from manyhands.engines.base import Sink
from manyhands.engines.redis.checks import About, Found, examine, parse_info
from manyhands.engines.redis.copies import Copies, ask_replicas
from manyhands.engines.redis.driver import Denied, Driver, Refusal, Unreachable, Wire, as_engine_error
from manyhands.engines.redis.items import Attaching
from manyhands.engines.redis.port import RedisPort
from manyhands.engines.redis.reach import Reach
from manyhands.engines.redis.where import Where, parse
from manyhands.engines.redis.writer import Writer
from manyhands.events import Attach
from manyhands.model import Durability, Features, Limits

_log = logging.getLogger(__name__)


class RedisEngine(ResumingEngine):
    """Queues in a Redis or Valkey that many programs share.

    Args:
        url: see `where.Where`.
        limits: kept in the space for those who come without their own; without them, what is kept there.

    Raises:
        UsageError: the URL cannot be read, or the server is one that would lose messages; the sentence says why.
        EngineUnavailable: nobody answered within connect_timeout_s.
        AuthenticationFailed: it does not let us in.
    """

    name = "redis"

    def __init__(self, url: str, *, limits: Limits | None = None, connect_timeout_s: float = 10.0) -> None:
        where = parse(url)
        super().__init__(where.text, connect_timeout_s)
        driver = Driver(where)
        reach = Reach(time.monotonic())
        deadline = time.monotonic() + connect_timeout_s
        while True:
            try:
                found, adopted, copies = _look(driver, limits, where)
                writer = Writer(driver, secrets.token_hex(8), About(found, adopted), copies, self._place)
                writer.connect()
                break
            except (Unreachable, Refusal, Denied) as problem:
                now = time.monotonic()
                reach.failed(now, CHANCE.random())
                if isinstance(problem, Denied) or reach.next_at > deadline:
                    raise as_engine_error(problem, self._place) from problem
                time.sleep(reach.next_at - now)
        if found.durability.weaker:
            _log.warning("the Redis at %s: %s", self._place, found.durability.weaker)
        self._writer = writer
        writer.start()

    @property
    def durability(self) -> Durability:
        return self._writer.about.found.durability

    @property
    def features(self) -> Features:
        return self._writer.about.features

    @property
    def limits(self) -> Limits:
        return self._writer.about.limits

    def attach(self, attach: Attach, sink: Sink) -> RedisPort:
        """Open or resume a session; returns when Redis knows of it.

        Raises:
            UsageError: the engine belongs to the process that this one was forked from.
            ServerUnavailable: it is closed.
            EngineUnavailable: Redis is not reached within connect_timeout_s.
        """
        self._check()
        port = RedisPort(attach, sink, self._writer.inbox.put, self._check)
        self._writer.inbox.put(Attaching(port))
        self._wait_for(
            port, lambda: self._writer.is_alive, lambda: as_engine_error(Unreachable("the connection broke"), self._place)
        )
        return port

    def close(self, *, closing_reason: str = "") -> None:
        """Send what was handed over, tell every session `Closing`, end the sessions as if cut. Idempotent."""
        if self._is_closed or self._is_foreign:
            return
        self._is_closed = True
        self._writer.stop(closing_reason)


def _look(driver: Driver, limits: Limits | None, where: Where) -> tuple[Found, Limits, Copies]:
    """What the server is, the limits that hold there, and what its replicas confirm."""
    wire = driver.open()
    try:
        info = {}
        for section in ("server", "replication", "persistence", "memory"):
            info.update(parse_info(wire.ask("INFO", section)))
        found = examine(info, _config(wire), where.text)
        is_on_disk = False
        if where.replicas:
            found, is_on_disk = ask_replicas(wire, driver.prefix, found, where.replicas)
        copies = Copies(where.replicas, is_on_disk=is_on_disk)
        key = driver.prefix + b":limits"
        if limits is not None:
            wire.ask("SET", key, msgspec.json.encode(limits))
            return found, limits, copies
        kept = wire.ask("GET", key)
        return found, msgspec.json.decode(kept, type=Limits) if kept else Limits(), copies
    finally:
        wire.close()


def _config(wire: Wire) -> dict[str, str]:
    """The settings that decide what an acknowledgement is worth; none where a managed service does not show them."""
    config: dict[str, str] = {}
    for name in ("appendfsync", "maxmemory-policy", "save"):
        try:
            answer: Any = wire.ask("CONFIG", "GET", name)
        except (Refusal, Denied):
            return {}
        config.update(zip((one.decode() for one in answer[::2]), (one.decode() for one in answer[1::2]), strict=True))
    return config
