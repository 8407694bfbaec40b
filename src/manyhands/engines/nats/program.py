"""One program at a space: its sessions, its link with the owner, and its readiness to be the owner itself.

```
            ┌──────────────── greet: is there an owner? ────────────────┐
            │ welcome                                                   │ nobody, and patience is over
            v                                                           v
        follow (a link over NATS)                            own (read the log, claim, run; a link in memory)
            └──── lost, silent, left ──> greet again <──── deposed ─────┘
```
All of it happens in one event loop in a thread of its own; ports hand their requests over through a mailbox. Requests
are kept by their ports until they are answered, so that whatever a link loses is said again on the next one.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

from manyhands._bridge import Mailbox
from manyhands._chance import CHANCE
from manyhands.clock import SystemClock
from manyhands.engines.nats.checks import Found
from manyhands.engines.nats.driver import Denied, Driver, Nobody, Unreachable, as_engine_error
from manyhands.engines.nats.ends import Link, OwnLink
from manyhands.engines.nats.link import (
    DATA,
    HEAD,
    LEAVE,
    LOST,
    MORE,
    PULSE,
    Gap,
    Said,
    Welcome,
    is_sayable,
)
from manyhands.engines.nats.log import Deposed, Log, Torn
from manyhands.engines.nats.office import FLUSH_S, Office, find_owner
from manyhands.engines.nats.owner import Owner
from manyhands.engines.nats.patience import ABSENT_S, LEFT_S, PULSE_S, SILENT_S, Patience
from manyhands.engines.nats.port import Attaching, Detaching, Item, NatsPort
from manyhands.engines.nats.where import Where
from manyhands.errors import EngineUnavailable, SessionTaken, UsageError
from manyhands.events import Attach, Attached, Closing, Failed, Goodbye, Reply, Request
from manyhands.model import Limits
from manyhands.wire.frames import NOT_ENCODABLE

_log = logging.getLogger(__name__)

_HELLO_S, _FINISH_S, _REFUSED_S = 0.4, 5.0, 5.0


class Program:
    """Everything of an engine but its face: belongs to one event loop, apart from `hand_over`."""

    def __init__(self, where: Where, limits: Limits | None, loop: asyncio.AbstractEventLoop) -> None:
        self.where = where
        self.found: Found | None = None
        self.limits = limits or Limits()
        """Those of the space, once there is a link."""
        self.ready = asyncio.Event()
        """There is, or was, a link."""
        self._id = secrets.token_hex(8)
        self._driver = Driver(where, f"manyhands {self._id}", self._on_lost, self._on_found)
        self._log = Log(self._driver, where)
        self._clock = SystemClock()
        self._patience = Patience()
        self._mailbox: Mailbox[Item] = Mailbox(loop, self._take)
        self.hand_over = self._mailbox.post
        """Takes an item, in any thread."""
        self._todo: deque[Item] = deque()
        self._ports: dict[int, NatsPort] = {}
        """By the number of their newest attach."""
        self._keys = 0
        self._link: Link | OwnLink | None = None
        self._over: asyncio.Future[float] = loop.create_future()
        """Set when the link is over: how its owner is missed."""
        self._untold: dict[NatsPort, list[Request]] = {}
        """What the last link may have lost and nobody answers."""
        self._office = Office(self._driver, self._log, where, self._id, limits, self._clock, self._own)
        self._refusal: UsageError | None = None
        self._steward: asyncio.Task[None] | None = None
        self._is_stopping = False
        self._is_up = asyncio.Event()

    # -- for the engine

    async def start(self, timeout_s: float) -> None:
        """Connect, judge the server, and have a link with the owner.

        Raises:
            ManyhandsError: it is refused, or not there within timeout_s.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            try:
                if not self._driver.is_up:
                    await self._driver.connect()
                self.found = await self._log.prepare()
                break
            except (Unreachable, Denied) as problem:
                if isinstance(problem, Denied) or loop.time() > deadline:
                    raise as_engine_error(problem, self.where.text) from problem
                await asyncio.sleep(0.1)
        await self._driver.subscribe(f"{self.where.prefix}.p.{self._id}", self._on_owner, self._on_status)
        self._is_up.set()
        self._steward = loop.create_task(self._run(), name="manyhands-nats steward")
        try:
            await asyncio.wait_for(self.ready.wait(), max(1.0, deadline - loop.time()))
        except TimeoutError as error:
            nobody = Unreachable("its queues have no owner, and JetStream lets nobody claim them")
            raise as_engine_error(nobody, self.where.text) from error
        if self._refusal is not None:
            raise self._refusal

    async def stop(self, reason: str) -> None:
        """Send what was handed over, end the sessions as if cut, leave office, close the connection."""
        self._is_stopping = True
        self._work()
        link = self._link
        if link is not None:
            cut = [(key, ()) for key in self._ports]
            if cut:
                link.tell(cut)
            try:
                if isinstance(link, OwnLink):
                    link.owner.finish()
                    await asyncio.wait_for(asyncio.shield(self._over), _FINISH_S)
                else:
                    await self._driver.flush(FLUSH_S)
            except (TimeoutError, Unreachable) as error:
                _log.debug("left without a word: %r", error)
        if self._steward is not None:
            self._steward.cancel()
            await asyncio.gather(self._steward, return_exceptions=True)
        ports, self._ports = self._ports, {}
        for port in ports.values():
            port.is_over = True
            port.hand([Closing(reason)])
        closed = as_engine_error(Unreachable("the engine was closed in this process"), self.where.text)
        for item in self._todo:
            if isinstance(item, Attaching):
                item.port.refuse(closed)
        await self._driver.close()

    # -- what ports hand over

    def _take(self, items: list[Item]) -> None:
        self._todo += items
        self._work()

    def _work(self) -> None:
        """Say what is in hand, in order, if there is somebody to say it to."""
        link = self._link
        if link is None:
            return
        said: list[tuple[int, Sequence[Request | Attach]]] = []
        todo = self._todo
        while todo:
            item = todo.popleft()
            if isinstance(item, Attaching):
                if not item.port.is_over:
                    said.append(self._attach(item.port, ()))
            elif isinstance(item, Detaching):
                key = item.port.key
                if self._ports.pop(key, None) is not None:
                    said.append((key, (Goodbye(),) if item.goodbye else ()))
            else:
                port, requests = item
                if self._ports.get(port.key) is port:
                    for request in requests:
                        port.note_sent(request)
                        if not getattr(request, "rid", 0):
                            link.remember(port, request)
                    said.append((port.key, requests))
        if said:
            try:
                link.tell(said)
            except NOT_ENCODABLE:
                link.tell(self._sayable(said))

    def _sayable(self, said: Said[Request | Attach]) -> Said[Request | Attach]:
        """What has a form in bytes; the rest is refused here, as the core would."""
        good: list[tuple[int, Sequence[Request | Attach]]] = []
        for key, requests in said:
            bad = [request for request in requests if not is_sayable(request)]
            text = "a request has values that no message can carry"
            refused = [Failed(rid, "usage", text) for request in bad if (rid := getattr(request, "rid", 0))]
            if refused and key in self._ports:
                self._ports[key].hand(refused)
            left = [request for request in requests if request not in bad]
            if left or not requests:
                good.append((key, left))
        return good

    def _attach(self, port: NatsPort, untold: Sequence[Request]) -> tuple[int, Sequence[Request | Attach]]:
        self._ports.pop(port.key, None)
        for other in [one for one in self._ports.values() if one.session == port.session]:
            del self._ports[other.key]
            other.is_over = True
        self._keys += 1
        port.key = self._keys
        self._ports[port.key] = port
        return port.key, port.again(untold)

    # -- what the owner says

    def _on_owner(self, data: bytes, reply: str) -> None:
        number, count, kind = HEAD.unpack_from(data)
        link = self._link
        if not isinstance(link, Link) or link.number != number:
            return
        link.heard = self._clock.now().mono
        if kind in (LOST, LEAVE):
            self._end_link(LEFT_S if kind == LEAVE else ABSENT_S)
            return
        try:
            said = link.incoming.take(count, kind, data[HEAD.size :])
        except Gap as gap:
            _log.debug("the link with the owner is made anew: %s", gap)
            self._end_link(ABSENT_S)
            return
        if kind == PULSE:
            link.arrived()
        elif kind in (DATA, MORE):
            self._hear(said)

    def _on_status(self, code: str) -> None:
        if isinstance(self._link, Link):
            self._end_link(ABSENT_S)

    def _hear_own(self, said: Said[Reply | Attached]) -> None:
        if isinstance(self._link, OwnLink):
            self._hear(said)

    def _hear(self, said: Said[Reply | Attached]) -> None:
        for key, replies in said:
            port = self._ports.get(key)
            if port is None:
                continue
            if not replies:
                self._taken(key, port)
                continue
            rest: list[Any] = list(replies)
            if type(rest[0]) is Attached:
                attached = rest.pop(0)
                self.limits = attached.limits
                port.open(attached)
            if rest:
                port.hand(rest)

    def _taken(self, key: int, port: NatsPort) -> None:
        del self._ports[key]
        port.is_over = True
        text = f"session {port.session:.8}… was taken over by another connection"
        port.hand([Failed(rid, SessionTaken.code, text) for rid in list(port.unanswered)])

    # -- the link

    def _begin_link(self, link: Link | OwnLink, untold: dict[NatsPort, list[Request]]) -> None:
        """From now on this is who is spoken to; what the link before may have lost is said again first."""
        self._over = asyncio.get_running_loop().create_future()
        self._link = link
        self._patience.seen()
        said = [self._attach(port, untold.get(port, ())) for port in list(self._ports.values())]
        if said:
            link.tell(said)
        self.ready.set()
        self._work()

    def _end_link(self, how: float) -> None:
        if self._link is not None and not self._over.done():
            self._untold = self._link.untold()
            self._link = None
            self._over.set_result(how)

    def _on_lost(self) -> None:
        self._is_up.clear()
        if isinstance(self._link, Link):
            self._end_link(ABSENT_S)

    def _on_found(self) -> None:
        self._is_up.set()

    def _fail(self, text: str) -> None:
        """Answer what waits: said again it would fail again, perhaps."""
        for port in list(self._ports.values()):
            failed = [Failed(rid, EngineUnavailable.code, text) for rid in list(port.unanswered)]
            if failed:
                port.hand(failed)

    # -- following and owning

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._is_up.wait()
                await self._turn()
            except (Unreachable, Denied, Torn) as problem:
                _log.debug("no owner yet: %r", problem)
                await asyncio.sleep(0.05 + 0.1 * CHANCE.random())
            except Deposed as deposed:
                _log.info("this program is not the owner of its queues any more: %s", deposed)
            except UsageError as error:
                self._refusal = error
                self.ready.set()
                self._fail(str(error))
                await asyncio.sleep(_REFUSED_S)
            except Exception as error:
                _log.exception("the NATS engine failed; it begins anew")
                self._end_link(ABSENT_S)
                self._fail(f"the queues at {self.where.text} could not be kept ({error!r:.200}); please report this")
                await asyncio.sleep(0.5)

    async def _turn(self) -> None:
        now = self._clock.now().mono
        link = secrets.randbits(64)
        try:
            answer = await find_owner(self._driver, self.where.prefix, self._id, link, _HELLO_S)
        except Nobody:
            self._patience.missed(now, ABSENT_S, CHANCE.random())
        except Unreachable:
            self._patience.missed(now, SILENT_S, CHANCE.random())
        else:
            if not answer.term:  # somebody is about to become the owner
                await asyncio.sleep(0.02 + 0.03 * CHANCE.random())
                return
            await self._follow(link, answer)
            return
        left_s = self._patience.left_s(now)
        if left_s > 0:
            await asyncio.sleep(min(left_s, 0.1))
        elif self.found is not None and self._driver.is_up and not self._is_stopping:
            try:
                await self._office.hold(self.found, is_successor=self._patience.knows_one)
            finally:
                self._end_link(LEFT_S)

    async def _follow(self, number: int, welcome: Welcome) -> None:
        self.limits = welcome.limits or self.limits
        link = Link(self._driver, self.where.prefix, self._id, number, welcome.owner, self._clock.now().mono)
        self._begin_link(link, self._untold)
        over = self._over
        while not over.done():
            await asyncio.wait((over,), timeout=PULSE_S)
            if not over.done():
                if self._clock.now().mono - link.heard > SILENT_S:
                    self._end_link(SILENT_S)
                else:
                    link.pulse()
        how = over.result()
        now = self._clock.now().mono
        self._patience.missed(now, how, CHANCE.random())
        if how == SILENT_S:
            self._patience.is_over(now)

    def _own(self, owner: Owner) -> None:
        self.limits = owner.about.limits
        self._begin_link(OwnLink(owner, self._hear_own), self._untold)
