"""The one thread that applies, commits and answers.

```
 Port.send ──> Inbox ──take──> Core.apply … Core.apply ──take──> changes ──> Store.write (one transaction, one sync)
                                                          │                        │ committed
                                                          └─────── effects ────────┴──────> sinks
```

While one batch is on its way to the disk the next one gathers; nothing is made to wait for company. No effect leaves
before the commit of what it tells: if a commit fails, the core that is now ahead of the disk is thrown away with its
effects, a new one is read from the disk, and every request that was still owed an answer gets Failed (`_start_over`).
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from manyhands._faults import crashpoint, is_planted
from manyhands._inbox import Inbox
from manyhands.clock import Clock, Now
from manyhands.engines.sqlite.failing import DiskFull
from manyhands.engines.sqlite.items import (
    Attaching,
    Batch,
    Detaching,
    Item,
    Listener,
    Stopping,
    as_engine_error,
    causes_of,
    given_back,
    rids,
)
from manyhands.engines.sqlite.reserve import Reserve
from manyhands.engines.sqlite.store import Store
from manyhands.errors import EngineError, EngineUnavailable
from manyhands.events import Attach, Closing, Done, Failed, Goodbye, Offer, Put, Reply, Request
from manyhands.lifecycle import Core
from manyhands.lifecycle.changes import Snapshot
from manyhands.lifecycle.rows import Rows
from manyhands.model import Limits

log = logging.getLogger(__name__)

_MAX_ITEMS = 1024
_PRUNE_EVERY_S = 600.0
_LOOK_FOR_ROOM_EVERY_S = 1.0
_MIN_EXPECTED = 3
_GATHER_COMMITS = 2
_MAX_GATHER_S = 0.001


class Writer:
    """Owns the store and the core from its start to its end. Everything but `inbox` belongs to its thread."""

    def __init__(self, store: Store, limits: Limits, clock: Clock) -> None:
        self.inbox: Inbox[Item] = Inbox()
        self._store = store
        self._limits = limits
        self._clock = clock
        self._reserve = Reserve(store.path)
        self._is_full = not self._reserve.hold()
        self._listeners: dict[str, Listener] = {}
        self._failure: EngineError | None = None
        """Set once the disk failed: nothing is applied or acknowledged from then on."""
        self._commit_s = 0.0
        """How long a commit takes, a moving average."""
        self._expected = 0
        self._expected_until = 0.0
        self._acks_before_commit = is_planted("ack_before_fsync")
        now = clock.now()
        self._prune_at = now.mono + _PRUNE_EVERY_S
        self._look_for_room_at = now.mono
        self._core, _ = self._read_core(now)
        self._thread = threading.Thread(target=self._run, name=f"manyhands-writer {store.path.name}", daemon=True)

    def start(self) -> None:
        """Begin to work; before that nothing else may touch the store."""
        self._thread.start()

    def join(self) -> None:
        """Wait until it has stopped, unless this is its own thread (a sink closed the engine)."""
        if threading.current_thread() is not self._thread:
            self._thread.join()

    @property
    def is_alive(self) -> bool:
        """Whether anybody will look into the inbox again."""
        return self._thread.is_alive()

    # -- one turn after the other -------------------------------------------------------------------------------------

    def _run(self) -> None:
        stopping = None
        while stopping is None:
            self._gather()
            if not len(self.inbox):
                self.inbox.wait(self._idle_s())
            items = self.inbox.take(_MAX_ITEMS)
            stopping = self._turn(items) if self._failure is None else self._refuse_all(items, self._failure)
        for listener in list(self._listeners.values()):
            self._give(listener, [Closing(stopping.reason)])
        try:
            self._store.close()
        except EngineError:
            log.exception("store closed with an error; the next opening reads its log")

    def _idle_s(self) -> float | None:
        if self._failure is not None:
            return None
        due = self._core.next_due()
        if self._is_full:
            due = self._look_for_room_at if due is None else min(due, self._look_for_room_at)
        return None if due is None else max(0.0, due - self._clock.now().mono)

    def _gather(self) -> None:
        """Let the producers that were just answered send again before the next commit, so that it takes them all.

        Several producers that each wait for their own put otherwise fall into two halves: one is committed while the other
        is being answered, at twice the commits. Only right after such answers, never for longer than two commits take, and
        only for three and more: a lone producer and every other kind of client wait for nothing (docs/adr/0016). Before any
        other wait, so that the last of them wakes this thread and not the first as well.
        """
        if self._expected >= _MIN_EXPECTED:
            left_s = self._expected_until - time.perf_counter()
            if left_s > 0 and len(self.inbox) < self._expected:
                self.inbox.wait(left_s, wanted=self._expected)
            self._expected = 0

    def _turn(self, items: Sequence[Item]) -> Stopping | None:
        now = self._clock.now()
        batch, stopping = Batch(items), None
        try:
            for item in items:
                if type(item) is tuple:
                    listener, requests = item
                    if self._listeners.get(listener.session) is listener:
                        admitted = self._without_puts(listener, requests) if self._is_full else requests
                        self._core.apply(listener.session, admitted, now)
                elif isinstance(item, Attaching):
                    self._attach(item, batch, now)
                elif isinstance(item, Detaching):
                    self._detach(item, now)
                elif isinstance(item, Stopping):
                    stopping = item
            self._core.tick(now)
            self._finish(batch)
        except Exception as error:  # the one place that catches a batch which failed, whatever the reason
            if batch.is_committed:
                self._stop(error)
            else:
                self._start_over(batch, error, now)
        else:
            self._look_after(now)
        return stopping

    def _attach(self, item: Attaching, batch: Batch, now: Now) -> None:
        listener = item.listener
        before = self._listeners.get(listener.session)
        if before is not None:
            before.is_over = True
        self._listeners[listener.session] = listener
        is_resumed, lost = self._core.attach(listener.attach, now)
        batch.attached.append((item, is_resumed, lost))

    def _detach(self, item: Detaching, now: Now) -> None:
        session = item.listener.session
        if self._listeners.get(session) is not item.listener:
            return  # another connection took the session over meanwhile
        del self._listeners[session]
        if item.goodbye:
            self._core.apply(session, [Goodbye()], now)
        else:
            self._core.detach(session, now)

    def _finish(self, batch: Batch) -> None:
        step = self._core.take()
        batch.effects = step.effects
        rows = Rows(step.changes)
        if self._acks_before_commit:
            self._deliver(batch)
        if rows:
            started = time.perf_counter()
            self._store.write(rows)
            self._commit_s += (time.perf_counter() - started - self._commit_s) / 8
        batch.is_committed = True
        if not self._acks_before_commit:
            self._deliver(batch)
        crashpoint("effects.after")

    def _deliver(self, batch: Batch) -> None:
        for attaching, is_resumed, lost in batch.attached:
            attaching.answer(is_resumed, lost)
        # Counted before anybody is answered: who is answered first sends again while the others still wait.
        n_gathered = len(self.inbox)
        by_session: dict[str, list[Reply]] = {}
        for session, reply in batch.effects:
            replies = by_session.get(session)
            if replies is None:
                replies = by_session[session] = []
            replies.append(reply)
        n_producers = 0
        for session, replies in by_session.items():
            listener = self._listeners.get(session)
            if listener is not None:
                n_producers += type(replies[0]) is Done
                self._give(listener, replies)
        self._expected = n_producers + n_gathered
        self._expected_until = time.perf_counter() + min(_GATHER_COMMITS * self._commit_s, _MAX_GATHER_S)

    def _give(self, listener: Listener, replies: Sequence[Reply]) -> None:
        try:
            listener.sink(replies)
        except Exception:  # a client's code must not end everybody's writer
            log.exception("sink raised session=%s", listener.attach.name)

    def _look_after(self, now: Now) -> None:
        try:
            if now.mono >= self._prune_at:
                self._prune_at = now.mono + _PRUNE_EVERY_S
                self._store.prune(now.wall, watermark_kept_s=self._limits.watermark_kept_s)
            try:
                self._store.checkpoint_if_due()
            except DiskFull:
                self._run_full(now)
        except EngineError as error:
            self._stop(error)
            return
        if self._is_full and now.mono >= self._look_for_room_at:
            self._look_for_room_at = now.mono + _LOOK_FOR_ROOM_EVERY_S
            if self._reserve.hold():
                self._is_full = False
                log.warning("store has room again, puts are taken path=%s", self._store.path)

    # -- when the disk is full, or fails ------------------------------------------------------------------------------

    def _run_full(self, now: Now) -> None:
        self._look_for_room_at = now.mono + _LOOK_FOR_ROOM_EVERY_S
        if self._reserve.free():
            with suppress(DiskFull):  # then what is left of the room is for the log to grow into
                self._store.checkpoint()
        if not self._is_full:
            self._is_full = True
            log.error("disk full, puts are refused until there is room path=%s", self._store.path)

    def _without_puts(self, listener: Listener, requests: Sequence[Request]) -> list[Request]:
        """What a full disk still does: everything but puts. A put under a lease gives that lease back (see events.Put)."""
        text = (
            f"The disk that holds {self._store.path} is full: nothing can be put until there is room, what is there can "
            "still be taken and finished. Free some space."
        )
        admitted: list[Request] = []
        refused: list[Reply] = []
        for request in requests:
            if not isinstance(request, Put):
                admitted.append(request)
                continue
            if request.rid:
                refused.append(Failed(request.rid, EngineUnavailable.code, text))
            admitted += [given_back(cause, text) for cause in request.causes]
        if refused:
            self._give(listener, refused)
        return admitted

    def _read_core(self, now: Now) -> tuple[Core, Snapshot]:
        with _no_collecting():
            try:
                snapshot = self._store.load(now.wall, watermark_kept_s=self._limits.watermark_kept_s)
            except DiskFull:
                self._run_full(now)
                snapshot = self._store.load(now.wall, watermark_kept_s=self._limits.watermark_kept_s)
            core = Core(limits=self._limits, epoch=self._store.epoch, is_journaled=True, snapshot=snapshot, now=now)
        return core, snapshot

    def _start_over(self, batch: Batch, error: Exception, now: Now) -> None:
        """Nothing of this batch happened: go back to what the disk holds, and tell everybody who waits.

        Parked requests are answered Failed too, because the core that knew their places in line is gone.
        """
        if isinstance(error, DiskFull):
            try:
                self._run_full(now)
            except EngineError as worse:
                error = worse
        if isinstance(error, EngineError) and not isinstance(error, DiskFull):
            self._stop(error, batch)
            return
        log.error("batch failed, nothing of it was stored; read again from disk path=%s", self._store.path, exc_info=error)
        owed, causes, offers = self._owed(batch), causes_of(batch.items), self._core.offers()
        try:
            self._core, snapshot = self._read_core(now)
            self._reattach(batch, snapshot, causes, offers, now)
        except Exception as again:
            self._stop(again, batch, owed)
            return
        self._fail(batch, owed, as_engine_error(error))

    def _reattach(
        self, batch: Batch, snapshot: Snapshot, causes: dict[str, list[int]], offers: dict[str, list[str]], now: Now
    ) -> None:
        for item in batch.items:
            if isinstance(item, Attaching):
                self._listeners.pop(item.listener.session, None)
            elif isinstance(item, Detaching) and self._listeners.get(item.listener.session) is item.listener:
                del self._listeners[item.listener.session]
        held: dict[str, list[int]] = {}
        for message in snapshot.messages:
            if message.token:
                held.setdefault(message.session, []).append(message.token)
        for session, listener in self._listeners.items():
            attach = listener.attach
            again = Attach(session, attach.name, held.get(session, []), is_here=attach.is_here, parent=attach.parent)
            self._core.attach(again, now)
            if session in offers:
                self._core.apply(session, [Offer(offers[session])], now)
            # The settlement behind a put that failed may already be on its way: it must find its lease ended.
            ended = [given_back(token, "the put made under it failed") for token in causes.get(session, ())]
            self._core.apply(session, ended, now)
        self._finish(Batch(()))

    def _owed(self, batch: Batch) -> set[tuple[str, int]]:
        """Every (session, rid) that still waits for an answer: this batch's, and what was parked before it."""
        owed = {(item[0].session, rid) for item in batch.items if type(item) is tuple for rid in rids(item[1])}
        dropped = batch.effects or self._core.take().effects
        owed.update((session, getattr(reply, "rid", 0)) for session, reply in dropped)
        owed.update(self._core.parked())
        return {(session, rid) for session, rid in owed if rid}

    def _stop(self, error: Exception, batch: Batch | None = None, owed: set[tuple[str, int]] | None = None) -> None:
        """Acknowledge nothing more until the store is opened again."""
        batch = batch or Batch(())
        self._failure = as_engine_error(error)
        log.error("store stopped until it is opened again path=%s", self._store.path, exc_info=error)
        self._fail(batch, self._owed(batch) if owed is None else owed, self._failure)

    def _fail(self, batch: Batch, owed: set[tuple[str, int]], error: EngineError) -> None:
        by_session: dict[str, list[Reply]] = {}
        for session, rid in sorted(owed):
            by_session.setdefault(session, []).append(Failed(rid, error.code, str(error)))
        for session, replies in by_session.items():
            listener = self._listeners.get(session)
            if listener is not None:
                self._give(listener, replies)
        for item in batch.items:
            if isinstance(item, Attaching):
                item.refuse(error)

    def _refuse_all(self, items: Sequence[Item], failure: EngineError) -> Stopping | None:
        stopping = None
        for item in items:
            if type(item) is tuple:
                listener, requests = item
                refused = [Failed(rid, failure.code, str(failure)) for rid in rids(requests)]
                if refused:
                    self._give(listener, refused)
            elif isinstance(item, Attaching):
                item.refuse(failure)
            elif isinstance(item, Detaching):
                self._listeners.pop(item.listener.session, None)
            elif isinstance(item, Stopping):
                stopping = item
        return stopping


@contextmanager
def _no_collecting() -> Iterator[None]:
    """A million new objects and no garbage: each collection would look at all of them for nothing (3.3 s become 2.0)."""
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_collecting:
            gc.enable()
