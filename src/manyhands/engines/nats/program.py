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
import random
import secrets
from collections import deque
from collections.abc import Sequence
from typing import Any

import msgspec

from manyhands._bridge import Mailbox
from manyhands.clock import SystemClock
from manyhands.engines.nats.checks import Found
from manyhands.engines.nats.driver import Denied, Driver, Nobody, Unreachable, as_engine_error
from manyhands.engines.nats.entries import FORMAT, Content, Entry, decode, encode
from manyhands.engines.nats.guests import Guests, LocalGuest
from manyhands.engines.nats.image import Image
from manyhands.engines.nats.link import (
    DATA,
    FROM_OWNER,
    HEAD,
    LEAVE,
    LOST,
    MORE,
    PULSE,
    Claimed,
    Gap,
    Hello,
    Incoming,
    Outgoing,
    Said,
    Welcome,
    is_sayable,
)
from manyhands.engines.nats.log import Deposed, Log, Torn
from manyhands.engines.nats.owner import Owner
from manyhands.engines.nats.patience import ABSENT_S, LEFT_S, PULSE_S, SILENT_S, Patience
from manyhands.engines.nats.port import Attaching, Detaching, Item, NatsPort
from manyhands.engines.nats.where import Where
from manyhands.errors import EngineUnavailable, SessionTaken, UsageError
from manyhands.events import Attach, Attached, Closing, Failed, Goodbye, Reply, Request
from manyhands.lifecycle import Core
from manyhands.model import Features, Limits
from manyhands.wire.frames import NOT_ENCODABLE

_log = logging.getLogger(__name__)

MAX_PAYLOADS = 16
"""A body may be so many times the server's `max_payload`. It travels in several messages, and a server closes connections
for which more waits than its `max_pending`, 64 times the usual `max_payload`."""
_TELL_EVERY_S = 1.0
_HELLO_S, _CLAIM_S, _FINISH_S, _FLUSH_S = 0.4, 10.0, 5.0, 2.0

_encode = msgspec.msgpack.Encoder().encode
_decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_claimed = msgspec.msgpack.Decoder(Claimed).decode
_HELLO, _CLAIMED = b"h", b"c"


class _Link:
    """This program's end of a link with an owner that is another program."""

    def __init__(self, driver: Driver, prefix: str, program: str, number: int, owner: str, now: float) -> None:
        self.number = number
        self.heard = now
        self.incoming: Incoming[Reply | Attached] = Incoming(FROM_OWNER)
        self._driver = driver
        self._to = f"{prefix}.o.{owner}"
        self._inbox = f"{prefix}.p.{program}"
        self._outgoing = Outgoing(number, driver.max_payload)
        self._untold: deque[tuple[int, NatsPort, Request]] = deque()
        self._leaving: list[tuple[NatsPort, Request]] = []

    def tell(self, said: Said[Request | Attach]) -> None:
        for message in self._outgoing.messages(said):
            self._driver.post(self._to, message, self._inbox)
        number = self._outgoing.sent
        self._untold += [(number, port, request) for port, request in self._leaving]
        self._leaving.clear()

    def remember(self, port: NatsPort, request: Request) -> None:
        """A request that has no answer leaves with what is told next."""
        self._leaving.append((port, request))

    def untold(self) -> dict[NatsPort, list[Request]]:
        """Requests without an answer that may not have arrived, by their port."""
        by_port: dict[NatsPort, list[Request]] = {}
        for _, port, request in self._untold:
            by_port.setdefault(port, []).append(request)
        return by_port

    def arrived(self) -> None:
        """The owner has said how much it received."""
        while self._untold and self._untold[0][0] <= self.incoming.peer_received:
            self._untold.popleft()

    def pulse(self) -> None:
        self._driver.post(self._to, self._outgoing.pulse(self.incoming.received), self._inbox)


