"""A child at work: it leases, runs and settles over the wire itself, one call at a time.

    wait for a grant ──> the block notes it ──> each call: claim, run ──> settle what ended and ask for more, in one write
         ^                                                                                         │
         └─────────────────────────────────────────────────────────────────────────────────────────┘

What has to happen while a call runs is the keeper's (keeper.py); orders and the parent's death are heard by a thread that
reads the pipe. What may be run, and when not, is said by the block (block.py), how much to ask for by pacing.py.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import msgspec

from manyhands._chance import CHANCE
from manyhands.codec import Codec
from manyhands.errors import AuthenticationFailed, ManyhandsError, ProtocolError
from manyhands.events import Begin, Failed, Goodbye, Granted, Lease, Offer, Progress, Recall, Recalled, Reply, Withdraw
from manyhands.model import CALLS, Delivery, SettleKind, Settlement
from manyhands.worker import pacing
from manyhands.worker.block import ChildBlock, Phase
from manyhands.worker.keeper import Keeper
from manyhands.worker.line import Line
from manyhands.worker.running import Runner
from manyhands.worker.settings import DRAIN, LIMIT, READY, ChildSettings, Exit
from manyhands.worker.task_work import Work

FLUSH_S = 0.002
"""Outcomes of a batch are sent when the oldest is so old and more calls follow."""
REPORT_S = 0.01
"""What has ended of a pack is reported when the last word of it is so old."""
FLUSH_BYTES = 1024 * 1024
CONFIRM_S = 1.5
"""How long a child that leaves waits for the engine's word for what it settled last."""
PROGRESS_S = 0.05
"""Of one call, progress is sent this often at most."""
ASK_AGAIN_S = 1.0
"""How long a child waits when its queue was shut down or its question was refused."""
_NEVER = 2**62


