"""This program's end of its link with the owner: over core NATS, or in memory where it is the owner itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from manyhands.engines.nats.driver import Driver
from manyhands.engines.nats.guests import LocalGuest
from manyhands.engines.nats.link import FROM_OWNER, Incoming, Outgoing, Said
from manyhands.engines.nats.owner import Owner
from manyhands.engines.nats.port import NatsPort
from manyhands.events import Attach, Attached, Reply, Request


class Link:
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
        """Requests, and with an empty list that an attach is over."""
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
        """Say how much was sent and has come."""
        self._driver.post(self._to, self._outgoing.pulse(self.incoming.received), self._inbox)


class OwnLink:
    """This program's end of a link with itself as the owner."""

    def __init__(self, owner: Owner, hear: Callable[[Said[Reply | Attached]], None]) -> None:
        self.owner = owner
        self.guest = LocalGuest(hear)

    def tell(self, said: Said[Request | Attach]) -> None:
        """The same as over NATS."""
        self.owner.give(self.guest, said)

    def remember(self, port: NatsPort, request: Request) -> None:
        """Nothing is lost in memory."""

    def untold(self) -> dict[NatsPort, list[Request]]:
        """None."""
        return {}
