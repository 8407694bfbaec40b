"""What a client keeps in mind: leases it holds, series of seqs, queues, and requests that await their answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any

import msgspec

from manyhands.client.pace import Pace
from manyhands.events import FOREVER, Reply
from manyhands.model import Delivery, Message

PUTS_UNDER_A_LEASE = 1024
"""So many puts go ahead unanswered under one lease. The engine keeps their ids until the lease ends, so there is a bound:
a producer that happens to hold a lease puts the rest like any other, and waits for the engine's word."""


class Held:
    """A delivery that a get returned and that is not settled yet."""

    __slots__ = (
        "_n_puts",
        "begun_at",
        "consumer",
        "delivery",
        "is_iterated",
        "is_settled",
        "may_put",
        "outer",
        "put_ids",
        "queue",
        "refused",
    )

    def __init__(self, queue: QueueState, consumer: Hashable, delivery: Delivery, begun_at: float) -> None:
        self.queue = queue
        self.consumer = consumer
        self.delivery = delivery
        self.begun_at = begun_at
        self.is_iterated = False
        """Whether it came from iterating: then its settlement counts as task_done."""
        self.is_settled = False
        self.refused = False
        """Whether a put under this lease was refused: then the engine has it back already."""
        self.outer: Held | None = None
        """What the consumer's puts were under before."""
        self.put_ids: dict[str, int] | None = None
        self.may_put = True
        """Whether another put may travel under this lease."""
        self._n_puts = 0

    def occurrence(self, put_id: str) -> str:
        """put_id, told apart from earlier equal puts under this lease."""
        self._n_puts += 1
        self.may_put = self._n_puts < PUTS_UNDER_A_LEASE
        if self.put_ids is None:
            self.put_ids = {put_id: 1}
            return put_id
        n = self.put_ids.get(put_id, 0)
        self.put_ids[put_id] = n + 1
        return f"{put_id}.{n}" if n else put_id


class Stream:
    """One series of seqs, with the lowest that still awaits its answer."""

    __slots__ = ("_answered", "floor", "last")

    def __init__(self) -> None:
        self.last = 0
        """The newest seq."""
        self.floor = 1
        self._answered: set[int] = set()

    def next(self) -> int:
        self.last += 1
        return self.last

    def answered(self, seq: int) -> None:
        if seq != self.floor:
            self._answered.add(seq)
            return
        self.floor += 1
        while self.floor in self._answered:
            self._answered.discard(self.floor)
            self.floor += 1


class QueueState:
    """One queue as this client sees it."""

    __slots__ = ("calls", "held", "is_dry", "is_explicit", "maxsize", "name", "pace", "prefetched", "puts", "refill_rid")

    def __init__(self, name: str) -> None:
        self.name = name
        self.puts = Stream()
        self.maxsize = -1
        """The bound as the engine last said it; -1 while unknown."""
        self.prefetched: deque[Delivery] = deque()
        """Leased to this client and returned by no get; oldest first."""
        self.held: dict[Hashable, list[Held]] = {}
        """Implicit leases by consumer, oldest first."""
        self.calls: dict[Call, None] = {}
        """Gets that wait, in order."""
        self.refill_rid = 0
        self.is_dry = False
        """Whether the last refill came back empty; the next get that has to wait asks again."""
        self.is_explicit = False
        """Whether this process has called task_done on it: from then on a get settles nothing."""
        self.pace = Pace()


class Call(msgspec.Struct, eq=False):
    """One request whose answer somebody waits for."""

    rid: int = 0
    reply: Reply | None = None
    waiter: Any = None
    """The shell's own: what to wake when the reply is there."""
    stream: Stream | None = None
    seq: int = 0
    # For a get only:
    queue: QueueState | None = None
    consumer: Hashable = None
    n: int = 1
    deadline: float | None = None
    held: list[Held] = []

    def is_over(self) -> bool:
        """Whether the answer, or what a get waited for, is there."""
        return self.reply is not None or bool(self.held)

    def wait_s(self, now: float) -> float:
        """What is left of the get's own timeout, as an engine takes it."""
        return FOREVER if self.deadline is None else max(0.0, self.deadline - now)


class Under:
    """Messages for one queue that are put under leases, on their way into one Put."""

    __slots__ = ("causes", "helds", "messages", "queue", "size_bytes")

    def __init__(self, queue: QueueState) -> None:
        self.queue = queue
        self.messages: list[Message] = []
        self.causes: list[int] = []
        self.helds: list[Held] = []
        self.size_bytes = 0


class Sent:
    """A request that nobody waits for, but whose answer matters."""

    __slots__ = ("helds", "queue", "seq", "settling", "stream")

    def __init__(
        self,
        stream: Stream | None = None,
        seq: int = 0,
        *,
        helds: list[Held] | None = None,
        queue: QueueState | None = None,
        settling: list[Held] | None = None,
    ) -> None:
        self.stream = stream
        self.seq = seq
        self.helds = helds
        """For puts under leases: those leases."""
        self.queue = queue
        """For a Lease: a refill, or one whose get has gone."""
        self.settling = settling
