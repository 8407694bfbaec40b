"""The engine as callers see it: opening, attaching, closing. What happens to requests is in writer.py."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from pathlib import Path

from manyhands.clock import Clock, SystemClock
from manyhands.engines.base import Sink, Waiter
from manyhands.engines.sqlite.items import Attaching, Detaching, Stopping
from manyhands.engines.sqlite.owner import OwnerLock
from manyhands.engines.sqlite.store import Store
from manyhands.engines.sqlite.writer import Writer
from manyhands.errors import EngineError, ServerUnavailable, UsageError
from manyhands.events import Attach, Attached, Request
from manyhands.model import Durability, Features, Limits


class SqliteEngine:
    """Queues in one SQLite file. `put` is acknowledged when the disk has it.

    Args:
        path: the file; made if it is not there. Beside it appear its log (`-wal`), a file that marks the owner (`.owner`)
            and one that keeps some room (`.reserve`).

    Raises:
        EngineBusy: another process owns the file; the sentence names it.
        UsageError: the file is another program's, or of a newer format.
        EngineCorrupt: it is damaged. Nothing is ever overwritten in these cases.
        EngineUnavailable: it cannot be opened or made.
    """

    def __init__(self, path: str | os.PathLike[str], *, limits: Limits | None = None, clock: Clock | None = None) -> None:
        self._path = Path(path).resolve()  # two names of one file must meet at one lock
        self._limits = limits or Limits()
        self._is_closed = False
        self._is_foreign = False
        self._owner = OwnerLock.take(self._path)
        try:
            store = Store.open(self._path)
            try:
                self._writer = Writer(store, self._limits, clock or SystemClock())
            except EngineError:
                store.abandon()
                raise
        except BaseException:
            self._owner.release()
            raise
        self._durability = Durability("disk", store.durability_text)
        self._writer.start()
        _engines.add(self)

    @property
    def name(self) -> str:
        return "sqlite"

    @property
    def path(self) -> Path:
        """The file, absolute."""
        return self._path

    @property
    def durability(self) -> Durability:
        return self._durability

    @property
    def features(self) -> Features:
        return Features(survives_restart=True, moves=True)

    @property
    def limits(self) -> Limits:
        return self._limits

    def attach(self, attach: Attach, sink: Sink) -> SqlitePort:
        """Open or resume a session; returns when the disk knows of it.

        Raises:
            UsageError: the engine belongs to the process that this one was forked from.
            ServerUnavailable: it is closed.
            EngineUnavailable: its disk failed or is full.
        """
        self._check()
        port = SqlitePort(self, self._writer, attach, sink)
        port.open()
        return port

    def tick(self) -> None:
        """Make the engine look at its clock now: for a clock that a test moves by hand."""
        self._writer.inbox.ring()

    def close(self, *, closing_reason: str = "") -> None:
        """Finish the batch in hand, tell every session `Closing`, copy the log into the file, give the file up."""
        if self._is_closed or self._is_foreign:
            return
        self._is_closed = True
        self._writer.inbox.put(Stopping(closing_reason))
        self._writer.join()
        self._owner.release()

    def _check(self) -> None:
        if self._is_foreign:
            raise UsageError(
                f"the store {self._path} belongs to the process that this one was forked from. Connect to a server in that "
                "process instead"
            )
        if self._is_closed:
            raise _closed(self._path)

    def _disown(self) -> None:
        self._is_foreign = True


class SqlitePort:
    """One session's end of the engine."""

    def __init__(self, engine: SqliteEngine, writer: Writer, attach: Attach, sink: Sink) -> None:
        self.session = attach.session
        self.attach = attach
        self.sink = sink
        self.is_over = False
        self._engine = engine
        self._writer = writer
        self._put = writer.inbox.put
        self._opened = Waiter()
        self._attached: Attached | None = None
        self._refusal: EngineError | None = None

    def open(self) -> None:
        """Attach, and wait until the disk knows of the session."""
        self._put(Attaching(self, self._on_attached, self._on_refused))
        while not self._opened.block(1.0):
            if not self._writer.is_alive:  # it was closed meanwhile
                raise _closed(self._engine.path)
        if self._refusal is not None:
            raise self._refusal

    def _on_attached(self, is_resumed: bool, lost: list[int]) -> None:
        engine = self._engine
        self._attached = Attached(engine.name, engine.durability, engine.features, engine.limits, is_resumed, lost)
        self._opened.set()

    def _on_refused(self, error: EngineError) -> None:
        self._refusal = error
        self._opened.set()

    @property
    def attached(self) -> Attached:
        assert self._attached is not None  # the port is handed out only after open
        return self._attached

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        """Hand requests to the writer; returns at once. may_gather changes nothing here."""
        if self.is_over:
            raise ServerUnavailable(f"session {self.session:.8}… ended here or was taken over by another connection")
        self._engine._check()
        self._put((self, requests))

    def wait(self, waiter: Waiter, timeout_s: float) -> bool:
        """Block until the waiter is set or the time is over."""
        return waiter.block(timeout_s)

    def detach(self, *, goodbye: bool = True) -> None:
        """End the session for good, or as if its connection had been cut."""
        if not self.is_over:
            self.is_over = True
            self._put(Detaching(self, goodbye))


def _closed(path: Path) -> ServerUnavailable:
    return ServerUnavailable(f"the store {path} was closed in this process, so it takes no more requests; open it again")


_engines: weakref.WeakSet[SqliteEngine] = weakref.WeakSet()


def _disown_all() -> None:
    for engine in list(_engines):
        engine._disown()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disown_all)
