"""The space's owner: the one program that applies, appends and answers, for as long as its appends are taken.

```
 programs ──> items ──> Core.apply … ──take──> changes ──> Image.fold ──> Log.append (one for all that gathered)
                                        │                                    │ JetStream has it
                                        └────────────── effects ─────────────┴──────> programs
```
No effect leaves before its append is acknowledged. If an append is refused, somebody else is the owner: this core is
thrown away with all that it has not told, and the programs ask the new one again (ADR 0091).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Protocol

from manyhands._faults import crashpoint
from manyhands.clock import Clock, Now
from manyhands.engines.nats.driver import Unreachable
from manyhands.engines.nats.entries import FORMAT, Entry, decode, encode
from manyhands.engines.nats.image import Image
from manyhands.engines.nats.link import Said, Unreadable
from manyhands.engines.nats.log import Log
from manyhands.events import Attach, Attached, Failed, Goodbye, Reply, Request, ShutDown
from manyhands.lifecycle import Core
from manyhands.lifecycle.changes import Change
from manyhands.lifecycle.rows import Rows

_log = logging.getLogger(__name__)

_MAX_ITEMS = 1024
_PRUNE_EVERY_S = 600.0
_PURGE_BYTES, _PURGE_MESSAGES = 256 * 1024, 512  # a purge goes through the stream's consensus: not for a few entries
_COPIED_GROUPS = 32


class Guest(Protocol):
    """A program, as the owner sees it."""

    sessions: dict[int, str]
    """What is attached from there, by the number of the attach."""

    def tell(self, said: Said[Reply | Attached]) -> None:
        """Replies, and with an empty list that an attach is over."""
        ...


Item = tuple[Guest, Said[Request | Attach]]


class Owner:
    """One term of one program. Everything happens in the program's event loop."""

    def __init__(self, log: Log, image: Image, core: Core, writer: str, term: int, about: Attached, clock: Clock) -> None:
        """Begin a term.

        Args:
            about: what each attach is answered with.
        """
        self.writer = writer
        self.term = term
        self.about = about
        self._log = log
        self._image = image
        self._core = core
        self._clock = clock
        self._items: deque[Item] = deque()
        self._bell: asyncio.Future[None] | None = None
        self._at: dict[str, tuple[Guest, int]] = {}
        self._changes: list[Change] = []
        self._out: dict[Guest, dict[int, list[Any]]] = {}
        self._over: list[tuple[Guest, int]] = []
        self._prune_at = clock.now().mono + _PRUNE_EVERY_S
        self._purge_to = self._purged_to = 0
        self._purging: asyncio.Task[None] | None = None
        self._is_finishing = False
        self._shut: set[str] = set()
        self._is_shut_told = True

    # -- from programs

    def give(self, guest: Guest, said: Said[Request | Attach]) -> None:
        """What a program says, in order."""
        self._items.append((guest, said))
        self._ring()

    def shut(self, queues: Sequence[str]) -> None:
        """Queues that the owner before has shut down; before anything else."""
        if not queues:
            return
        session, now = f"owner {self.writer}", self._clock.now()
        self._core.attach(Attach(session, is_here=True), now)
        self._core.apply(session, [*(ShutDown(0, queue) for queue in queues), Goodbye()], now)
        self._shut.update(queues)

    def drop(self, guest: Guest) -> None:
        """A program is not heard any more: its sessions are detached, as if their connections had been cut."""
        self.give(guest, [(key, ()) for key in list(guest.sessions)])

    def finish(self) -> None:
        """Make `run` return once everything that was given is done."""
        self._is_finishing = True
        self._ring()

    def _ring(self) -> None:
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)

    # -- one turn after the other

    async def run(self) -> None:
        """Work until `finish`.

        Raises:
            Deposed: an append was refused.
        """
        try:
            while True:
                if not self._items:
                    if self._is_finishing:
                        return
                    await self._wait()
                now = self._clock.now()
                for _ in range(min(len(self._items), _MAX_ITEMS)):
                    self._apply(*self._items.popleft(), now)
                self._core.tick(now)
                self._take()
                await self._commit()
                self._deliver()
                await self._look_after(now)
        finally:
            if self._purging is not None:
                self._purging.cancel()

    async def _wait(self) -> None:
        due = self._core.next_due()
        loop = asyncio.get_running_loop()
        self._bell = loop.create_future()
        timer = loop.call_later(max(0.0, due - self._clock.now().mono), self._ring) if due is not None else None
        try:
            await self._bell
        finally:
            self._bell = None
            if timer is not None:
                timer.cancel()

    def _apply(self, guest: Guest, said: Said[Request | Attach], now: Now) -> None:
        for key, events in said:
            requests: Sequence[Any] = events
            if events and type(events[0]) is Attach:
                self._attach(guest, key, events[0], now)
                requests = events[1:]
                if not requests:
                    continue
            session = guest.sessions.get(key)
            if session is None:
                continue
            if not requests:
                self._take()  # what was granted to this attach must not be told to one that follows in the same step
                self._leave(guest, key)
                self._core.detach(session, now)
                continue
            if any(type(request) is Unreadable for request in requests):
                requests = self._refuse(guest, key, requests)
                if not requests:
                    continue
            self._core.apply(session, requests, now)
            for request in requests:
                if type(request) is ShutDown and isinstance(request.queue, str):
                    self._shut.add(request.queue)
                    self._is_shut_told = False
            if type(requests[-1]) is Goodbye:
                self._leave(guest, key)

    def _refuse(self, guest: Guest, key: int, requests: Sequence[Any]) -> list[Any]:
        """Answer those that could not be read; the others."""
        replies = self._out.setdefault(guest, {}).setdefault(key, [])
        replies += [Failed(one.rid, "usage", one.text) for one in requests if type(one) is Unreadable and one.rid]
        return [one for one in requests if type(one) is not Unreadable]

    def _attach(self, guest: Guest, key: int, attach: Attach, now: Now) -> None:
        before = self._at.get(attach.session)
        if before is not None:
            self._take()  # what was brought about for the attach before this one is for that one
            self._leave(*before)
            self._over.append(before)
        self._at[attach.session] = guest, key
        guest.sessions[key] = attach.session
        is_resumed, lost = self._core.attach(attach, now)
        about = self.about
        attached = Attached(about.engine, about.durability, about.features, about.limits, is_resumed, lost, about.notes)
        self._out.setdefault(guest, {}).setdefault(key, []).append(attached)

    def _leave(self, guest: Guest, key: int) -> None:
        session = guest.sessions.pop(key, None)
        if session is not None and self._at.get(session) == (guest, key):
            del self._at[session]

    def _take(self) -> None:
        """Note what the core brought about so far."""
        step = self._core.take()
        self._changes += step.changes
        for session, reply in step.effects:
            at = self._at.get(session)
            if at is not None:
                self._out.setdefault(at[0], {}).setdefault(at[1], []).append(reply)

    def _deliver(self) -> None:
        out, self._out = self._out, {}
        over, self._over = self._over, []
        for guest, by_key in out.items():
            guest.tell(list(by_key.items()))
        for guest, key in over:
            guest.tell([(key, ())])
        crashpoint("effects.after")

    # -- the log

    async def _commit(self) -> None:
        changes, self._changes = self._changes, []
        rows = Rows(changes)
        if rows or not self._is_shut_told:
            entry = self._image.fold(rows, self.writer, self.term, self._core.next_n)
            if not self._is_shut_told:
                entry.shut, self._is_shut_told = sorted(self._shut), True
            await self._append(entry)

    async def _append(self, entry: Entry) -> None:
        data = encode(entry)
        crashpoint("commit.before")
        group = self._image.add(entry, 0, 0, len(data))
        self._image.placed(group, *await self._log.append(self.writer, data))
        crashpoint("commit.after")

    def _entry(self) -> Entry:
        return Entry(FORMAT, self.writer, self.term, self._core.next_n)

    async def _look_after(self, now: Now) -> None:
        if now.mono >= self._prune_at:
            self._prune_at = now.mono + _PRUNE_EVERY_S
            over = self._image.over(now.wall, watermark_kept_s=self.about.limits.watermark_kept_s)
            if over:
                entry = self._entry()
                entry.dropped_sessions = over
                await self._append(entry)
        if self._image.is_littered:
            await self._clean()
        self._purge_to = max(self._purge_to, self._image.dead_head())
        dead = self._purge_to - self._purged_to
        if self._purging is None and (dead >= _PURGE_MESSAGES or self._image.dead_bytes >= _PURGE_BYTES):
            self._image.dead_bytes = 0
            self._purging = asyncio.get_running_loop().create_task(self._purge(self._purge_to), name="manyhands-nats purge")

    async def _clean(self) -> None:
        """Copy what still counts of the oldest entries to the tail, so that they can be given up."""
        copy = self._entry()
        try:
            for group in list(self._image.groups)[:_COPIED_GROUPS]:
                if group.live and group is not self._image.groups[-1]:
                    self._image.living(decode(await self._log.get(group.first, group.last)), group, copy)
        except Unreachable as error:
            _log.debug("the log was not cleaned: %s", error)
            return
        await self._append(copy)

    async def _purge(self, last: int) -> None:
        try:
            await self._log.purge(last)
            self._purged_to = last
        except Unreachable as error:
            _log.debug("the log's head was not given up: %s", error)
        finally:
            self._purging = None
