"""A session driven by hand: requests go in, replies are waited for, each wait with a deadline.

A `Peer` decides nothing: no prefetch, no implicit lease, no heartbeat of its own, so that a test says exactly what the
engine is asked. `put`, `lease`, `ack` … raise what a refusal stands for; `start` returns before the answer.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec

from manyhands import events, model
from manyhands.engines.base import Engine, Port, Waiter
from manyhands.errors import from_code

PATIENCE_S = 15.0
"""How long a test waits for something that must come; reached only when it does not."""

R = TypeVar("R")


def eventually(check: Callable[[], bool], what: str, within_s: float = PATIENCE_S) -> None:
    """Return as soon as check() is true; fail with `what` when it is not within within_s."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s} s: {what}")
        time.sleep(0.002)


def message(
    body: bytes = b"",
    *,
    id: str = "",  # noqa: A002  the field's own name
    kind: int = model.Kind.ITEM,
    priority: int = 0,
    due_at: float = 0.0,
    max_deliveries: int = model.MAX_DELIVERIES,
    options: model.Options | None = None,
) -> model.Message:
    """A message with a fresh random id unless one is given."""
    return model.Message(
        id or secrets.token_hex(8),
        body,
        kind=kind,
        priority=priority,
        due_at=due_at,
        max_deliveries=max_deliveries,
        options=options,
    )


class Pending:
    """A request that was sent; its answer comes or does not."""

    def __init__(self, peer: Peer, request: events.Request) -> None:
        self.request = request
        self.reply: events.Reply | None = None
        self.waiter = Waiter()
        self._peer = peer

    @property
    def is_answered(self) -> bool:
        return self.reply is not None

    def answer(self, within_s: float = PATIENCE_S) -> events.Reply:
        """The reply itself, a Failed included; fails when there is none within within_s."""
        deadline = time.monotonic() + within_s
        while not self._peer.port.wait(self.waiter, max(0.0, deadline - time.monotonic())) and time.monotonic() < deadline:
            pass  # a wait may end early
        if self.reply is None:
            raise AssertionError(f"no answer within {within_s} s to {self.request!r:.200}")
        return self.reply

    def expect(self, kind: type[R], within_s: float = PATIENCE_S) -> R:
        """The reply as `kind`; a Failed is raised as the exception it stands for."""
        reply = self.answer(within_s)
        if isinstance(reply, events.Failed):
            raise from_code(reply.code, reply.text, reply.facts)
        if not isinstance(reply, kind):
            raise AssertionError(f"expected {kind.__name__}, got {reply!r}")
        return reply

    def refusal(self, within_s: float = PATIENCE_S) -> str:
        """The code of the Failed that must come."""
        reply = self.answer(within_s)
        if not isinstance(reply, events.Failed):
            raise AssertionError(f"expected a refusal, got {reply!r}")
        if not reply.text:
            raise AssertionError(f"a refusal without a sentence: {reply!r}")
        return reply.code


