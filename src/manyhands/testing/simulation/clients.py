"""A simulated process: the shipped ClientState over the shipped ClientWire, with a program on top.

A program is a generator. It yields a `Call` to wait for its answer, a `Wait` to do so for a limited time, or a number of
seconds to let pass; everything else it does through the client's verbs, which do what the threaded client's shell does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

from manyhands.auth import Keyring
from manyhands.client.records import Call, Held
from manyhands.client.state import ClientState
from manyhands.errors import ManyhandsError, ProtocolError, ServerUnavailable
from manyhands.events import FOREVER, Declare, Failed, Request
from manyhands.model import Limits, Message, SettleKind
from manyhands.testing.simulation.checker import Violation
from manyhands.testing.simulation.network import End, Network
from manyhands.testing.simulation.schedule import Event, Schedule
from manyhands.wire import ClientWire

CONSUMER = "main"


class Awaited(Protocol):
    """What a program may wait for."""

    def is_over(self) -> bool: ...


class Wait(NamedTuple):
    """Go on when the call is over, or at `until` without."""

    call: Awaited
    until: float


Program = Generator[Awaited | Wait | float, None, None]


class SimClient:
    """One incarnation of a process. A crashed one is over; another takes its place under another session."""

    def __init__(
        self,
        schedule: Schedule,
        network: Network,
        keyring: Keyring,
        limits: Limits,
        name: str,
        program: Callable[[SimClient], Program],
        make_wire: Callable[..., ClientWire] = ClientWire,
    ) -> None:
        self.name = name
        self.state = ClientState()
        self.session = schedule.rng.randbytes(16).hex()
        self.wire = make_wire(
            keyring=keyring,
            session=self.session,
            attach_name=name,
            heartbeat_s=limits.heartbeat_s,
            max_body_bytes=limits.max_body_bytes,
        )
        self.is_over = False
        self.is_frozen = False
        self.end: End | None = None
        self._schedule = schedule
        self._network = network
        self._backlog: list[Callable[[], None]] = []
        self._timer: Event | None = None
        self._waits_for: Awaited | None = None
        self._program = program(self)
        schedule.after(schedule.rng.uniform(0.0, 0.05), self._guarded(self._connect))
        schedule.after(0.0, self._guarded(self._go_on))

    @property
    def now(self) -> float:
        return self._schedule.mono

    # -- faults ----------------------------------------------------------------------------------------------------

    def crash(self) -> None:
        """The process is killed: nothing of it goes on, its socket is closed by its system."""
        self.is_over = True
        if self.end is not None:
            self.end.close()

    def freeze(self, seconds: float) -> None:
        """The process is stopped: what happens to it meanwhile waits until it goes on."""
        self.is_frozen = True
        self._schedule.after(seconds, self._thaw)

    def _thaw(self) -> None:
        self.is_frozen = False
        backlog, self._backlog = self._backlog, []
        for action in backlog:
            self._guarded(action)()

    def _guarded(self, action: Callable[[], None]) -> Callable[[], None]:
        """The action as something that happens only to a live process, and later to a stopped one."""

        def act() -> None:
            if self.is_over:
                return
            if self.is_frozen:
                self._backlog.append(action)
                return
            action()

        return act

    # -- the connection --------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        end = self._network.connect(self.name)
        if end is None:
            self._lost()
            return
        self.end = end
        end.on_bytes = lambda data: self._guarded(lambda: self._received(end, data))()
        end.on_closed = self._guarded(lambda: self._lost() if self.end is end else None)
        self.wire.connection_made(self.now, self._schedule.rng.randbytes(32))
        self._flush()

    def _received(self, end: End, data: bytes) -> None:
        if self.end is not end:
            return
        view = memoryview(data)
        while view and self.end is end:
            buffer = self.wire.get_buffer()
            n = min(len(buffer), len(view))
            buffer[:n] = view[:n]
            view = view[n:]
            try:
                replies = self.wire.received(n, self.now)
            except ManyhandsError as error:
                raise Violation(f"{self.name} refused what the server sent: {error}") from error
            self.state.on_replies(replies, self.now)
        self._wake()
        self._flush()

    def _lost(self) -> None:
        if self.end is not None:
            self._schedule.note(f"{self.name}: connection lost")
            end, self.end = self.end, None
            end.close()
        self.wire.connection_lost(self.now)
        at = self.wire.next_attempt_at(self.now, self._schedule.rng.random())
        self._schedule.after(at - self.now, self._guarded(self._connect))
        self._arm()

    def _tick(self) -> None:
        try:
            self.wire.tick(self.now)
        except (ServerUnavailable, ProtocolError) as error:
            self._schedule.note(f"{self.name}: {error}")
            self._lost()
            return
        self._flush()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.wire.next_due()
        if due is not None:
            self._timer = self._schedule.after(due - self.now, self._guarded(self._tick))

    def _flush(self) -> None:
        if self.state.has_output:
            local = self.wire.send(self.state.drain())
            if local:
                self.state.on_replies(local, self.now)
                self._wake()
        while self.end is not None and (buffers := self.wire.data_to_send()):
            self.end.send(b"".join(bytes(buffer) for buffer in buffers))
        self._arm()

    # -- the program -----------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        woken, self.state.woken = self.state.woken, []
        self.state.lost.clear()
        if self._waits_for is not None and self._waits_for in woken and self._waits_for.is_over():
            self._waits_for = None
            self._schedule.after(0.0, self._guarded(self._go_on))

    def _go_on(self) -> None:
        try:
            wanted = next(self._program)
        except StopIteration:
            self._schedule.note(f"{self.name}: program ended")
            self._flush()
            return
        self._flush()
        if isinstance(wanted, float):
            self._schedule.after(wanted, self._guarded(self._go_on))
            return
        call = wanted.call if isinstance(wanted, Wait) else wanted
        if call.is_over():
            self._schedule.after(0.0, self._guarded(self._go_on))
            return
        self._waits_for = call
        if isinstance(wanted, Wait):
            self._schedule.after(wanted.until - self.now, self._guarded(lambda: self._give_up(call)))

    def _give_up(self, call: Awaited) -> None:
        if self._waits_for is call:
            self._waits_for = None
            self._go_on()

    # -- what programs do ------------------------------------------------------------------------------------------

    def declare(self, queue: str, maxsize: int) -> Call:
        return self.state.call(Declare, queue, maxsize)

    def ask(self, make: Callable[..., Request], *args: object) -> Call:
        return self.state.call(make, *args)

    def put(self, queue: str, messages: list[Message], wait_s: float = FOREVER) -> Call:
        return self.state.put(self.state.queue(queue), messages, wait_s)

    def get(
        self, queue: str, timeout_s: float | None = None, patience_s: float = 5.0
    ) -> Generator[Awaited | Wait | float, None, Held | None]:
        """The next delivery under an implicit lease, or None when there was none in time.

        Args:
            patience_s: how long after its timeout (without one: after the beginning) the call is given up if the engine has
                not ended it, as an interrupted get is.
        """
        state, known = self.state, self.state.queue(queue)
        state.refused.pop(CONSUMER, None)
        if self.wire.attached is not None and self.wire.attached is not state.attached:
            state.on_attached(self.wire.attached)
        state.finish_previous(known, CONSUMER, self.now)
        held = state.take(known, CONSUMER, self.now)
        if held is None:
            deadline = None if timeout_s is None else self.now + timeout_s
            call = state.ask(known, CONSUMER, 1, deadline, self.now)
            yield Wait(call, (deadline or self.now) + patience_s)
            if not call.is_over():
                state.cancel(call)
                return None
            if not call.held:
                if isinstance(call.reply, Failed):
                    raise Violation(f"{self.name}: get failed: {call.reply.text}")
                return None
            held = call.held[0]
        state.hold(held)
        return held

    def put_result(self, held: Held, queue: str, body: bytes) -> None:
        """Put under the lease, ahead of its settlement."""
        digest = hashlib.blake2b(held.delivery.message.id.encode() + b"\0" + queue.encode() + b"\0" + body, digest_size=12)
        put_id = held.occurrence(digest.hexdigest())
        self.state.put_under(held, self.state.queue(queue), Message(put_id, body))

    def nack(self, held: Held, delay_s: float) -> None:
        """Give the implicit lease back, as a failing `receive` block does."""
        self.state.drop(held)
        self.state.settle(held, SettleKind.NACK, delay_s=delay_s, reason="chance")
