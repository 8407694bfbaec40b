"""The owner's ends of its links: its own program without a network, the others over core NATS."""

from __future__ import annotations

from collections.abc import Callable

from manyhands.engines.nats.driver import Driver
from manyhands.engines.nats.link import (
    DATA,
    FROM_PROGRAM,
    HEAD,
    LEAVE,
    LOST,
    MORE,
    PULSE,
    Gap,
    Hello,
    Incoming,
    Outgoing,
    Said,
    notice,
)
from manyhands.engines.nats.owner import Owner
from manyhands.engines.nats.patience import GONE_S
from manyhands.events import Attach, Attached, Reply, Request

_SLEPT_S = 1.0


class LocalGuest:
    """The program that is the owner itself."""

    def __init__(self, hear: Callable[[Said[Reply | Attached]], None]) -> None:
        self.sessions: dict[int, str] = {}
        self.tell = hear


class RemoteGuest:
    """Another program."""

    def __init__(self, driver: Driver, subject: str, link: int, now: float) -> None:
        self.sessions: dict[int, str] = {}
        self.link = link
        self.heard = now
        self.incoming: Incoming[Request | Attach] = Incoming(FROM_PROGRAM)
        self._driver = driver
        self._subject = subject
        self._outgoing = Outgoing(link, driver.max_payload)

    def tell(self, said: Said[Reply | Attached]) -> None:
        """Replies, and with an empty list that an attach is over."""
        for message in self._outgoing.messages(said):
            self._driver.post(self._subject, message)

    def pulse(self) -> None:
        """Answer a pulse."""
        self._driver.post(self._subject, self._outgoing.pulse(self.incoming.received))

    def notice(self, kind: int) -> None:
        """Say LOST or LEAVE."""
        self._driver.post(self._subject, notice(self.link, kind))


class Guests:
    """All programs that have a link with this owner."""

    def __init__(self, driver: Driver, prefix: str, owner: Owner, now: float) -> None:
        self._driver = driver
        self._prefix = prefix
        self._owner = owner
        self._by_link: dict[int, RemoteGuest] = {}
        self._by_program: dict[str, RemoteGuest] = {}
        self._looked = now

    def greet(self, hello: Hello, now: float) -> None:
        """A program begins a link; one that it had is over."""
        before = self._by_program.get(hello.program)
        if before is not None:
            if before.link == hello.link:
                return
            self._drop(before)
        guest = RemoteGuest(self._driver, f"{self._prefix}.p.{hello.program}", hello.link, now)
        self._by_program[hello.program] = self._by_link[hello.link] = guest

    def hear(self, data: bytes, reply: str, now: float) -> None:
        """A message of some link."""
        link, number, kind = HEAD.unpack_from(data)
        guest = self._by_link.get(link)
        if guest is None:
            if reply:
                self._driver.post(reply, notice(link, LOST))
            return
        guest.heard = now
        try:
            said = guest.incoming.take(number, kind, data[HEAD.size :])
        except Gap:
            guest.notice(LOST)
            self._drop(guest)
            return
        if kind == PULSE:
            guest.pulse()
        elif kind in (DATA, MORE) and said:
            self._owner.give(guest, said)

    def look(self, now: float) -> None:
        """Detach programs that are not heard any more; unless it is we who have slept."""
        slept = now - self._looked > _SLEPT_S
        self._looked = now
        for guest in list(self._by_link.values()):
            if slept:
                guest.heard = now
            elif now - guest.heard > GONE_S:
                self._drop(guest)

    def leave(self) -> None:
        """Tell all that this owner is none any more."""
        for guest in self._by_link.values():
            guest.notice(LEAVE)
        self._by_link.clear()
        self._by_program.clear()

    def _drop(self, guest: RemoteGuest) -> None:
        self._by_link.pop(guest.link, None)
        for program, one in list(self._by_program.items()):
            if one is guest:
                del self._by_program[program]
        self._owner.drop(guest)
