"""Simulated calls: a driver whose calls share messages, and workers that report, settle, die and lose their connections.

The same server, network and faults as in `world`; other programs. They speak the vocabulary themselves, through the shipped
wire.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from manyhands.events import Collect, Collected, Failed, Lease, Put, Recall, Recalled, Reply, Request, Settle
from manyhands.events import Report as ReportCalls
from manyhands.model import Delivery, Ended, Kind, Message, Options, Settlement, part_id
from manyhands.testing.simulation.checker import Violation
from manyhands.testing.simulation.clients import Program, SimClient
from manyhands.testing.simulation.world import LIMITS, World
from manyhands.wire import ClientWire

CALLS = "tasks()"
STREAM = "the stream of the only driver"


class Asked:
    """A request that waits for its answer."""

    def __init__(self, request: Any) -> None:
        self.request = request
        self.reply: Reply | None = None

    def is_over(self) -> bool:
        return self.reply is not None


class CallState:
    """rids, seqs and answers: all that a program needs which speaks for itself. The shape of ClientState's shell side."""

    def __init__(self) -> None:
        self.woken: list[Asked] = []
        self.lost: list[int] = []
        self._rid = 0
        self._seqs: dict[str, int] = {}
        self._out: list[Request] = []
        self._pending: dict[int, Asked] = {}

    @property
    def has_output(self) -> bool:
        return bool(self._out)

    def drain(self) -> list[Request]:
        out, self._out = self._out, []
        return out

    def seq(self, stream: str) -> int:
        self._seqs[stream] = self._seqs.get(stream, 0) + 1
        return self._seqs[stream]

    def ask(self, make: Callable[..., Request], *args: object) -> Asked:
        self._rid += 1
        asked = self._pending[self._rid] = Asked(make(self._rid, *args))
        self._out.append(asked.request)
        return asked

    def on_replies(self, replies: Sequence[Reply], now: float) -> None:
        for reply in replies:
            if isinstance(reply, Recall):
                self._out.append(Recalled(reply.queue, []))
                continue
            asked = self._pending.pop(getattr(reply, "rid", 0), None)
            if asked is not None:
                asked.reply = reply
                self.woken.append(asked)


