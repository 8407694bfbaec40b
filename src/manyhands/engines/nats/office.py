"""A program's time as the owner: it reads the log, claims it, runs the core, and answers those who look for the owner.

Before it claims it already answers that somebody is about to: else every program that is started meanwhile would claim as
well, each deposing the one before.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from manyhands.clock import Clock
from manyhands.engines.nats.checks import Found
from manyhands.engines.nats.driver import Driver, Unreachable
from manyhands.engines.nats.entries import FORMAT, Content, Entry, decode, encode
from manyhands.engines.nats.guests import Guests
from manyhands.engines.nats.image import Image
from manyhands.engines.nats.link import Claimed, Hello, Welcome
from manyhands.engines.nats.log import Deposed, Log
from manyhands.engines.nats.owner import Owner
from manyhands.engines.nats.patience import PULSE_S
from manyhands.engines.nats.where import Where
from manyhands.errors import UsageError
from manyhands.events import Attached
from manyhands.lifecycle import Core
from manyhands.model import Features, Limits

_log = logging.getLogger(__name__)

MAX_PAYLOADS = 16
"""A body may be so many times the server's `max_payload`. It travels in several messages, and a server closes connections
for which more waits than its `max_pending`, 64 times the usual `max_payload`."""
_TELL_EVERY_S = 1.0
_CLAIM_S, FLUSH_S = 10.0, 2.0

_encode = msgspec.msgpack.Encoder().encode
_decode_welcome = msgspec.msgpack.Decoder(Welcome).decode
_decode_hello = msgspec.msgpack.Decoder(Hello).decode
_decode_claimed = msgspec.msgpack.Decoder(Claimed).decode
_HELLO, _CLAIMED = b"h", b"c"


async def find_owner(driver: Driver, prefix: str, program: str, link: int, timeout_s: float) -> Welcome:
    """Ask for the owner, and begin a link with it.

    Raises:
        Nobody: there is none.
        Unreachable: nobody answered in time.
    """
    return _decode_welcome(await driver.ask(f"{prefix}.owner", _HELLO + _encode(Hello(program, link)), timeout_s))


class Office:
    """One program's readiness to be the owner.

    Args:
        limits: this program's own; None takes what is kept.
        begin: called when this program has become the owner, before anything is done.
    """

    def __init__(
        self,
        driver: Driver,
        log: Log,
        where: Where,
        program: str,
        limits: Limits | None,
        clock: Clock,
        begin: Callable[[Owner], None],
    ) -> None:
        self._driver = driver
        self._log = log
        self._where = where
        self._program = program
        self._limits = limits
        self._clock = clock
        self._begin = begin
        self._owner: Owner | None = None
        self._guests: Guests | None = None
        self._running: asyncio.Task[None] | None = None

    async def hold(self, found: Found, *, is_successor: bool) -> None:
        """Claim, and be the owner until it is told to finish.

        Args:
            is_successor: whether this program was there under another owner: then what was shut down stays so.

        Raises:
            Deposed: another program is the owner.
            Torn, Unreachable: the log could not be read or claimed.
            UsageError: a newer version wrote it.
        """
        subject = f"{self._where.prefix}.owner"
        await self._driver.subscribe(subject, self._on_call)
        to_owner = ""
        try:
            owner = await self._claim(found, is_successor)
            to_owner = f"{self._where.prefix}.o.{owner.writer}"
            await self._driver.subscribe(to_owner, self._on_guest)
            self._guests = Guests(self._driver, self._where.prefix, owner, self._clock.now().mono)
            self._owner = owner
            _log.info("this program is the owner of %s now, term %d", self._where.stream, owner.term)
            self._begin(owner)
            await self._serve(owner, self._guests)
        finally:
            self._owner = None
            await self._driver.unsubscribe(subject)
            if self._guests is not None:
                self._guests.leave()
                self._guests = None
                if self._driver.is_up:
                    await self._driver.flush(FLUSH_S)
            if to_owner:
                await self._driver.unsubscribe(to_owner)

    async def _serve(self, owner: Owner, guests: Guests) -> None:
        told = 0.0
        self._running = running = asyncio.get_running_loop().create_task(owner.run(), name="manyhands-nats owner")
        try:
            while not running.done():
                now = self._clock.now().mono
                if now - told >= _TELL_EVERY_S:
                    told = now
                    self._say_owner(owner)
                guests.look(now)
                await asyncio.wait((running,), timeout=PULSE_S)
            if running.cancelled():
                raise Deposed("another program has claimed a later term")
            running.result()
        finally:
            running.cancel()
            self._running = None

    async def _claim(self, found: Found, is_successor: bool) -> Owner:
        content, image = Content(), Image()

        def take(first: int, last: int, data: bytes) -> None:
            entry = decode(data)
            if entry.format > FORMAT:
                raise UsageError(
                    f"the stream {self._where.stream} was written by a newer manyhands (format {entry.format}); update this "
                    "one."
                )
            content.add(entry)
            image.add(entry, first, last, len(data))

        await self._log.read(take)
        now = self._clock.now()
        limits = self._bounded(self._limits or content.limits or Limits())
        term = content.term + 1
        writer = f"{self._program}-{term}"
        claim = Entry(FORMAT, writer, term, content.next_n, limits=limits if limits != content.limits else None)
        image.expire(claim, content.drop_expired(now.wall, watermark_kept_s=limits.watermark_kept_s))
        if content.shut and not is_successor:
            claim.shut = []
        data = encode(claim)
        try:
            first, last = await asyncio.wait_for(self._log.append(writer, data), _CLAIM_S)
        except TimeoutError as error:
            raise Unreachable("JetStream took no claim") from error
        image.add(claim, first, last, len(data))
        about = Attached("nats", found.durability, Features(survives_restart=True, moves=True), limits, notes=found.notes)
        core = Core(limits=limits, epoch=term, is_journaled=True, snapshot=content.snapshot(), now=self._clock.now())
        owner = Owner(self._log, image, core, writer, term, about, self._clock)
        if is_successor:
            owner.shut(content.shut)
        return owner

    def _say_owner(self, owner: Owner) -> None:
        """For an owner of an earlier term, which without anything to append would not find out."""
        claimed = Claimed(owner.writer, owner.term)
        self._driver.post(f"{self._where.prefix}.owner", _CLAIMED + _encode(claimed))

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
        if hello.program == self._program:
            return
        if owner is None or self._guests is None:
            self._driver.post(reply, _encode(Welcome()))
            return
        self._guests.greet(hello, self._clock.now().mono)
        self._driver.post(reply, _encode(Welcome(owner.writer, owner.term, owner.about.limits)))

    def _on_guest(self, data: bytes, reply: str) -> None:
        if self._guests is not None:
            self._guests.hear(data, reply, self._clock.now().mono)
