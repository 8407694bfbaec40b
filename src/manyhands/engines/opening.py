"""From a store's URL to its engine."""

from __future__ import annotations

from manyhands.address import scheme_of
from manyhands.engines.base import Engine
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import UsageError
from manyhands.model import Limits

_SQLITE = "sqlite:///"


def open_engine(store: str, *, limits: Limits | None = None) -> Engine:
    """Open the store that a URL names: `memory://`, or `sqlite:///jobs.db` (relative), `sqlite:////var/jobs.db` (absolute).

    Raises:
        UsageError: it is no such URL; the sentence says what to write.
        UnsupportedFeature: an engine that this version does not have.
        EngineBusy, EngineCorrupt, EngineUnavailable: as the store's engine does.
    """
    scheme = scheme_of(store)
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
    raise UsageError(f"{store!r} is a server's address, not a store; use memory:// or sqlite:///jobs.db.")