class CallClient(SimClient):
    """A process that speaks for itself."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.state: CallState = CallState()  # type: ignore[assignment]


class Ends:
    """What the driver knows of its calls. Each must end exactly once, with its own result."""

    def __init__(self) -> None:
        self.put: dict[str, int] = {}
        """Message id to the number of its calls; 0 is none but the message itself."""
        self.acked: set[str] = set()
        self.ended: dict[str, Ended] = {}

    def note(self, one: Ended) -> None:
        """An end has arrived, for the first time: what was acknowledged may not come again."""
        n = self.put.get(one.id.partition(".")[0], -1)
        if n < 0 or (one.n > 1 and not n):
            raise Violation(f"C2: {one} arrived, which is no call of ours")
        is_pack = n and "." not in one.id
        calls = [part_id(one.id, part) for part in range(one.first, one.first + one.n)] if is_pack else [one.id]
        for call in calls:
            if call in self.ended:
                raise Violation(f"C1: {call} ended twice: {self.ended[call]} and {one}")
            self.ended[call] = one
        if one.value is not None and one.value.decode().split() != calls:
            raise Violation(f"C2: the result of {calls} is {one.value!r}")

    def missing(self) -> list[str]:
        """Calls whose put was acknowledged and of which nothing was heard."""
        return [
            call
            for name in self.acked
            for call in ([part_id(name, part) for part in range(self.put[name])] or [name])
            if call not in self.ended
        ]


def driver(client: CallClient, ends: Ends, total: int, rng: random.Random, pause_s: float) -> Program:
    """Put calls, some of them in packs, and gather their ends with one Collect after the other."""
    state, ack, n = client.state, 0, 0
    puts: list[tuple[str, Asked]] = []
    collecting = state.ask(Collect, STREAM, 0, rng.choice((-1.0, 2.0)))
    while n < total or puts or ends.missing():
        while n < total and len(puts) < 3:
            n += 1
            name, calls = f"m{n}", rng.choice((0, 0, 2, 5))
            options = Options(reply_to=STREAM, calls=calls)
            message = Message(name, name.encode(), kind=Kind.CALL, max_deliveries=rng.choice((1, 9, 9)), options=options)
            ends.put[name] = calls
            seq = state.seq(CALLS)
            puts.append((name, state.ask(Put, CALLS, seq, max(1, seq - 10), [message])))
        yield rng.uniform(0.0, pause_s)
        for name, put in [(name, put) for name, put in puts if put.is_over()]:
            if isinstance(put.reply, Failed):
                raise Violation(f"a put was refused: {put.reply.text}")
            ends.acked.add(name)
            puts.remove((name, put))
        if isinstance(collecting.reply, Collected):
            for one in collecting.reply.ended:
                ends.note(one)
            ack = collecting.reply.number
        if collecting.is_over():
            collecting = state.ask(Collect, STREAM, ack, rng.choice((-1.0, 2.0)))


def worker(client: CallClient, rng: random.Random, work_s: float) -> Program:
    """Run calls for ever: lease a few messages, report now and then, settle each, now and then not all of it."""
    state = client.state
    while True:
        n = rng.choice((1, 1, 3))
        leasing = state.ask(Lease, CALLS, n, n, rng.choice((-1.0, 2.0)))
        yield leasing
        for delivery in leasing.reply.deliveries:  # type: ignore[union-attr]
            yield from _run(state, delivery, rng, work_s)


def _run(state: CallState, delivery: Delivery, rng: random.Random, work_s: float) -> Program:
    message = delivery.message
    assert message.options is not None
    calls = [part_id(message.id, part) for part in range(message.options.calls)] or [message.id]
    done: list[str] = []
    for number, call in enumerate(calls):
        yield rng.uniform(0.0, work_s * 2)
        done.append(call)
        if len(calls) > number + 1 and rng.random() < 0.2:
            report = state.ask(ReportCalls, seq := state.seq(""), max(1, seq - 10), delivery.token, len(done), _result(done))
            done = []
            if rng.random() < 0.5:
                yield report
                if isinstance(report.reply, Failed):
                    return  # the rest of it is somebody else's
        if rng.random() < 0.05:
            break  # it gives the rest back
    seq = state.seq("")
    settlement = Settlement(delivery.token, result=_result(done), calls=len(done))
    if not done:
        settlement = Settlement(delivery.token, kind=3)
    settling = state.ask(Settle, seq, max(1, seq - 10), [settlement])
    if rng.random() < 0.5:
        yield settling


def _result(done: list[str]) -> bytes:
    return " ".join(done).encode()


class CallsWorld(World):
    """One driver, some workers, and the faults that a seed chooses. The driver is never killed: its calls would end too."""

    def __init__(
        self,
        seed: int,
        *,
        make_wire: Callable[..., ClientWire] = ClientWire,
        faults: int | None = None,
        total: int | None = None,
    ) -> None:
        super().__init__(seed, make_wire=make_wire, faults=faults)
        rng = self.schedule.rng
        self.ends = Ends()
        self.total = total if total is not None else rng.randint(5, 60)
        workers = rng.randint(1, 5)
        self._makers = {"driver": lambda client: driver(client, self.ends, self.total, rng, self._pause_s)}  # type: ignore[arg-type]
        for n in range(workers):
            self._makers[f"w{n}"] = lambda client: worker(client, rng, self._work_s)  # type: ignore[arg-type]

    def _start(self, name: str) -> None:
        self.clients[name] = CallClient(
            self.schedule, self.network, self._keyring, LIMITS, name, self._makers[name], self._make_wire
        )

    def _pick_victim(self) -> str:
        return self.schedule.rng.choice([name for name in self._makers if name != "driver"])

    def _total(self) -> int:
        return self.total * 5

    def _is_drained(self) -> bool:
        if self._faults_left or len(self.ends.acked) < self.total or not self._server.is_up:
            return False
        return not self.ends.missing()

    def _dead(self) -> set[str]:
        return set()

    def _left(self) -> str:
        missing = self.ends.missing()
        return (
            f"{len(self.ends.acked)} of {self.total} puts acknowledged, {len(missing)} calls have not ended: {missing[:5]}"
        )
