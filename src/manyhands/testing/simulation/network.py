"""A network that delays, tears streams into pieces, stalls and cuts at any byte; it keeps order, as TCP does.

```
 client ── End ──[ up: delayed pieces ]──> End ── server
        <──[ down: delayed pieces ]──
```
"""

from __future__ import annotations

from collections.abc import Callable

from manyhands.testing.simulation.schedule import Schedule

_SHORT_S, _LONG_S = 0.0002, 0.02
_HALF_OPEN_S = 8.0
"""How long one side may go on without noticing that the other is gone."""


class End:
    """One side of a connection. The owner sets the two callbacks and calls send and close."""

    def __init__(self, link: Link) -> None:
        self.on_bytes: Callable[[bytes], None] = _ignore
        self.on_closed: Callable[[], None] = _nothing
        self.is_open = True
        self._link = link

    def send(self, data: bytes) -> None:
        """Put bytes on the way; into a dead connection they vanish, and the sender learns it."""
        if self.is_open and data:
            self._link.carry(self, data)

    def close(self) -> None:
        """Close this side; what was sent before still arrives, then the other side sees the end."""
        if self.is_open:
            self.is_open = False
            self._link.ended_by(self)

    def fail(self) -> None:
        """This side learns that the connection is gone."""
        if self.is_open:
            self.is_open = False
            self.on_closed()


class Link:
    """One connection: two ends and the bytes between them."""

    def __init__(self, schedule: Schedule, name: str) -> None:
        self.name = name
        self.client, self.server = End(self), End(self)
        self.is_cut = False
        self._is_dropped = False
        self._schedule = schedule
        self._clear_at = {self.client: 0.0, self.server: 0.0}
        """When the last piece towards this end arrives: nothing overtakes it."""
        self._budget: dict[End, int | None] = {self.client: None, self.server: None}
        """How many more bytes towards this end pass before the cut."""

    def carry(self, sender: End, data: bytes) -> None:
        receiver = self.server if sender is self.client else self.client
        if self.is_cut:
            self._schedule.after(_LONG_S, sender.fail)
            return
        for piece in self._pieces(data):
            budget = self._budget[receiver]
            if budget is not None:
                piece = piece[:budget]
                self._budget[receiver] = budget - len(piece)
            if piece:
                self._deliver(receiver, piece)
            if budget is not None and self._budget[receiver] == 0:
                self.cut(keep_in_flight=True)
                return

    def _pieces(self, data: bytes) -> list[bytes]:
        rng = self._schedule.rng
        if len(data) < 2 or rng.random() < 0.6:
            return [data]
        at = rng.randrange(1, len(data))
        return [data[:at], data[at:]]

    def _deliver(self, receiver: End, piece: bytes) -> None:
        schedule = self._schedule
        delay_s = schedule.rng.uniform(_SHORT_S, _SHORT_S * 4 if schedule.rng.random() < 0.9 else _LONG_S)
        at = max(self._clear_at[receiver], schedule.mono + delay_s)
        self._clear_at[receiver] = at
        schedule.after(at - schedule.mono, lambda: self._arrive(receiver, piece))

    def _arrive(self, receiver: End, piece: bytes) -> None:
        if receiver.is_open and not self._is_dropped:
            receiver.on_bytes(piece)

    def stall(self, seconds: float) -> None:
        """Carry nothing for that long; then everything, in order."""
        until = self._schedule.mono + seconds
        for end in self._clear_at:
            self._clear_at[end] = max(self._clear_at[end], until)
        self._schedule.note(f"{self.name}: stalls for {seconds:.2f} s")

    def cut_at_byte(self, towards: End, n_bytes: int) -> None:
        """Let n_bytes more pass towards that end, then cut."""
        self._budget[towards] = n_bytes
        self._schedule.note(f"{self.name}: will be cut after {n_bytes} bytes")

    def cut(self, *, keep_in_flight: bool = False) -> None:
        """The connection is gone. Each side learns it at its own time, one of them perhaps much later (half open)."""
        if self.is_cut:
            return
        self.is_cut = True
        self._is_dropped = not keep_in_flight
        self._schedule.note(f"{self.name}: cut")
        rng = self._schedule.rng
        late = rng.choice([self.client, self.server, None, None, None])
        for end in (self.client, self.server):
            notice_s = rng.uniform(_LONG_S, _HALF_OPEN_S) if end is late else rng.uniform(0.0, _LONG_S)
            at = max(self._clear_at[end] if keep_in_flight else 0.0, self._schedule.mono + notice_s)
            self._schedule.after(at - self._schedule.mono, end.fail)

    def ended_by(self, closer: End) -> None:
        """One side closed: the other sees the end of the stream behind the last byte."""
        self.is_cut = True
        other = self.server if closer is self.client else self.client
        at = max(self._clear_at[other], self._schedule.mono + _SHORT_S)
        self._schedule.after(at - self._schedule.mono, other.fail)


class Network:
    """All connections between clients and the one server."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._links: list[Link] = []
        self._accept: Callable[[End], None] | None = None
        self._n = 0

    def listen(self, accept: Callable[[End], None] | None) -> None:
        """Where new connections go; None: nobody listens."""
        self._accept = accept

    def connect(self, name: str) -> End | None:
        """A new connection's client end, or None when it is refused."""
        if self._accept is None:
            return None
        self._n += 1
        link = Link(self._schedule, f"{name}#{self._n}")
        self._links = [old for old in self._links if not old.is_cut]
        self._links.append(link)
        self._accept(link.server)
        return link.client

    def links(self) -> list[Link]:
        """The connections that carry something."""
        return [link for link in self._links if not link.is_cut]


def _ignore(data: bytes) -> None:
    pass


def _nothing() -> None:
    pass
