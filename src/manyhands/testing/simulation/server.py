"""A simulated server on a simulated disk: the shipped core and the shipped wire, run as the sqlite engine runs them.

What has gathered is applied, committed once, and only then do its effects leave. A crash keeps exactly the change sets that
were committed; steps under way vanish with their effects.

```
 bytes ─> ServerWire ─> inbox ─(one batch)─> Core.apply ─> effects, changes ─> disk (takes its time) ─> effects leave
                                                                       crash here: neither ─┘
```
"""

from __future__ import annotations

from collections.abc import Callable

from manyhands.auth import Keyring
from manyhands.errors import ManyhandsError
from manyhands.events import Attach, Attached, Granted, Reply, Request, Settle, Settled
from manyhands.lifecycle import Core
from manyhands.lifecycle.changes import Change
from manyhands.lifecycle.replay import Replay
from manyhands.model import Durability, Features, Limits, SettleKind
from manyhands.testing.simulation.checker import Checker, Violation
from manyhands.testing.simulation.network import End, Network
from manyhands.testing.simulation.schedule import Event, Schedule
from manyhands.wire import Authenticated, PeerIsStock, ServerWire


class Disk:
    """What was committed, and how long a commit takes."""

    def __init__(self) -> None:
        self.store = Replay()
        self.epoch = 0
        self.commit_s = 0.0005


class Connection:
    """One accepted connection."""

    def __init__(self, end: End, wire: ServerWire) -> None:
        self.end = end
        self.wire = wire
        self.session = ""


_Arrival = tuple[Connection, "Attach | list[Request] | None"]
"""None: the connection ended."""
_Effect = tuple[Connection, "Reply | Attached"]