class _Own:
    """This program's end of a link with itself as the owner."""

    def __init__(self, owner: Owner, hear: Any) -> None:
        self.owner = owner
        self.guest = LocalGuest(hear)

    def tell(self, said: Said[Request | Attach]) -> None:
        self.owner.give(self.guest, said)

    def remember(self, port: NatsPort, request: Request) -> None:
        pass

    def untold(self) -> dict[NatsPort, list[Request]]:
        return {}


class Program:
    """Everything of an engine but its face: belongs to one event loop, apart from `hand_over`."""

    def __init__(self, where: Where, limits: Limits | None, loop: asyncio.AbstractEventLoop) -> None:
        self.where = where
        self.found: Found | None = None
        self.limits = limits or Limits()
        """Those of the space, once there is a link."""
        self.ready = asyncio.Event()
        """There is, or was, a link."""
        self._own_limits = limits
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
        self._link: _Link | _Own | None = None
        self._over: asyncio.Future[float] = loop.create_future()
        """Set when the link is over: how its owner is missed."""
        self._untold: dict[NatsPort, list[Request]] = {}
        """What the last link may have lost and nobody answers."""
        self._guests: Guests | None = None
        self._owner: Owner | None = None
        self._is_candidate = False
        self._running: asyncio.Task[None] | None = None
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
                if isinstance(link, _Own):
                    link.owner.finish()
                    await asyncio.wait_for(asyncio.shield(self._over), _FINISH_S)
                else:
                    await self._driver.flush(_FLUSH_S)
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
        if not isinstance(link, _Link) or link.number != number:
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
        if isinstance(self._link, _Link):
            self._end_link(ABSENT_S)

    def _hear_own(self, said: Said[Reply | Attached]) -> None:
        if isinstance(self._link, _Own):
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

    def _begin_link(self, link: _Link | _Own, untold: dict[NatsPort, list[Request]]) -> None:
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
        if isinstance(self._link, _Link):
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
                await asyncio.sleep(0.05 + 0.1 * random.random())
            except Deposed as deposed:
                _log.info("this program is not the owner of its queues any more: %s", deposed)
            except Exception as error:
                _log.exception("the NATS engine failed; it begins anew")
                self._end_link(ABSENT_S)
                self._fail(f"the queues at {self.where.text} could not be kept ({error!r:.200}); please report this")
                await asyncio.sleep(0.5)

    async def _turn(self) -> None:
        now = self._clock.now().mono
        link = secrets.randbits(64)
        try:
            hello = _HELLO + _encode(Hello(self._id, link))
            answer = _decode_welcome(await self._driver.ask(f"{self.where.prefix}.owner", hello, _HELLO_S))
        except Nobody:
            self._patience.missed(now, ABSENT_S, random.random())
        except Unreachable:
            self._patience.missed(now, SILENT_S, random.random())
        else:
            if not answer.term:  # somebody is about to become the owner
                await asyncio.sleep(0.02 + 0.03 * random.random())
                return
            await self._follow(link, answer)
            return
        left_s = self._patience.left_s(now)
        if left_s > 0:
            await asyncio.sleep(min(left_s, 0.1))
        elif self._driver.is_up and not self._is_stopping:
            await self._own()

    async def _follow(self, number: int, welcome: Welcome) -> None:
        self.limits = welcome.limits or self.limits
        link = _Link(self._driver, self.where.prefix, self._id, number, welcome.owner, self._clock.now().mono)
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
        self._patience.missed(now, how, random.random())
        if how == SILENT_S:
            self._patience.is_over(now)

    async def _own(self) -> None:
        """Read the log, claim it, and be the owner until an append is refused or this engine is closed."""
        subject = f"{self.where.prefix}.owner"
        self._is_candidate = True
        await self._driver.subscribe(subject, self._on_call)
        to_owner = ""
        try:
            owner = await self._claim()
            to_owner = f"{self.where.prefix}.o.{owner.writer}"
            await self._driver.subscribe(to_owner, self._on_guest)
            self._guests = Guests(self._driver, self.where.prefix, owner, self._clock.now().mono)
            self._owner = owner
            _log.info("this program is the owner of %s now, term %d", self.where.stream, owner.term)
            self._begin_link(_Own(owner, self._hear_own), self._untold)
            await self._serve(owner)
        finally:
            self._is_candidate = False
            self._owner = None
            await self._driver.unsubscribe(subject)
            if self._guests is not None:
                self._guests.leave()
                self._guests = None
                if self._driver.is_up:
                    await self._driver.flush(_FLUSH_S)
            if to_owner:
                await self._driver.unsubscribe(to_owner)
            self._end_link(LEFT_S)

    async def _serve(self, owner: Owner) -> None:
        assert self._guests is not None
        told = 0.0
        self._running = asyncio.get_running_loop().create_task(owner.run(), name="manyhands-nats owner")
        try:
            while not self._running.done():
                now = self._clock.now().mono
                if now - told >= _TELL_EVERY_S:
                    told = now
                    self._say_owner(owner)
                self._guests.look(now)
                await asyncio.wait((self._running,), timeout=PULSE_S)
            if self._running.cancelled():
                raise Deposed("another program has claimed a later term")
            self._running.result()
        finally:
            self._running.cancel()

    async def _claim(self) -> Owner:
        content, image = Content(), Image()

        def take(first: int, last: int, data: bytes) -> None:
            entry = decode(data)
            if entry.format > FORMAT:
                raise UsageError(
                    f"the stream {self.where.stream} was written by a newer manyhands (format {entry.format}); update this "
                    "one."
                )
            content.add(entry)
            image.add(entry, first, last, len(data))

        await self._log.read(take)
        now = self._clock.now()
        limits = self._bounded(self._own_limits or content.limits or Limits())
        term = content.term + 1
        writer = f"{self._id}-{term}"
        claim = Entry(FORMAT, writer, term, content.next_n, limits=limits if limits != content.limits else None)
        image.expire(claim, content.drop_expired(now.wall, watermark_kept_s=limits.watermark_kept_s))
        data = encode(claim)
        try:
            first, last = await asyncio.wait_for(self._log.append(writer, data), _CLAIM_S)
        except TimeoutError as error:
            raise Unreachable("JetStream took no claim") from error
        image.add(claim, first, last, len(data))
        assert self.found is not None
        shown = Features(survives_restart=True)
        about = Attached("nats", self.found.durability, shown, limits, notes=self.found.notes)
        self.limits = limits
        core = Core(limits=limits, epoch=term, is_journaled=True, snapshot=content.snapshot(), now=self._clock.now())
        return Owner(self._log, image, core, writer, term, about, self._clock)

    def _say_owner(self, owner: Owner) -> None:
        """For an owner of an earlier term, which without anything to append would not find out."""
        claimed = Claimed(owner.writer, owner.term)
        self._driver.post(f"{self.where.prefix}.owner", _CLAIMED + _encode(claimed))

    def _bounded(self, limits: Limits) -> Limits:
        most = MAX_PAYLOADS * self._driver.max_payload
        return msgspec.structs.replace(limits, max_body_bytes=min(limits.max_body_bytes, most))

    def _on_call(self, data: bytes, reply: str) -> None:
        """Somebody looks for the owner, or has become it."""
        owner = self._owner
        if data[:1] == _CLAIMED:
            claimed = _decode_claimed(data[1:])
            if owner is None or claimed.owner == owner.writer:
                return
            if claimed.term > owner.term and self._running is not None:
                self._running.cancel()
            elif claimed.term < owner.term:
                self._say_owner(owner)
            return
        hello = _decode_hello(data[1:])
        if hello.program == self._id:
            return
        if owner is None or self._guests is None:
            self._driver.post(reply, _encode(Welcome()))
            return
        self._guests.greet(hello, self._clock.now().mono)
        self._driver.post(reply, _encode(Welcome(owner.writer, owner.term, owner.about.limits)))

    def _on_guest(self, data: bytes, reply: str) -> None:
        if self._guests is not None:
            self._guests.hear(data, reply, self._clock.now().mono)
