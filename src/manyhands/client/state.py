"""What a client decides: which lease each consumer holds, what is prefetched, which put travels under which lease.

Pure: no threads, sockets or clocks. The threaded client calls it under a lock, the asyncio client from its loop, the
simulation on a virtual clock. Requests gather in the outbox until the shell drains it; answers come in by `on_replies`,
which names the calls to wake.

    get ──> take ──(prefetched)──> Held                      the consumer's implicit lease
             │ none
             └──> ask ──> Lease ··· Granted ──> first n to the caller, the rest prefetched
                                                    │
    next get by the same consumer: Settle(ACK) <────┘ Begin when a get returns one; Recalled when others wait for it

What leaves in one drain has this order: whatever was asked, Begin, Settle. So a put always travels ahead of the settlement
of the lease under which it was made.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Any

from manyhands.client.pace import to_give_back
from manyhands.client.records import Call, Held, QueueState, Sent, Stream, Under
from manyhands.errors import LeaseLost, from_code
from manyhands.events import (
    Attached,
    Begin,
    Closing,
    Done,
    Failed,
    Granted,
    Lease,
    Progressed,
    Put,
    Recall,
    Recalled,
    Reply,
    Request,
    Settle,
    Settled,
    Stop,
    TaskDone,
    Withdraw,
)
from manyhands.model import Delivery, Message, SettleKind, Settlement

_ASK_AT_MOST = 4096
"""A get_many may name any number; this bounds what one answer carries."""
_PUT_TOGETHER_BYTES = 64 * 1024
"""Puts under leases share a request up to this size: beyond it the request's own cost no longer matters."""


