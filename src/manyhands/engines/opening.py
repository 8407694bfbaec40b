"""From a store's URL to its engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from manyhands.address import STORE_EXAMPLE, scheme_of
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import UsageError
from manyhands.model import Limits

_SQLITE = "sqlite:///"
CONNECT_TIMEOUT_S = 10.0
"""How long to try a store behind a network: a program may be started a moment before it."""


def open_engine(store: str, *, limits: Limits | None = None, timeout_s: float = CONNECT_TIMEOUT_S) -> Engine:
    """Open the store that a URL names: `memory://`, `sqlite:///jobs.db` (relative), `sqlite:////var/jobs.db` (absolute),
    a Redis or Valkey server, `redis://host:port/db` (`rediss://` for TLS; `valkey://`, `valkeys://` are the same), or NATS
    with JetStream, `nats://host:port`.

    Args:
        timeout_s: how long to go on trying while a store behind a network does not answer.

    Raises:
        UsageError: it is no such URL; the sentence says what to write.
        EngineBusy, EngineCorrupt, EngineUnavailable, AuthenticationFailed: as the store's engine does.
    """
    scheme = scheme_of(store, STORE_EXAMPLE)
    if scheme == "memory":
        if store.lower() != "memory://":
            raise UsageError(f"{store!r} names something inside memory, which has no names; write memory:// only.")
        return MemoryEngine(limits)
    if scheme == "sqlite":
        path = store[len(_SQLITE) :]
        if not store.lower().startswith(_SQLITE) or not path:
            raise UsageError(
                f"{store!r} names no file; write sqlite:///jobs.db for one in this folder, sqlite:////var/jobs.db elsewhere."
            )
        # sqlite3 costs some milliseconds, and most programs keep their queues in memory.
        from manyhands.engines.sqlite import SqliteEngine

        return SqliteEngine(path, limits=limits)
    if scheme in ("redis", "rediss"):
        return _open_redis(store, limits, timeout_s)
    if scheme == "nats":
        return _open_nats(store, limits, timeout_s)
    raise UsageError(
        f"{store!r} is a server's address, not a store; use memory://, sqlite:///jobs.db, redis://host or nats://host."
    )


def _open_redis(url: str, limits: Limits | None, timeout_s: float) -> Engine:
    with _driver_for("redis", "redis-py"):
        from manyhands.engines.redis import RedisEngine
    return RedisEngine(url, limits=limits, connect_timeout_s=timeout_s)


def _open_nats(url: str, limits: Limits | None, timeout_s: float) -> Engine:
    with _driver_for("nats", "nats-py"):
        from manyhands.engines.nats import NatsEngine
    return NatsEngine(url, limits=limits, connect_timeout_s=timeout_s)


@contextmanager
def _driver_for(scheme: str, driver: str) -> Iterator[None]:
    """Say how to get a driver that is not installed. Our modules for both schemes are named as the driver's."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != scheme:
            raise
        raise UsageError(
            f"{scheme}:// needs the {driver} driver, which is not installed here; run: pip install 'manyhands[{scheme}]'"
        ) from error
