"""What a pool inside the worker's own process asks of the engine: work for free slots, and the end of each delivery. Pure.

    Lease for the free slots ──> Granted ──> a slot each ──> Settle, and a Lease for the slots that are free by then

Nothing is prefetched: what is taken is begun at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manyhands.events import FOREVER, Granted, Lease, Report, Request, Settle, Withdraw
from manyhands.model import CALLS, Delivery, Settlement


class Taking:
    """One session's requests. Not thread-safe.

    Args:
        queues: as users name them, in order of preference.
        slots: how many deliveries are worked on at a time.
        new_rid: makes the rids of requests.
    """

    def __init__(self, queues: Sequence[str], slots: int, new_rid: Callable[[], int]) -> None:
        self._queues = [queue + CALLS for queue in queues]
        self._new_rid = new_rid
        self.free = slots
        self.is_draining = False
        self._lease = 0  # the rid of the Lease that waits; 0: none
        self._seq = 0
        self._unanswered: dict[int, int] = {}  # rid to seq

    def ask(self) -> list[Request]:
        """A Lease for the free slots, unless one waits already."""
        if self._lease or not self.free or self.is_draining:
            return []
        self._lease = self._new_rid()
        first, *others = self._queues
        return [Lease(self._lease, first, self.free, self.free, FOREVER, others)]

    def granted(self, reply: Granted) -> tuple[str, list[Delivery]]:
        """What a Lease brought, and from which queue; each takes a slot."""
        if reply.rid == self._lease:
            self._lease = 0
        self.free -= len(reply.deliveries)
        return reply.queue or self._queues[0], reply.deliveries

    def failed(self, rid: int) -> None:
        """A request was refused: a Lease of a queue that was shut down is asked anew with the next that ends."""
        if rid == self._lease:
            self._lease = 0
        self.answered(rid)

    def ended(self, settlement: Settlement) -> list[Request]:
        """A delivery is over, and its slot free."""
        self.free += 1
        settle = Settle(self._new_rid(), self._next_seq(), 0, [settlement])
        return [self._numbered(settle), *self.ask()]

    def reported(self, token: int, calls: int, result: bytes) -> list[Request]:
        """The next calls of a pack have ended, and its delivery goes on."""
        return [self._numbered(Report(self._new_rid(), self._next_seq(), 0, token, calls, result))]

    def _next_seq(self) -> int:
        self._seq += 1
        return self._seq

    def _numbered(self, request: Settle | Report) -> Request:
        self._unanswered[request.rid] = request.seq
        floor = min(self._unanswered.values())
        if isinstance(request, Settle):
            return Settle(request.rid, request.seq, floor, request.settlements)
        return Report(request.rid, request.seq, floor, request.token, request.calls, request.result)

    def answered(self, rid: int) -> None:
        """The engine has answered."""
        self._unanswered.pop(rid, None)

    @property
    def is_settled(self) -> bool:
        """Whether the engine has confirmed all that ended."""
        return not self._unanswered

    def drain(self) -> list[Request]:
        """Take nothing more."""
        self.is_draining = True
        lease, self._lease = self._lease, 0
        return [Withdraw(lease)] if lease else []
