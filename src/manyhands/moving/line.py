"""The move of one queue's items, or of its calls. Pure: replies in, requests out.

```
              ┌───────────── something came ─────────────┐
              v                                          │
 open ──> eager: leases ahead ──nothing came──> dry: looks at the numbers ──> waits in a lease at the source
                                                         └── nothing is left, and nobody is to be followed ──> done
```

Nothing of a lease is begun, so that a move which dies charges no message a delivery, and the source's own workers may ask
for what it holds. Puts leave in the order in which the source gave the messages.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from manyhands.errors import SealBroken
from manyhands.events import (
    Bury,
    Count,
    DeadDrop,
    DeadLetters,
    DeadList,
    Declare,
    Done,
    Failed,
    Granted,
    Lease,
    Put,
    QueueInfo,
    Recall,
    Recalled,
    Settle,
    Settled,
    Size,
    Withdraw,
)
from manyhands.model import Delivery, Message, QueueStats, SettleKind, Settlement
from manyhands.moving.translating import stays

if TYPE_CHECKING:
    from manyhands.moving.move import Move

FIRST_N, MOST_N = 32, 500
BATCH_BYTES = 2 * 1024 * 1024
"""About how much one lease asks for; a store that writes it does little else meanwhile."""
AHEAD = 3
"""How many leases and puts of one queue are on their way."""
MAX_HELD = 1000
"""How many messages that stay are held, to get at those behind them."""
LETTERS = 20


class Line:
    """One of a move's lines."""

    def __init__(self, move: Move, name: str, stats: QueueStats) -> None:
        self.name = name
        self.stats = stats
        """The source's numbers, when it was last asked."""
        self.is_done = False
        self.flying = 0
        """Messages that the source has given and not yet been told of as moved."""
        self.held: dict[int, Message] = {}
        """What stays, by its token: held so that others come up, given back to whoever at the source wants it."""
        self.dead_staying = 0
        self._move = move
        self._asked = 0
        self._waiting = 0
        """The rid of the lease that waits at the source."""
        self._is_dry = False
        self._max_n = FIRST_N
        self._bound = 0
        self._is_ready = False
        self._has_letters = False
        """Whether dead letters are on their way."""

    def open(self) -> None:
        """Make the queue at the target, with the source's bound if it has none of its own."""
        target = self._move.target
        target.ask(lambda rid: Declare(rid, self.name, self.stats.maxsize), lambda _: None, self._has_its_own)
        target.ask(lambda rid: Size(rid, self.name), self._opened)

    def _has_its_own(self, failed: Failed) -> None:
        if failed.code != "usage":  # it has another bound, which it keeps
            self._move.fail(failed, f"the target refused queue {self.name!r}")

    def _opened(self, info: QueueInfo) -> None:
        self._bound = info.stats.maxsize
        self._is_ready = True
        self.pump()
        self._move_letters()

    # -- taking

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing that it could take now."""
        return self.is_done or (self._is_dry and not self.flying and not self._has_letters)

    def pump(self) -> None:
        """Ask for more, as far as there is room."""
        move = self._move
        if not self._is_ready or self.is_done or self._is_dry or self._waiting or len(self.held) >= MAX_HELD:
            return
        while not move.is_stopping and self._asked < AHEAD and move.has_room:
            self._ask(0.0)

    def _ask(self, wait_s: float) -> int:
        self._asked += 1
        max_n = min(self._max_n, self._bound or self._max_n)
        return self._move.source.ask(
            lambda rid: Lease(rid, self.name, max_n, 0, wait_s, [], is_move=True), self._granted, self._refused
        )

    def _refused(self, failed: Failed) -> None:
        if failed.code != "shut_down":  # of a queue that was shut down, what is left comes all the same
            self._move.fail(failed, f"the source refused to give out queue {self.name!r}")
            return
        self._granted(Granted(0, []))

    def _granted(self, granted: Granted) -> None:
        self._asked -= 1
        self._waiting = 0
        if not granted.deliveries:
            self._is_dry = True
            self._look()
            return
        self._is_dry = False
        self._take(granted.deliveries)
        self.pump()

    def _take(self, deliveries: list[Delivery]) -> None:
        move, size = self._move, 0
        tokens: list[int] = []
        ends: list[Settlement] = []
        messages: list[Message] = []
        for delivery in deliveries:
            message, token = delivery.message, delivery.token
            if stays(message) or len(message.body) > move.max_body_bytes:
                self.held[token] = message
                continue
            try:
                messages.append(move.translator.message(self.name, delivery))
            except SealBroken as error:
                self._settle([Settlement(token, SettleKind.REJECT, reason=str(error))])
                move.refused += 1
                continue
            size += len(message.body)
            tokens.append(token)
            ends.append(Settlement(token, SettleKind.MOVED, reason=move.translator.told(message)))
        if not messages:
            return
        average = max(1, size // len(messages))
        self._max_n = max(1, min(MOST_N, 4 * self._max_n, BATCH_BYTES // average))
        self.flying += len(messages)
        move.flying += len(messages)
        move.flying_bytes += size
        seqs = move.target.seqs(self.name)
        seq, floor = seqs.next()

        def put(done: Done) -> None:
            seqs.answered(seq)
            self._settle(ends, size)

        move.target.ask(
            lambda rid: Put(rid, self.name, seq, floor, messages), put, partial(self._not_put, size_n=len(messages))
        )

    def _not_put(self, failed: Failed, size_n: int) -> None:
        self._move.fail(failed, f"the target refused {size_n} messages of queue {self.name!r}, which stay at the source")

    def _settle(self, ends: list[Settlement], size: int = -1) -> None:
        """Tell the source; size: of the bodies that were moved, below 0 none were."""
        move = self._move
        seqs = move.source.seqs("")
        seq, floor = seqs.next()

        def settled(reply: Settled) -> None:
            seqs.answered(seq)
            if size < 0:
                return
            self.flying -= len(ends)
            move.flying -= len(ends)
            move.flying_bytes -= size
            move.moved += len(ends) - len(reply.lost)
            move.size_bytes += size
            move.overtaken += len(reply.lost)
            if self._is_dry:
                self._look()
            move.pump()

        move.source.ask(lambda rid: Settle(rid, seq, floor, ends), settled)

    def recalled(self, recall: Recall) -> None:
        """Somebody at the source waits: what stays is for them; what is on its way to the target is not given back."""
        tokens = list(self.held)[: recall.n]
        for token in tokens:
            del self.held[token]
        if self._waiting and tokens:  # or it would be given what it gives back
            self._move.source.tell(Withdraw(self._waiting))
        self._move.source.tell(Recalled(self.name, tokens))

    # -- the end of it

    def _look(self) -> None:
        """Have a look at the numbers, once everything has arrived."""
        if not self._asked and not self.flying and not self.is_done:
            self._move.want_stats()

    def judge(self) -> None:
        """The numbers are new: is it over, or to be waited for?"""
        if self.is_done or not self._is_ready:
            return
        if self.stats.dead > self.dead_staying:
            self._move_letters()
        is_blocked = len(self.held) >= MAX_HELD
        if self._asked or self.flying or self._move.is_stale or not (self._is_dry or is_blocked):
            return
        is_over = not self._has_letters and (is_blocked or not self.left)
        if self._move.is_stopping or (is_over and not self._move.is_following):
            self.is_done = True
        elif not is_blocked:
            self._waiting = self._ask(self._move.wait_s)

    @property
    def left(self) -> int:
        """How many there are that this move is to take."""
        stats = self.stats
        dead = max(0, stats.dead - self.dead_staying) if self._move.takes_letters else 0
        leased = max(0, stats.leased - len(self.held))
        return stats.ready + stats.delayed + leased + sum(stats.parked.values()) + dead

    @property
    def working(self) -> int:
        """How many other consumers of the source have in hand."""
        return max(0, self.stats.leased - len(self.held) - self.flying)

    # -- dead letters

    def _move_letters(self) -> None:
        move = self._move
        if self._has_letters or move.is_stopping or not move.takes_letters or self.stats.dead <= self.dead_staying:
            return
        self._has_letters = True
        limit = LETTERS + self.dead_staying
        move.source.ask(lambda rid: DeadList(rid, self.name, [], limit), self._letters)

    def _letters(self, reply: DeadLetters) -> None:
        move = self._move
        moving, size = [], 0
        for letter in reply.letters:
            message = letter.message
            if stays(message) or len(message.body) > move.max_body_bytes:
                continue
            try:
                moving.append(move.translator.letter(letter))
            except SealBroken:
                continue
            size += len(message.body)
        self.dead_staying = len(reply.letters) - len(moving)
        if not moving:
            self._has_letters = False
            self._look()
            return
        ids = [letter.message.id for letter in moving]

        def dropped(count: Count) -> None:
            self._has_letters = False
            move.dead += count.n
            move.size_bytes += size
            move.want_stats()

        def buried(_: Count) -> None:
            move.source.ask(lambda rid: DeadDrop(rid, self.name, ids), dropped)

        move.target.ask(lambda rid: Bury(rid, moving), buried)