class SimServer:
    """One server process after another on the same disk."""

    def __init__(
        self, schedule: Schedule, network: Network, keyring: Keyring, limits: Limits, checker: Checker, disk: Disk
    ) -> None:
        self.disk = disk
        self.is_up = False
        self._schedule = schedule
        self._network = network
        self._keyring = keyring
        self._limits = limits
        self._checker = checker
        self._life = 0
        self._doom: tuple[bool, Callable[[], None]] | None = None
        self._applied_settles: set[tuple[str, int]] = set()

    # -- life and death --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Open the disk and listen."""
        self._life += 1
        self.disk.epoch += 1
        self.is_up = True
        now = self._schedule.now()
        snapshot = self.disk.store.snapshot()
        self.core = Core(limits=self._limits, epoch=self.disk.epoch, is_journaled=True, snapshot=snapshot, now=now)
        self._inbox: list[_Arrival] = []
        self._connections: dict[str, Connection] = {}
        self._all: list[Connection] = []
        self._is_committing = False
        self._timer: Event | None = None
        self._is_frozen = False
        self._backlog: list[Callable[[], None]] = []
        self._network.listen(self._accept)
        self._schedule.note(f"server: started, epoch {self.disk.epoch}")
        self._arm()

    def crash(self) -> None:
        """The process is killed."""
        self._schedule.note("server: killed")
        self.is_up = False
        self._life += 1
        self._network.listen(None)
        for connection in self._all:
            connection.end.close()

    def crash_at_commit(self, then: Callable[[], None], *, is_stored: bool) -> None:
        """Be killed in the next commit: when the disk has it and nobody was told yet, or just before the disk has it."""
        self._doom = (is_stored, then)

    def freeze(self, seconds: float) -> None:
        """The process is stopped, or its machine sleeps."""
        if self.is_up and not self._is_frozen:
            self._is_frozen = True
            life = self._life
            self._schedule.after(seconds, lambda: self._thaw() if life == self._life else None)

    def _thaw(self) -> None:
        self._is_frozen = False
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            action()

    def _later(self, delay_s: float, action: Callable[[], None]) -> Event:
        """Do it in this life of the server, or not at all; not while it is stopped."""
        life = self._life
        return self._schedule.after(delay_s, lambda: self._do(action) if life == self._life else None)

    def _do(self, action: Callable[[], None]) -> None:
        """Do it now, or once the process goes on, in the order in which it came."""
        if self._is_frozen:
            self._backlog.append(action)
        else:
            action()

    # -- connections -----------------------------------------------------------------------------------------------

    def _accept(self, end: End) -> None:
        wire = ServerWire(
            keyring=self._keyring, random=self._schedule.rng.randbytes(40), max_body_bytes=self._limits.max_body_bytes
        )
        connection = Connection(end, wire)
        self._all = [other for other in self._all if other.end.is_open]
        self._all.append(connection)
        life = self._life
        end.on_bytes = lambda data: self._do(lambda: self._heard(connection, data)) if life == self._life else None
        end.on_closed = lambda: self._do(lambda: self._ended(connection)) if life == self._life else None
        self._later(0.0, lambda: end.send(wire.greeting()))

    def _heard(self, connection: Connection, data: bytes) -> None:
        view = memoryview(data)
        while view:
            buffer = connection.wire.get_buffer()
            n = min(len(buffer), len(view))
            buffer[:n] = view[:n]
            view = view[n:]
            try:
                events = connection.wire.received(n)
            except ManyhandsError as error:
                raise Violation(f"the server refused what a client sent: {error}") from error
            requests: list[Request] = []
            for event in events:
                if isinstance(event, Authenticated):
                    connection.end.send(event.reply)
                elif isinstance(event, PeerIsStock):
                    raise Violation("a native client was taken for one of the standard library")
                elif isinstance(event, Attach):
                    self._inbox.append((connection, event))
                else:
                    requests.append(event)
            if requests:
                self._inbox.append((connection, requests))
        self._go()

    def _ended(self, connection: Connection) -> None:
        self._inbox.append((connection, None))
        self._go()

    # -- batches ---------------------------------------------------------------------------------------------------

    def _go(self) -> None:
        if self._is_committing:
            return
        self._is_committing = True
        self._later(0.0, self._batch)

    def _batch(self) -> None:
        arrivals, self._inbox = self._inbox, []
        effects: list[_Effect] = []
        changes: list[Change] = []
        settles: dict[tuple[str, int], Settle] = {}
        now = self._schedule.now()
        self.core.tick(now)
        self._take(effects, changes)
        for connection, event in arrivals:
            if event is None:
                if self._connections.get(connection.session) is connection:
                    self.core.detach(connection.session, now)
                    self._take(effects, changes)
                    del self._connections[connection.session]
            elif isinstance(event, Attach):
                self._take_over(connection, event.session)
                is_resumed, lost = self.core.attach(event, now)
                effects.append((connection, self._attached(is_resumed, lost)))
                self._take(effects, changes)
            elif self._connections.get(connection.session) is connection:
                for request in event:
                    if isinstance(request, Settle):
                        settles[connection.session, request.rid] = request
                self.core.apply(connection.session, event, now)
                self._take(effects, changes)
        self._later(self.disk.commit_s, lambda: self._commit(effects, changes, settles))

    def _take_over(self, connection: Connection, session: str) -> None:
        connection.session = session
        before = self._connections.get(session)
        self._connections[session] = connection
        if before is not None:
            before.end.close()

    def _attached(self, is_resumed: bool, lost: list[int]) -> Attached:
        durability = Durability("disk", "A simulated disk; an acknowledgement follows its commit.")
        return Attached("simulated", durability, Features(survives_restart=True), self._limits, is_resumed, lost)

    def _take(self, effects: list[_Effect], changes: list[Change]) -> None:
        step = self.core.take()
        for session, reply in step.effects:
            if (connection := self._connections.get(session)) is not None:
                effects.append((connection, reply))
        changes.extend(step.changes)

    def _commit(self, effects: list[_Effect], changes: list[Change], settles: dict[tuple[str, int], Settle]) -> None:
        doom, self._doom = self._doom, None
        if doom is None or doom[0]:
            self.disk.store.apply(changes)
            for connection, reply in effects:
                self._check(connection, reply, settles)
        if doom is not None:
            self.crash()
            doom[1]()
            return
        for connection, reply in effects:
            if connection.end.is_open:
                connection.end.send(b"".join(bytes(buffer) for buffer in connection.wire.encode([reply])))
        self._is_committing = False
        if self._inbox:
            self._go()
        self._arm()

    def _check(self, connection: Connection, reply: Reply | Attached, settles: dict[tuple[str, int], Settle]) -> None:
        if isinstance(reply, Granted):
            for delivery in reply.deliveries:
                self._checker.granted(delivery.message.id, delivery.token, connection.session)
        elif isinstance(reply, Settled) and (settle := settles.get((connection.session, reply.rid))) is not None:
            if (connection.session, settle.seq) in self._applied_settles:
                if not reply.lost:
                    self._checker.settled_again([settlement.token for settlement in settle.settlements])
                return
            self._applied_settles.add((connection.session, settle.seq))
            for settlement in settle.settlements:
                if settlement.token not in reply.lost:
                    is_done = settlement.kind in (SettleKind.ACK, SettleKind.REJECT)
                    self._checker.settled(settlement.token, connection.session, is_done=is_done)

    def dead(self, queue: str) -> set[bytes]:
        """The bodies of the committed dead letters."""
        return {
            stored.message.body
            for stored in self.disk.store.snapshot().messages
            if stored.died_at > 0 and stored.queue == queue
        }

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.core.next_due()
        if due is not None and not self._is_committing:
            self._timer = self._later(max(0.0, due - self._schedule.mono), self._go)