class Peer:
    """One session at an engine."""

    def __init__(
        self, engine: Engine, *, name: str = "", session: str = "", held: Sequence[int] | None = None, parent: str = ""
    ) -> None:
        self.session = session or secrets.token_hex(16)
        self.parent = parent
        self.name = name
        self.recalls: list[events.Recall] = []
        self.closings: list[events.Closing] = []
        self.stops: list[events.Stop] = []
        self.progress: list[events.Progressed] = []
        self.unexpected: list[events.Reply] = []
        self._lock = threading.Lock()
        self._rid = 0
        self._seqs: dict[str, int] = {}
        self._pending: dict[int, Pending] = {}
        self.port = self._attach(engine, held)

    def _attach(self, engine: Engine, held: Sequence[int] | None) -> Port:
        return engine.attach(
            events.Attach(self.session, self.name, None if held is None else list(held), parent=self.parent),
            self._take,
        )

    def resume(self, engine: Engine, held: Sequence[int] = ()) -> events.Attached:
        """The same session again on a new port, as after a broken connection; unanswered requests are not sent again."""
        with self._lock:
            self._pending.clear()
        self.port = self._attach(engine, held)
        return self.port.attached

    def cut(self) -> None:
        """Lose the connection without a goodbye."""
        self.port.detach(goodbye=False)

    def goodbye(self) -> None:
        """End the session for good."""
        self.port.detach(goodbye=True)

    def _take(self, replies: Sequence[events.Reply]) -> None:
        for reply in replies:
            if isinstance(reply, events.Recall):
                self.recalls.append(reply)
            elif isinstance(reply, events.Closing):
                self.closings.append(reply)
            elif isinstance(reply, events.Stop):
                self.stops.append(reply)
            elif isinstance(reply, events.Progressed):
                self.progress.append(reply)
            else:
                with self._lock:
                    pending = self._pending.pop(reply.rid, None)
                if pending is None:
                    self.unexpected.append(reply)
                    continue
                pending.reply = reply
                pending.waiter.set()

    # -- sending ---------------------------------------------------------------------------------------------------

    def start_all(self, *requests: events.Request) -> list[Pending]:
        """Send them in one call, each with a rid of its own; those that have no reply stay unanswered."""
        ready: list[events.Request] = []
        waiting: list[Pending] = []
        with self._lock:
            for request in requests:
                if hasattr(request, "rid"):
                    self._rid += 1
                    request = msgspec.structs.replace(request, rid=self._rid)
                pending = Pending(self, request)
                if hasattr(request, "rid"):
                    self._pending[self._rid] = pending
                ready.append(request)
                waiting.append(pending)
        self.port.send(ready)
        return waiting

    def start(self, request: events.Request) -> Pending:
        """Send one request and go on."""
        return self.start_all(request)[0]

    def tell(self, request: events.Request) -> None:
        """Send a request that has no reply."""
        self.start_all(request)

    def next_seq(self, stream: str) -> int:
        """Count the stream one up."""
        with self._lock:
            self._seqs[stream] = self._seqs.get(stream, 0) + 1
            return self._seqs[stream]

    # -- the verbs as calls ----------------------------------------------------------------------------------------

    def declare(self, queue: str, maxsize: int = 0) -> None:
        self.start(events.Declare(0, queue, maxsize)).expect(events.Done)

    def put_request(
        self, queue: str, *messages: model.Message, wait_s: float = 0.0, cause: int = 0, seq: int = 0, floor: int = 0
    ) -> events.Put:
        """A Put with the stream's next seq (or the given one)."""
        seq = seq or self.next_seq(queue)
        return events.Put(0, queue, seq, floor, list(messages), wait_s, (cause,) * len(messages) if cause else ())

    def put(self, queue: str, *messages: model.Message, wait_s: float = 0.0, cause: int = 0) -> None:
        self.start(self.put_request(queue, *messages, wait_s=wait_s, cause=cause)).expect(events.Done)

    def put_bodies(self, queue: str, *bodies: bytes, max_deliveries: int = model.MAX_DELIVERIES) -> None:
        """Put one message for each body, in one request."""
        self.put(queue, *[message(body, max_deliveries=max_deliveries) for body in bodies])

    def start_lease(self, queue: str, max_n: int = 1, *, begin_n: int | None = None, wait_s: float = PATIENCE_S) -> Pending:
        return self.start(events.Lease(0, queue, max_n, max_n if begin_n is None else begin_n, wait_s))

    def lease(
        self, queue: str, max_n: int = 1, *, begin_n: int | None = None, wait_s: float = 0.0, within_s: float = PATIENCE_S
    ) -> list[model.Delivery]:
        """What is granted, everything begun unless begin_n says otherwise; may be empty."""
        pending = self.start_lease(queue, max_n, begin_n=begin_n, wait_s=wait_s)
        return pending.expect(events.Granted, within_s).deliveries

    def take(self, queue: str, *, wait_s: float = PATIENCE_S) -> model.Delivery:
        """One begun delivery that must come."""
        deliveries = self.lease(queue, wait_s=wait_s, within_s=PATIENCE_S * 2)
        if len(deliveries) != 1:
            raise AssertionError(f"expected one delivery of {queue!r}, got {deliveries!r}")
        return deliveries[0]

    def settle_request(self, *settlements: model.Settlement, seq: int = 0) -> events.Settle:
        return events.Settle(0, seq or self.next_seq(""), 0, list(settlements))

    def settle(self, *settlements: model.Settlement) -> list[int]:
        """The tokens whose leases were lost."""
        return self.start(self.settle_request(*settlements)).expect(events.Settled).lost

    def end(
        self,
        delivery: model.Delivery,
        kind: model.SettleKind,
        *,
        is_task_done: bool = False,
        delay_s: float = 0.0,
        reason: str = "",
        result: bytes | None = None,
        calls: int = 0,
    ) -> bool:
        """Settle one delivery; whether its lease was still this session's."""
        return not self.settle(model.Settlement(delivery.token, kind, is_task_done, delay_s, reason, result, calls))

    def ack(
        self, delivery: model.Delivery, *, is_task_done: bool = False, result: bytes | None = None, calls: int = 0
    ) -> bool:
        return self.end(delivery, model.SettleKind.ACK, is_task_done=is_task_done, result=result, calls=calls)

    def nack(self, delivery: model.Delivery, *, delay_s: float = 0.0, reason: str = "", calls: int = 0) -> bool:
        return self.end(delivery, model.SettleKind.NACK, delay_s=delay_s, reason=reason, calls=calls)

    def reject(self, delivery: model.Delivery, *, reason: str = "", result: bytes | None = None, calls: int = 0) -> bool:
        return self.end(delivery, model.SettleKind.REJECT, reason=reason, result=result, calls=calls)

    def park(self, delivery: model.Delivery, need: str) -> bool:
        return self.end(delivery, model.SettleKind.PARK, reason=need)

    def release(self, delivery: model.Delivery) -> bool:
        return self.end(delivery, model.SettleKind.RELEASE)

    def begin(self, queue: str, *deliveries: model.Delivery) -> None:
        self.tell(events.Begin(queue, [delivery.token for delivery in deliveries]))

    def extend(self, *tokens: int) -> list[int]:
        return self.start(events.Extend(0, list(tokens))).expect(events.Settled).lost

    def ping(self) -> None:
        """A heartbeat; back when everything this session sent before it was handled."""
        self.start(events.Ping(0)).expect(events.Pong)

    def task_done(self, queue: str, n: int = 1) -> None:
        self.start(events.TaskDone(0, self.next_seq(""), 0, queue, n)).expect(events.Done)

    def join(self, queue: str, *, wait_s: float = 0.0) -> int:
        """What is unfinished when the wait ends."""
        return self.start(events.Join(0, queue, wait_s)).expect(events.Count).n

    def shut_down(self, queue: str, *, immediate: bool = False) -> None:
        self.start(events.ShutDown(0, queue, immediate)).expect(events.Done)

    def size(self, queue: str) -> model.QueueStats:
        return self.start(events.Size(0, queue)).expect(events.QueueInfo).stats

    def stats(self, *queues: str) -> events.StatsReply:
        return self.start(events.Stats(0, list(queues))).expect(events.StatsReply)

    def sees(self, other: Peer) -> bool:
        """Whether the engine counts the other session as connected."""
        return any(seen.id == model.public_id(other.session) and seen.is_connected for seen in self.stats().sessions)

    def result(self, id: str, *, wait_s: float = 0.0, forget: bool = False) -> bytes | None:  # noqa: A002
        return self.start(events.Result(0, id, wait_s, forget)).expect(events.Outcome).value

    def report_dead(
        self,
        session: str,
        reason: str = "",
        *,
        token: int = 0,
        part: int = -1,
        settlement: model.Settlement | None = None,
        is_idle: bool = False,
    ) -> None:
        request = events.ReportDead(0, session, reason, token, part, settlement, is_idle)
        self.start(request).expect(events.Done)

    def collect(self, stream: str, ack: int = 0, *, wait_s: float = 0.0) -> events.Collected:
        """What has ended in a stream."""
        return self.start(events.Collect(0, stream, ack, wait_s)).expect(events.Collected)

    def ended(self, stream: str, n: int = 1) -> list[model.Ended]:
        """The next n ends of a stream, which must come; all of them are acknowledged."""
        ended: list[model.Ended] = []
        ack = 0
        while len(ended) < n:
            collected = self.collect(stream, ack, wait_s=PATIENCE_S)
            if not collected.ended:
                raise AssertionError(f"expected {n} ends, got {ended!r}")
            ended += collected.ended
            ack = collected.number
        self.collect(stream, ack)
        return ended

    def report_request(self, delivery: model.Delivery, calls: int, result: bytes) -> events.Report:
        return events.Report(0, self.next_seq(""), 0, delivery.token, calls, result)

    def report(self, delivery: model.Delivery, calls: int, result: bytes) -> None:
        """The next calls of a pack have ended."""
        self.start(self.report_request(delivery, calls, result)).expect(events.Done)

    def cancel(self, queue: str, *ids: str, is_running_too: bool = False) -> list[str]:
        """Which of these were taken out."""
        return self.start(events.Cancel(0, queue, list(ids), is_running_too)).expect(events.Cancelled).ids

    def reclaim(self, child: str, queue: str, *begun: model.Begun) -> None:
        self.start(events.Reclaim(0, child, queue, list(begun))).expect(events.Done)

    def peek(self, queue: str, limit: int = 20) -> list[model.Message]:
        return self.start(events.Peek(0, queue, limit)).expect(events.Peeked).messages

    def purge(self, queue: str) -> int:
        return self.start(events.Purge(0, queue)).expect(events.Count).n

    def dead(self, queue: str = "", *ids: str, limit: int = 100) -> list[model.DeadLetter]:
        return self.start(events.DeadList(0, queue, list(ids), limit)).expect(events.DeadLetters).letters

    def dead_retry(self, queue: str, *ids: str) -> int:
        return self.start(events.DeadRetry(0, queue, list(ids))).expect(events.Count).n

    def dead_drop(self, queue: str, *ids: str) -> int:
        return self.start(events.DeadDrop(0, queue, list(ids))).expect(events.Count).n