class ClientState:
    """See the module's text. Not thread-safe: the shell holds its lock around every call."""

    def __init__(self) -> None:
        self.queues: dict[str, QueueState] = {}
        self.outbox: list[Request] = []
        self.woken: list[Call] = []
        """Calls whose answer came; the shell wakes and clears them. At Closing also those still without one."""
        self.lost: list[Held] = []
        """Implicit leases that were no longer ours when they were settled; the shell logs and clears them."""
        self.refused: dict[Hashable, Exception] = {}
        """By consumer: why a put under its lease was refused; raised at its next call."""
        self.current: dict[Hashable, Held] = {}
        """By consumer: the lease under which its puts travel."""
        self.may_prefetch = True
        """Whether to ask for more than a get needs: in vain where the engine is at hand."""
        self.is_closing = False
        """Whether the engine's owner said goodbye and nothing has been heard since."""
        self._over: frozenset[str] = frozenset()
        """Queues that had been shut down when it said so."""
        self.attached: Attached | None = None
        self._rid = 0
        self._under: dict[str, Under] = {}
        self._settles = Stream()
        self._settlements: list[Settlement] = []
        self._settling: list[Held] = []
        self._begun: dict[str, list[int]] = {}
        self._pending: dict[int, Call | Sent] = {}

    # -- requests that are answered --------------------------------------------------------------------------------

    def queue(self, name: str) -> QueueState:
        """What is known of a queue; made when first named."""
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = QueueState(name)
        return queue

    def next_rid(self) -> int:
        self._rid += 1
        return self._rid

    def call(self, make: Any, *args: Any, **kwargs: Any) -> Call:
        """Ask something that changes nothing twice if sent twice: make(rid, *args, **kwargs)."""
        call = Call()
        call.rid = self.next_rid()
        self._pending[call.rid] = call
        self.gather()
        self.outbox.append(make(call.rid, *args, **kwargs))
        return call

    def put(self, queue: QueueState, messages: list[Message], wait_s: float) -> Call:
        """Put and wait for the engine's word."""
        if self._under or self._begun or self._settlements:
            self.gather()
        puts = queue.puts
        self._rid = rid = self._rid + 1
        puts.last = seq = puts.last + 1
        call = self._pending[rid] = Call(rid, stream=puts, seq=seq)
        self.outbox.append(Put(rid, queue.name, seq, puts.floor, messages, wait_s))
        return call

    def put_under(self, held: Held, queue: QueueState, message: Message) -> None:
        """Put ahead of the settlement of `held`, without waiting: if it never arrives, that lease's message comes again."""
        size = len(message.body)
        under = self._under.get(queue.name)
        if under is None or under.size_bytes + size > _PUT_TOGETHER_BYTES:
            if under is not None:
                self._gather_puts(under)
            under = self._under[queue.name] = Under(queue)
        under.messages.append(message)
        under.causes.append(held.delivery.token)
        under.helds.append(held)
        under.size_bytes += size

    def task_done(self, queue: QueueState, consumer: Hashable, now: float) -> Call | None:
        """Settle the consumer's oldest lease, else the process's oldest, else ask the engine to count only."""
        queue.is_explicit = True
        own = queue.held.get(consumer)
        if not own:
            own = min((helds for helds in queue.held.values() if helds), key=lambda helds: helds[0].begun_at, default=None)
        if own:
            held = own.pop(0)
            if not own:
                del queue.held[held.consumer]
            queue.pace.finished(now - held.begun_at)
            self.settle(held, is_task_done=True)
            return None
        call = self._sequenced(self._settles)
        self.outbox.append(TaskDone(call.rid, call.seq, self._settles.floor, queue.name))
        return call

    def settle_and_hear(self, held: Held, settlement: Settlement) -> Call | None:
        """Settle and wait for the engine's word; None when a refused put under the lease has given it back already."""
        self._end(held)
        if held.refused:
            return None
        call = self._sequenced(self._settles)
        self.outbox.append(Settle(call.rid, call.seq, self._settles.floor, [settlement]))
        return call

    def _sequenced(self, stream: Stream) -> Call:
        if self._under or self._begun or self._settlements:
            self.gather()
        self._rid = rid = self._rid + 1
        call = self._pending[rid] = Call(rid, stream=stream, seq=stream.next())
        return call

    # -- get -------------------------------------------------------------------------------------------------------

    def finish_previous(self, queue: QueueState, consumer: Hashable, now: float) -> None:
        """A get begins: the consumer is done with what its last one returned, unless the process counts by task_done."""
        previous = queue.held.get(consumer)
        if previous is None:
            return
        if queue.is_explicit:
            ended = [held for held in previous if held.is_iterated]
            previous[:] = [held for held in previous if not held.is_iterated]
        else:
            ended = previous
            del queue.held[consumer]
        if ended:
            queue.pace.finished(now - ended[0].begun_at, len(ended))
            for held in ended:
                self.settle(held, is_task_done=held.is_iterated)

    def take(self, queue: QueueState, consumer: Hashable, now: float) -> Held | None:
        """The oldest prefetched delivery, now begun; asks for more before they run out."""
        prefetched = queue.prefetched
        if not prefetched:
            return None
        delivery = prefetched.popleft()
        begun = self._begun.get(queue.name)
        if begun is None:
            self._begun[queue.name] = [delivery.token]
        else:
            begun.append(delivery.token)
        if len(prefetched) * 2 < queue.pace.in_hand and not queue.refill_rid and not queue.is_dry:
            self._refill(queue)
        return Held(queue, consumer, delivery, now)

    def hold(self, held: Held) -> None:
        """Make it the consumer's implicit lease."""
        consumer = held.consumer
        helds = held.queue.held.get(consumer)
        if helds is None:
            held.queue.held[consumer] = [held]
        else:
            helds.append(held)
        self.current[consumer] = held

    def next(self, queue: QueueState, consumer: Hashable, now: float) -> Held | None:
        """A whole get, where something is prefetched; else only its beginning, and None."""
        self.finish_previous(queue, consumer, now)
        held = self.take(queue, consumer, now)
        if held is not None:
            self.hold(held)
        return held

    def took_nearby(
        self, queue: QueueState, consumer: Hashable, delivery: Delivery, previous: Held | None, now: float
    ) -> Held:
        """A get was answered on the spot by an engine in this process, which acked `previous` in the same step."""
        if previous is not None:
            self._end(previous)
        held = self.current[consumer] = Held(queue, consumer, delivery, now)
        queue.held[consumer] = [held]
        return held

    def ask(self, queue: QueueState, consumer: Hashable, n: int, deadline: float | None, now: float) -> Call:
        """Ask for up to n deliveries; the call is over when one is there, or its timeout."""
        call = Call()
        call.queue, call.consumer, call.n, call.deadline = queue, consumer, min(n, _ASK_AT_MOST), deadline
        if self.is_closing and queue.name in self._over:
            call.reply = _shut_down(queue)
            return call
        queue.calls[call] = None
        if not queue.refill_rid:  # else its answer decides
            self._lease(queue, call, now)
        return call

    def cancel(self, call: Call) -> None:
        """The caller of a get has gone: what it was given, or is still to be given, goes back."""
        queue = call.queue
        if queue is None:
            return
        for held in call.held:
            self.settle(held, SettleKind.RELEASE)
        call.held = []
        queue.calls.pop(call, None)
        self._orphan(queue, call)

    def abandon(self, call: Call) -> None:
        """The caller of something else than a get has gone: the engine is told, and the answer will mean nothing."""
        if self._pending.pop(call.rid, None) is call and call.reply is None:
            self.outbox.append(Withdraw(call.rid))

    def _lease(self, queue: QueueState, call: Call, now: float) -> None:
        is_first = sum(1 for other in queue.calls if other.rid) == 0
        max_n = max(call.n, queue.pace.ask()) if is_first and self.may_prefetch else call.n
        call.rid = self.next_rid()
        self._pending[call.rid] = call
        self.gather()
        self.outbox.append(Lease(call.rid, queue.name, max_n, call.n, call.wait_s(now)))

    def _refill(self, queue: QueueState) -> None:
        in_hand = queue.pace.ask()
        n = in_hand - len(queue.prefetched)
        if n > 0 and in_hand > 1:  # a slow task's slot is free only when its get comes
            queue.refill_rid = rid = self.next_rid()
            self._pending[rid] = Sent(queue=queue)
            self.outbox.append(Lease(rid, queue.name, n, 0, 0.0))

    def _orphan(self, queue: QueueState, call: Call) -> None:
        if self._pending.get(call.rid) is call:
            self._pending[call.rid] = Sent(queue=queue)
            self.outbox.append(Withdraw(call.rid))

    def _serve(self, queue: QueueState, now: float) -> None:
        """Hand what is prefetched to the gets that wait for it."""
        while queue.prefetched and queue.calls:
            call = next(iter(queue.calls))
            del queue.calls[call]
            while len(call.held) < call.n and (held := self.take(queue, call.consumer, now)) is not None:
                call.held.append(held)
            self._orphan(queue, call)
            self.woken.append(call)

    # -- settling --------------------------------------------------------------------------------------------------

    def settle(
        self,
        held: Held,
        kind: SettleKind = SettleKind.ACK,
        *,
        is_task_done: bool = False,
        delay_s: float = 0.0,
        reason: str = "",
    ) -> None:
        """End a delivery without waiting; if it was lost, it turns up in `lost`."""
        self._end(held)
        if not held.refused:
            self._settlements.append(Settlement(held.delivery.token, kind, is_task_done, delay_s, reason))
            self._settling.append(held)

    def drop(self, held: Held) -> None:
        """Take it out of its consumer's implicit leases, to be settled by the caller."""
        helds = held.queue.held.get(held.consumer)
        if helds is not None and held in helds:
            helds.remove(held)
            if not helds:
                del held.queue.held[held.consumer]

    def end_consumer(self, consumer: Hashable, kind: SettleKind, reason: str = "") -> None:
        """A consumer is gone: settle all its implicit leases in one way."""
        for queue in self.queues.values():
            for held in queue.held.pop(consumer, ()):
                # One that counts as done does so only when it is: given back, it is still unfinished.
                self.settle(held, kind, is_task_done=held.is_iterated and kind == SettleKind.ACK, reason=reason)
        self.current.pop(consumer, None)

    def consumers(self) -> set[Hashable]:
        """Those that hold an implicit lease."""
        return {consumer for queue in self.queues.values() for consumer in queue.held}

    def _end(self, held: Held) -> None:
        held.is_settled = True
        if self.current.get(held.consumer) is held:
            if held.outer is not None and not held.outer.is_settled:
                self.current[held.consumer] = held.outer
            else:
                del self.current[held.consumer]

    # -- in and out ------------------------------------------------------------------------------------------------

    @property
    def has_output(self) -> bool:
        return bool(self.outbox or self._settlements or self._under or self._begun)

    @property
    def n_left(self) -> int:
        """About how much a drain would send."""
        n = len(self.outbox) + len(self._settlements)
        for under in self._under.values():
            n += len(under.messages)
        return n

    @property
    def is_unconfirmed(self) -> bool:
        """Whether something that changes the engine awaits its answer."""
        return self.has_output or any(pending.stream is not None for pending in self._pending.values())

    def waiting(self) -> list[Call]:
        """All calls that somebody still waits for."""
        found = [call for call in self._pending.values() if isinstance(call, Call)]
        found += [call for queue in self.queues.values() for call in queue.calls if not call.rid]
        return found

    def gather(self) -> None:
        """Turn what was put under leases, begun and settled into requests."""
        if self._under:
            for under in self._under.values():
                self._gather_puts(under)
            self._under = {}
        if self._begun:
            for name, tokens in self._begun.items():
                self.outbox.append(Begin(name, tokens))
            self._begun = {}
        if self._settlements:
            stream = self._settles
            self._rid += 1
            rid = -self._rid  # nobody waits for the answer
            seq = stream.next()
            self._pending[rid] = Sent(stream, seq, settling=self._settling)
            self.outbox.append(Settle(rid, seq, stream.floor, self._settlements))
            self._settlements, self._settling = [], []

    def _gather_puts(self, under: Under) -> None:
        self._rid += 1
        rid = -self._rid  # nobody waits for the answer
        puts = under.queue.puts
        seq = puts.next()
        self._pending[rid] = Sent(puts, seq, helds=under.helds)
        self.outbox.append(Put(rid, under.queue.name, seq, puts.floor, under.messages, 0.0, tuple(under.causes)))

    def drain(self) -> list[Request]:
        """Everything to send now, in order."""
        if self._under or self._begun or self._settlements:
            self.gather()
        batch, self.outbox = self.outbox, []
        return batch

    def on_attached(self, attached: Attached) -> None:
        """The engine's newest word about this session: prefetched deliveries that it took away are forgotten."""
        first, self.attached = self.attached is None, attached
        self.is_closing = False
        if first:
            return
        lost = set(attached.lost)
        if not lost:
            return
        for queue in self.queues.values():
            # By token: the shell may bring this word when newer deliveries have already come.
            queue.prefetched = deque(delivery for delivery in queue.prefetched if delivery.token not in lost)

    def on_replies(self, replies: Sequence[Reply], now: float) -> None:
        """Take in answers and unasked events, in order."""
        if self.is_closing and not all(map(_is_empty_answer, replies)):
            self.is_closing = False
        for reply in replies:
            if isinstance(reply, Recall):
                self._on_recall(reply, now)
            elif isinstance(reply, Closing):
                self._on_closing(reply)
            elif not isinstance(reply, (Stop, Progressed)):  # those are for workers' parents and for who awaits calls
                pending = self._pending.pop(reply.rid, None)
                if pending is None:
                    continue
                if pending.stream is not None:
                    pending.stream.answered(pending.seq)
                if isinstance(pending, Sent):
                    self._on_sent_answered(pending, reply, now)
                else:
                    self._on_call_answered(pending, reply, now)

    def answer(self, call: Call, reply: Reply) -> None:
        """Take in the answer to a call that is no get, which its own thread has read."""
        self.is_closing = False
        self._pending.pop(call.rid, None)
        if call.stream is not None:
            call.stream.answered(call.seq)
        call.reply = reply

    def _on_closing(self, closing: Closing) -> None:
        """A get on a queue that was shut down is over; all others wait for the server's return, as the shell allows."""
        self.is_closing = True
        self._over = frozenset(closing.shut_down)
        for queue in [self.queues[name] for name in closing.shut_down if name in self.queues]:
            for call in [*queue.calls]:
                queue.calls.pop(call)
                self._orphan(queue, call)
                call.reply = _shut_down(queue)
                self.woken.append(call)
        self.woken.extend(self.waiting())

    def _on_call_answered(self, call: Call, reply: Reply, now: float) -> None:
        queue = call.queue
        if queue is None:
            call.reply = reply
        else:
            queue.calls.pop(call, None)
            if isinstance(reply, Granted) and reply.deliveries:
                queue.is_dry = False
                call.held = [Held(queue, call.consumer, delivery, now) for delivery in reply.deliveries[: call.n]]
                queue.prefetched.extend(reply.deliveries[call.n :])
                self._serve(queue, now)
            else:
                call.reply = reply
        self.woken.append(call)

    def _on_sent_answered(self, sent: Sent, reply: Reply, now: float) -> None:
        if isinstance(reply, Done):
            return
        if isinstance(reply, Settled):
            lost = set(reply.lost)
            if lost and sent.settling:
                self.lost.extend(held for held in sent.settling if held.delivery.token in lost and not held.refused)
            elif lost and sent.helds:
                for held in sent.helds:
                    if held.delivery.token in lost:
                        self._on_put_refused(held, _put_lost(held))
        elif isinstance(reply, Granted):
            assert sent.queue is not None
            self._on_granted_unasked(sent.queue, reply.rid, reply.deliveries, now)
        elif isinstance(reply, Failed):
            if sent.helds is not None:
                for held in sent.helds:
                    self._on_put_refused(held, from_code(reply.code, reply.text, reply.facts))
            elif sent.settling is not None:
                self.lost.extend(sent.settling)
            elif sent.queue is not None:
                self._on_granted_unasked(sent.queue, reply.rid, [], now)

    def _on_granted_unasked(self, queue: QueueState, rid: int, deliveries: list[Delivery], now: float) -> None:
        """The answer to a refill, or to a Lease whose get has gone."""
        is_refill = queue.refill_rid == rid
        if is_refill:
            queue.refill_rid = 0
            queue.is_dry = not deliveries
        queue.prefetched.extend(deliveries)
        self._serve(queue, now)
        if is_refill:
            for call in [call for call in queue.calls if not call.rid]:
                self._lease(queue, call, now)
        else:
            for _ in range(min(len(deliveries), len(queue.prefetched))):  # what no other get here took
                self._settlements.append(Settlement(queue.prefetched.pop().token, SettleKind.RELEASE))

    def _on_put_refused(self, held: Held, error: Exception) -> None:
        self.refused[held.consumer] = error
        if not held.is_settled:
            self.drop(held)
            # The engine gave it back with the refusal; one that does not know that rule needs to be told.
            self.settle(held, SettleKind.NACK, reason=str(error))
        held.refused = True
        for queue in self.queues.values():
            queue.maxsize = -1  # a bound that was set since is one reason; ask again before the next one

    def _on_recall(self, recall: Recall, now: float) -> None:
        queue = self.queues.get(recall.queue)
        tokens: list[int] = []
        if queue is not None and queue.prefetched:
            running = [held.begun_at for held in self.current.values() if held.queue is queue]
            running_s = now - min(running, default=now)
            n = to_give_back(len(queue.prefetched), recall.n, running_s)
            tokens = sorted(queue.prefetched.pop().token for _ in range(n))
        self.outbox.append(Recalled(recall.queue, tokens))


def _is_empty_answer(reply: Reply) -> bool:
    """Whether a port may have given this answer itself, to a wait that was withdrawn while there is no server."""
    return isinstance(reply, Granted) and not reply.deliveries


def _shut_down(queue: QueueState) -> Failed:
    """The answer that the server had for a get, had it stayed."""
    return Failed(0, "shut_down", f"queue {queue.name!r} was shut down and has nothing more")


def _put_lost(held: Held) -> LeaseLost:
    """What the next call raises when some of the puts that travelled together were under a lease that was lost."""
    message_id, queue = held.delivery.message.id, held.queue.name
    return LeaseLost(
        f"message {message_id} on queue {queue!r} went to another consumer before what was put under its lease arrived; "
        "nothing of that was put, its new holder will do it again",
        id=message_id,
        queue=queue,
    )