class Child:
    """One child's life.

    Args:
        notify: sends a notice to the parent.
        fail: ends the process for an error in a thread without which it cannot live.
    """

    def __init__(
        self,
        settings: ChildSettings,
        block: ChildBlock,
        notify: Callable[[bytes], None],
        fail: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._block = block
        self._notify = notify
        self._line = Line(settings)
        self._queues = [queue + CALLS for queue in settings.queues]
        self._runner = Runner(
            Codec([(key.id, key.body) for key in self._line.keyring]),
            utc=time.time,
            unit=CHANCE.random,
            tasks_only=settings.tasks_only,
            on_progress=self._on_progress,
        )
        self._pace = pacing.Pace(settings.max_in_hand)
        self._left = settings.max_tasks or _NEVER
        self._n_run = 0
        self._lease_rid = 0  # of the question that waits for an answer
        self._ask_at = 0.0
        self._is_leaving = False
        self._step = 0
        # What the keeper may send while a call runs, under the line's lock.
        self._ended: list[Settlement] = []
        self._n_flushed = 0
        self._ended_bytes = 0
        self._work: Work | None = None
        self._takes_one = False
        """Whether the last message was one that may run once only."""
        self._at_hand = ""  # the queue of the batch
        self._untold: set[int] = set()  # tokens of it that the engine does not take for begun
        # The batch at hand: the last ordinal that may be run, and the first that the parent took back.
        self._stop_after = 0
        self._taken_from = _NEVER
        self._n_forgotten = 0
        self._progress_at = 0.0
        self._keeper = Keeper(self, fail)

    def order(self, word: bytes) -> None:
        """The parent's word; in another thread."""
        if word != DRAIN:
            return
        self._is_leaving = True
        with self._line.lock:
            if self._line.is_reading and self._lease_rid:
                self._line.send([Withdraw(self._lease_rid)])

    def live(self) -> Exit:
        """Connect, work, and leave in order.

        Raises:
            AuthenticationFailed, ProtocolError, SessionTaken: there is no server for it.
        """
        line, block = self._line, self._block
        line.on_attached = [Offer(self._runner.offers())]
        block.enter(Phase.CONNECTING)
        while not line.is_up:
            if self._is_leaving:
                return Exit.DRAINED
            line.restore()
        assert line.wire.attached is not None
        self._runner.limit_to(line.wire.attached.limits.max_body_bytes)
        block.heard(line.heard_mono)
        self._notify(READY)
        while True:
            self._flush_and_ask()
            if not self._lease_rid and (self._is_leaving or self._left <= 0):
                break
            self._wait()
            while line.replies:
                reply = line.replies.popleft()
                if type(reply) is Granted and reply.rid == self._lease_rid:
                    self._lease_rid = 0
                    if reply.deliveries:
                        self._run_batch(reply.queue or self._queues[0], reply.deliveries)
                        break
                else:
                    self._hear(reply)
        self._leave()
        return Exit.DRAINED if self._is_leaving else Exit.RETIRED

    # -- talking ---------------------------------------------------------------------------------------------------

    def _flush_and_ask(self) -> None:
        """Send what ended, with the question for more behind it, and be the one who reads."""
        line = self._line
        with line.lock:
            requests = self._take_ended()
            if not self._lease_rid and not self._is_leaving and self._left > 0 and (now := time.monotonic()) >= self._ask_at:
                n = min(self._pace.ask(), self._left) if not self._takes_one else 1
                self._lease_rid = line.rid()
                requests.append(Lease(self._lease_rid, self._queues[0], n, 1, also=self._queues[1:]))
                if line.is_up:
                    self._block.heard(now)  # its silence counts from here: it may come from a long call
            elif self._is_leaving and self._lease_rid:
                requests.append(Withdraw(self._lease_rid))
            line.is_reading = True
            self._block.enter(Phase.WAITING)
            if requests:
                line.send(requests)

    def _take_ended(self) -> list[Any]:
        ready = self._ended[self._n_flushed :]
        self._ended, self._n_flushed, self._ended_bytes = [], 0, 0
        return [self._line.settle(ready)] if ready else []

    def _wait(self) -> None:
        line = self._line
        if self._lease_rid:
            try:
                line.wait()
            except (ProtocolError, AuthenticationFailed):
                time.sleep(ASK_AGAIN_S)  # it is another server for a moment, or one that is not quite there yet
            if self._is_leaving and not line.is_up:
                self._lease_rid = 0  # there is nobody to take it back
        else:
            time.sleep(max(0.0, min(ASK_AGAIN_S, self._ask_at - time.monotonic())))
        line.is_reading = False
        self._block.heard(line.heard_mono)

    def _hear(self, reply: Reply) -> None:
        if type(reply) is Recall:
            with self._line.lock:
                self._line.send([Recalled(reply.queue, [])])  # what it has, it has begun
        elif type(reply) is Failed and reply.rid == self._lease_rid:
            self._lease_rid = 0
            self._ask_at = time.monotonic() + ASK_AGAIN_S

    def _leave(self) -> None:
        """Wait for the engine's word for what was settled, over a new connection if need be, and say goodbye."""
        line = self._line
        self._block.enter(Phase.LEAVING)
        until = time.monotonic() + CONFIRM_S
        with line.lock:
            line.is_reading = True
            if line.is_up:
                line.send([line.settle([], is_hurried=True)])
        while line.n_unanswered and time.monotonic() < until:
            with contextlib.suppress(ManyhandsError):  # another server for a moment
                line.wait()
            line.replies.clear()
        with line.lock:
            line.send([Goodbye()])
        line.close()

    # -- running ---------------------------------------------------------------------------------------------------

    def _run_batch(self, queue: str, deliveries: list[Delivery]) -> None:
        """Run what was granted, from one of our queues.

        The engine takes only the first for begun: if this machine is lost without a word, what waits behind it is charged
        nothing. It is told of another when that has run for a while (`_send_ended`). What may run once only has to be known
        as begun before it begins, so it is not taken from what was prefetched, and from then on asked for alone.
        """
        first, *others = deliveries
        if others:
            once = [each for each in others if each.message.max_deliveries == 1]
            for delivery in once:
                self._note(Settlement(delivery.token, SettleKind.RELEASE))
            others = [each for each in others if each.message.max_deliveries != 1] if once else others
            deliveries = [first, *others]
            self._takes_one = bool(once)
        else:
            self._takes_one = first.message.max_deliveries == 1
        self._at_hand, self._untold = queue, {each.token for each in others}
        block, line, clock = self._block, self._line, time.monotonic
        index = self._queues.index(queue)
        entries, n_calls = [], 0
        for delivery in deliveries:
            options = delivery.message.options
            calls = options.calls if options is not None and options.calls > 1 else 0
            entries.append((delivery.token, calls, index))
            n_calls += calls or 1
        at = block.accept(entries)
        self._stop_after = at - 1 + min(self._left, n_calls)
        self._taken_from = _NEVER
        self._n_forgotten = line.n_forgotten
        block.enter(Phase.RUNNING)
        self._keeper.wake()
        started = flushed = now = clock()
        longest_s = 0.0
        for delivery, (_, calls, _) in zip(deliveries, entries, strict=True):
            if (now - flushed > FLUSH_S and self._ended) or self._ended_bytes > FLUSH_BYTES:
                flushed = now
                with line.lock:
                    line.send(self._take_ended())
            began = now
            self._run_message(queue, delivery, at, now)
            at += calls or 1
            now = clock()
            if now - began > longest_s:
                longest_s = now - began
        self._pace.finished(len(deliveries), now - started, longest_s)
        block.ended(self._n_run)

    def _run_message(self, queue: str, delivery: Delivery, first: int, now: float) -> None:
        """Run what may be run of one message, and note how its delivery ends."""
        if not self._may_begin(first, first, now):
            if first < self._taken_from:
                self._note(Settlement(delivery.token, SettleKind.RELEASE))
            return
        work = self._runner.open(queue, delivery)
        if isinstance(work, Settlement):
            self._note(work)
            return
        self._work = work
        if work.n > 1 or work.timeout_s:
            self._run_calls(work, first)
            while work.is_too_much:
                self._send_ended()
        else:
            self._run_step(work, 0, 1)
        with self._line.lock:
            self._work = None
            settlement = work.settlement()
            self._ended.append(settlement)
            if settlement.result is not None:
                self._ended_bytes += len(settlement.result)

    def _run_step(self, work: Work, at: int, end: int) -> float:
        """Run calls that are claimed; how many seconds they took."""
        clock = time.monotonic
        started = clock()
        work.run(at, end)
        took_s = clock() - started
        work.took(took_s)
        n = end - at
        self._n_run += n
        self._left -= n
        self._step += 1
        return took_s

    def _run_calls(self, work: Work, first: int) -> None:
        """Run the calls of a pack, or one with a limit: the first is claimed, but without its limit."""
        clock, at, size = time.monotonic, 0, 1
        reported = clock()
        while at < work.n and not work.is_stopped:
            end = min(at + size, work.n)
            deadline = 0.0
            now = clock()
            if work.timeout_s:
                end = at + 1
                self._block.leave_will(msgspec.msgpack.encode(work.will(at)))
                deadline = clock() + work.timeout_s
            elif now - reported > REPORT_S or work.size_bytes > FLUSH_BYTES:
                reported = now
                self._send_ended()
            if (at or deadline) and not self._may_begin(first + at, first + end - 1, now, deadline):
                end = min(end, self._stop_after + 1 - first)
                if end <= at:
                    return
            size = pacing.claim(end - at, self._run_step(work, at, end))
            at = end

    def _may_begin(self, first: int, last: int, now: float, deadline: float = 0.0) -> bool:
        """Claim these calls. Whether all of them are to be run; else those up to _stop_after are."""
        if self._is_leaving or self._line.n_forgotten != self._n_forgotten:
            self._stop_after = min(self._stop_after, first - 1)
        wanted, last = last, min(last, self._stop_after)
        if last < first:
            return False
        block = self._block
        if not block.claim(first, last, now, deadline):
            taken_from, taken_to = block.verdict()
            if first <= taken_to and taken_from <= taken_to:
                self._taken_from = max(first, taken_from)
                self._stop_after = min(self._stop_after, self._taken_from - 1)
        elif deadline and not block.is_watched:
            self._notify(LIMIT)
        return wanted <= self._stop_after

    def _note(self, settlement: Settlement) -> None:
        with self._line.lock:
            self._ended.append(settlement)

    # -- the keeper's part -----------------------------------------------------------------------------------------

    def is_idle(self) -> bool:
        return self._line.is_reading

    def step(self) -> int:
        return self._step if self._line.is_up else -1

    def tend(self, nap_s: float) -> None:
        line = self._line
        if not line.is_up:
            with contextlib.suppress(ManyhandsError):
                line.restore()
        with line.lock:
            if line.is_reading:
                return
            line.look()
        self._send_ended()
        line.wait_readable(nap_s)

    def _send_ended(self) -> None:
        """Send what has ended while a call runs, or between the calls of a pack, and take what has come."""
        line = self._line
        with line.lock:
            requests: list[Any] = []
            ready = self._ended[self._n_flushed :]
            if ready:
                self._n_flushed = len(self._ended)
                requests.append(line.settle(ready))
            work = self._work
            report = work.report() if work is not None else None
            if work is not None and work.token in self._untold:
                self._untold.discard(work.token)
                requests.append(Begin(self._at_hand, [work.token]))
            if work is not None and report is not None:
                requests.append(line.report(work.token, *report))
            if requests:
                line.send(requests)
            line.look()

    def _on_progress(self, token: int, part: int, done: float, total: float, note: str) -> None:
        now = time.monotonic()
        if now - self._progress_at < PROGRESS_S and done < total:
            return
        self._progress_at = now
        with self._line.lock:
            self._line.send([Progress(token, part, done, total, note)])
