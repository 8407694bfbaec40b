"""The threads around CallState: sending, waiting, and handing out results.

Who hands out results: the thread that waits for one and reads the socket (or runs the embedded server's loop) meanwhile;
when nobody waits, the port's own thread, or, beside an engine in this process, the helper. An engine in this process calls
its sinks under its lock, so there the sink only leaves what came for one of those.

The helper also sends what was left to gather for LATE_S, feeds maps, and looks after the session while calls are out.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from manyhands._waiter import Waiter
from manyhands.calls import bodies
from manyhands.client.calling.awaiting import Asked, Fed, Futures, setup_failed
from manyhands.client.calling.futures import CallFuture, deliver
from manyhands.client.calling.helper import LOOK_S, Helper
from manyhands.client.calling.state import Awaiting, CallState, Group, Sent
from manyhands.client.session import ANSWER_S, GONE_S, session_name
from manyhands.codec import Codec, check_size
from manyhands.codec.pickles import Pickled
from manyhands.engines.base import Engine, LocalPort, ReadingPort
from manyhands.errors import (
    ManyhandsError,
    ServerGone,
    ServerUnavailable,
    TaskCancelled,
    from_code,
)
from manyhands.events import (
    Attach,
    Cancelled,
    Closing,
    Collected,
    Done,
    Failed,
    Outcome,
    Ping,
    Pong,
    Progressed,
    Reply,
    Request,
)
from manyhands.model import Ended, Message

log = logging.getLogger(__name__)


class CallSession:
    """A session at an engine, for any number of threads, through which calls are sent.

    Raises:
        EngineUnavailable, AuthenticationFailed, ServerUnavailable: as `Engine.attach` does.
    """

    def __init__(self, engine: Engine, codec: Codec) -> None:
        self.codec = codec
        prefix, ids = secrets.token_hex(8), count(1)
        self.new_id: Callable[[], str] = lambda: f"{prefix}-{next(ids):x}"
        """Makes message ids."""
        self.state = CallState(codec, secrets.token_hex(16), self.new_id, Futures)
        self.lock = threading.Lock()
        """Guards the state. Held for moments, and never while anything is sent or rebuilt."""
        self._sending = threading.Lock()
        self._helper = Helper(self)
        self._inbox: deque[Reply] = deque()
        self._leader: Waiter | None = None
        self._leading_thread = 0
        self._asked: dict[int, Asked] = {}
        self._feeds: dict[Fed, None] = {}
        self._closing_at = 0.0
        self.width = 1
        """How many calls are run at a time, as far as is known."""
        self.is_closed = False
        self.refusal: Exception | None = None
        """Why no more calls are taken; the pending ones go on."""
        self.gone: Exception | None = None
        """Why no call will be answered any more."""
        self._idle: list[Waiter] = []
        """Of those who wait for the last call's end."""
        self.on_setup_failed: Callable[[BaseException], None] | None = None
        """Called when an initializer failed in a worker."""
        self.port = engine.attach(Attach(secrets.token_hex(16), session_name(), is_here=True), self._on_replies)
        self._is_here = isinstance(self.port, LocalPort)
        self._reading = self.port if isinstance(self.port, ReadingPort) else None
        self._attached = self.port.attached
        self.max_body_bytes = self._attached.limits.max_body_bytes

    # -- out -----------------------------------------------------------------------------------------------------------

    def submit(self, group: Group, argument: bodies.Argument) -> CallFuture[Any]:
        """Send a call, now or with what gathers in the next moment.

        Raises:
            PayloadTooLarge: nothing was sent.
            ServerGone, ServerUnavailable: the session has ended.
        """
        future: CallFuture[Any] = CallFuture(self)
        if type(argument) is Pickled:
            self._submit_alone(group, argument, future)
            return future
        with self.lock:
            if self.refusal is not None:
                raise self.refusal
            is_due = self.state.add(group, argument, future)
        if is_due:
            self.flush()
        elif not self._helper.is_late:
            self._helper.is_late = True
            self._helper.rouse()
        return future

    def _submit_alone(self, group: Group, pickled: Pickled, future: CallFuture[Any]) -> None:
        if self.refusal is not None:
            raise self.refusal
        body = group.prefix.encode_alone(pickled, group.python)  # now: the caller may change its arrays
        self.add_body(group, body, 1, Futures([future]))
        self.flush()

    def submit_message(self, group: Group, message: Message) -> CallFuture[Any]:
        """Send a sealed message with one call, now or with what gathers in the next moment.

        Its options name this session's stream (`state.stream`), or none: then its outcome is asked for by id, and a call of
        that id that is pending already is the same one.
        """
        with self.lock:
            known = self.state.sent.get(message.id)
            if known is not None and isinstance(known.awaiting, Futures):
                return known.awaiting.futures[0]
            if self.refusal is not None:
                raise self.refusal
            future: CallFuture[Any] = CallFuture(self)
            is_due = self.state.add_message(group, message, 1, Futures([future]))
        if is_due:
            self.flush()
        elif not self._helper.is_late:
            self._helper.is_late = True
            self._helper.rouse()
        return future

    def add_body(self, group: Group, body: bytes, n: int, awaiting: Awaiting) -> None:
        """Leave a message with n calls that was put together already; `flush` sends it.

        Raises:
            PayloadTooLarge: nothing was left.
        """
        check_size(body, self.max_body_bytes)
        with self.lock:
            self.state.add_body(group, body, n, awaiting)

    def flush(self) -> None:
        """Send what there is; if another thread is at it, that thread sends ours as well.

        Raises:
            ServerGone, ServerUnavailable: the session has ended.
        """
        state, sending = self.state, self._sending
        while state.has_output and sending.acquire(False):
            try:
                with self.lock:
                    requests = state.take()
                if requests:
                    self.port.send(requests)
            except ServerUnavailable as error:
                self._end(error)
            finally:
                sending.release()
            if self.gone is not None:
                raise self.gone

    def send(self, request: Request) -> None:
        """Send a request beside the calls.

        Raises:
            ServerUnavailable: the session has ended.
        """
        with self._sending:
            self.port.send([request])
        self.flush()  # who came meanwhile left its calls to us

    def settle_sending(self) -> None:
        """Put every call that was submitted until now into a message."""
        self.flush()
        with self._sending:
            pass
        self.flush()

    # -- in ------------------------------------------------------------------------------------------------------------

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        if not self._is_here:
            self._take_in(replies)
            return
        # The engine's lock is held: nothing of the program's may run here.
        self._inbox.extend(replies)
        leader = self._leader
        if leader is not None:
            leader.nudge()
        else:
            self._helper.rouse()

    def take_inbox(self) -> None:
        """Hand out what an engine in this process left."""
        inbox = self._inbox
        while inbox:
            try:
                reply = inbox.popleft()
            except IndexError:
                return
            self._take_in((reply,))

    def _take_in(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            kind = type(reply)
            if kind is Collected:
                self._take_results(reply)  # type: ignore[arg-type]
            elif kind is Done:
                with self.lock:
                    self.state.put_done(reply.rid)  # type: ignore[union-attr]
            elif kind is Failed:
                self._refused(reply)  # type: ignore[arg-type]
            elif kind is Outcome:
                self._take_outcome(reply)  # type: ignore[arg-type]
            elif kind is Progressed:
                self._take_progress(reply)  # type: ignore[arg-type]
            elif kind is Cancelled or kind is Pong:
                self._answered(reply.rid, reply)  # type: ignore[union-attr]
            elif kind is Closing:
                self._closing_at = time.monotonic()
                if self._is_here:
                    self._end(ServerUnavailable("The engine was closed in this process, so its calls were not finished."))
                else:
                    self._helper.rouse()

    def _take_results(self, collected: Collected) -> None:
        state, ended = self.state, collected.ended
        ended.reverse()
        with self.lock:
            state.collected(collected.number)
            found = [state.whose(one) for one in ended]
        interrupt: BaseException | None = None
        while ended:
            try:
                self._take_result(ended.pop(), found.pop())
            except BaseException as error:  # Ctrl-C, or what a callback raised: the other results come only once
                interrupt = error
        for feed in list(self._feeds):
            feed.feed()
        if state.has_output:
            try:
                self.flush()
            except ManyhandsError:
                log.debug("no more results are fetched, because the session has ended")
        self._look_whether_idle()
        if interrupt is not None:
            raise interrupt

    def _take_outcome(self, outcome: Outcome) -> None:
        ended = Ended(outcome.id, outcome.value)
        with self.lock:
            self.state.fetched(outcome.rid)
            found = self.state.whose(ended)
        if outcome.value is not None:
            self._take_result(ended, found)
        self._look_whether_idle()

    def _take_progress(self, told: Progressed) -> None:
        with self.lock:
            found = self.state.whose(Ended(told.id))
        if found is not None and isinstance(found[0].awaiting, Futures):
            found[0].awaiting.futures[found[1]].progress = (told.done, told.total, told.note)

    def _take_result(self, ended: Ended, found: tuple[Sent, int, str] | None) -> None:
        if found is None:
            return
        sent, first, sealed_id = found
        n = ended.n
        if ended.value is None:
            if ended.code == TaskCancelled.code:
                with self.lock:
                    awaiting = self.state.over(sent, first, n)
                awaiting.cancelled(first, n)
                return
            self._fail(sent, range(first, first + n), from_code(ended.code, ended.text))
            return
        box = [ended.value]
        del ended  # arrays are rebuilt in the memory of the result, if nobody else has it
        awaiting = sent.awaiting
        try:
            self._hand_out(sent, first, n, sealed_id, box)
        except BaseException:
            lost = ServerUnavailable("The result had come, but this thread was interrupted before it was handed out.")
            with self.lock:
                self.state.over(sent, first, n)
            awaiting.ended(first, [None] * n, dict.fromkeys(range(n), lost))  # but for those that have theirs
            raise

    def _hand_out(self, sent: Sent, first: int, n: int, sealed_id: str, box: list[bytes]) -> None:
        group = sent.group
        try:
            encoding, start = self.codec.verify_result(group.queue, sealed_id, box[0], group.kind)
            read = group.read(encoding, box, start)
        except ManyhandsError as error:
            self._fail(sent, range(first, first + n), error)
            return
        if read.is_setup_failed:
            broken = setup_failed(read.failed)
            read.failed.update(dict.fromkeys(read.failed, broken))
            if self.on_setup_failed is not None:
                self.on_setup_failed(broken)
        with self.lock:
            awaiting = self.state.over(sent, first, len(read.values))
            group.pace.took(read.times)
        awaiting.ended(first, read.values, read.failed)

    def _fail(self, sent: Sent, parts: Sequence[int], error: Exception) -> None:
        for part in parts:
            with self.lock:
                awaiting = self.state.over(sent, part, 1)
            awaiting.ended(part, [None], {0: error})

    def _refused(self, failed: Failed) -> None:
        if failed.rid in self._asked:
            self._answered(failed.rid, failed)
            return
        error = from_code(failed.code, failed.text, failed.facts)
        with self.lock:
            if failed.rid == self.state.collect_rid:
                self.state.collect_rid = 0
                refused = list(self.state.sent.values())
            else:
                refused = self.state.fetched(failed.rid) or self.state.put_failed(failed.rid)
        for sent in refused:
            self._fail(sent, sent.missing(), error)

    # -- waiting -------------------------------------------------------------------------------------------------------

    def wait(self, future: CallFuture[Any], timeout: float | None) -> None:
        """Wait until a call has ended.

        Raises:
            TimeoutError: it has not, after timeout seconds.
        """
        if self.state.has_output:
            self.flush()
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._reading is not None and not future.done() and self.gone is None:
            # One call alone: the program works in step with its workers, and nothing of it keeps the processor from them.
            is_hurried = self.state.n_left == 1
            reply = self._reading.read_answer(self.state.collect_rid, timeout, is_hurried=is_hurried)
            if reply is not None:
                self._take_in((reply,))
        while not future.done():
            waiter = Waiter()
            if not future.set_waiter(waiter):
                if not future.done():
                    self._wait_by_condition(future, deadline)
                return
            try:
                self.wait_with(waiter, deadline, future.done)
            finally:
                future._waiter = None
            if not future.done() and deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError

    def wait_with(self, waiter: Waiter, deadline: float | None, is_over: Callable[[], bool]) -> None:
        """Block until the waiter is set, it is over, or the deadline (monotonic) has passed; results come in meanwhile."""
        is_leader, outer = False, None
        if self._is_here:
            with self.lock:
                # Who leads may wait again inside (a callback, a task that a test runs in this thread): it goes on leading.
                if self._leader is None or self._leading_thread == threading.get_ident():
                    outer, self._leader = self._leader, waiter
                    self._leading_thread = threading.get_ident()
                    is_leader = True
        try:
            while not waiter.is_set and not is_over():
                waiter.is_nudged = False
                if is_leader and self._inbox:
                    self.take_inbox()
                    continue
                left = -1.0 if deadline is None else deadline - time.monotonic()
                if deadline is not None and left <= 0:
                    return
                try:
                    self.port.wait(waiter, left)
                except ServerUnavailable as error:
                    self._end(error)
        finally:
            if is_leader:
                self._leader = outer
                if self._inbox and outer is None:
                    self._helper.rouse()

    @staticmethod
    def _wait_by_condition(future: CallFuture[Any], deadline: float | None) -> None:
        with future._condition:
            while not future.done():
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    raise TimeoutError
                future._condition.wait(left)

    def wait_until_idle(self) -> None:
        """Wait until every call that was submitted has ended."""
        while not self._is_idle() and self.gone is None:
            waiter = Waiter()
            self._idle.append(waiter)
            try:
                self.flush()
                self.wait_with(waiter, time.monotonic() + LOOK_S, self._is_idle)
            finally:
                self._idle.remove(waiter)

    def _look_whether_idle(self) -> None:
        if self._idle and (self._is_idle() or self.gone is not None):
            for waiter in list(self._idle):
                if not waiter.is_set:
                    waiter.set()

    def _is_idle(self) -> bool:
        return not self.state.n_left and not self.state.n_open and not self._feeds

    @property
    def n_pending(self) -> int:
        """How many calls were submitted and have not ended."""
        return self.state.n_left + self.state.n_open

    def refuse(self, why: Exception) -> None:
        """Take no more calls of the caller's; maps that were begun go on."""
        with self.lock:
            self.refusal = self.refusal or why

    def fail_all(self, error: Exception) -> None:
        """No call can be run: whatever is pending ends with this."""
        for feed in self.feeds:
            feed.cease()
        with self.lock:
            opened = [future for group in self.state.groups() for future in self.state.take_all_open(group)]
            lost = list(self.state.sent.values())
        deliver(opened, [None] * len(opened), dict.fromkeys(range(len(opened)), error))
        for sent in lost:
            self._fail(sent, sent.missing(), error)
        self._look_whether_idle()

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[int], Request]) -> Reply | None:
        """Ask the engine something that it answers at once; None when it did not answer."""
        with self.lock:
            request = make(self.state.next_rid())
        rid = request.rid  # type: ignore[union-attr]
        asked = self._asked[rid] = Asked()
        try:
            self.send(request)
            self.wait_with(asked.waiter, time.monotonic() + ANSWER_S, asked.is_over)
        except ServerUnavailable as error:
            self._end(error)
        finally:
            self._asked.pop(rid, None)
        return asked.reply

    def confirm(self) -> int:
        """Wait until the engine has all that was submitted; how many messages it has not after ANSWER_S."""
        with contextlib.suppress(ServerUnavailable, ServerGone):
            self.flush()
            if self.state.under_way():
                self.ask(Ping)  # answered behind all that was sent before
        return len(self.state.under_way())

    def _answered(self, rid: int, reply: Reply) -> None:
        asked = self._asked.get(rid)
        if asked is not None:
            asked.reply = reply
            asked.waiter.set()

    def is_running(self, future: CallFuture[Any]) -> bool:
        """Whether somebody has probably begun a call: it is among the first that were sent and have not ended."""
        with self.lock:
            sent = future._sent
            return sent is not None and self.state.is_running(sent, self.width)

    def pending(self) -> list[CallFuture[Any]]:
        """The futures of calls that have not ended."""
        with self.lock:
            found = [future for group in self.state.groups() for future in group.awaiting]
            for sent in self.state.sent.values():
                if isinstance(sent.awaiting, Futures):
                    found += sent.awaiting.futures
        return [future for future in found if not future.done()]

    # -- maps, and what the helper looks after ---------------------------------------------------------------------------

    @property
    def feeds(self) -> list[Fed]:
        """What is fed now."""
        return list(self._feeds)

    def add_feed(self, feed: Fed) -> None:
        """Call this whenever results have come in, until `remove_feed`."""
        self._feeds[feed] = None

    def remove_feed(self, feed: Fed) -> None:
        self._feeds.pop(feed, None)

    @property
    def must_look(self) -> bool:
        """Whether calls are out at a server, which may vanish."""
        return self.state.n_left > 0 and not self._is_here

    def look_after(self) -> None:
        """Give up calls that cannot end: the server is gone, or came back without them."""
        attached = self.port.attached
        if attached is not self._attached:
            self._attached = attached
            self._closing_at = 0.0
            if not attached.is_resumed and attached.durability.level == "process":
                self._lose_all(
                    ServerUnavailable(
                        "The server was started anew, and its queues were in its memory, so this call is lost; submit it "
                        "again, or serve with a store that outlives the process (--store sqlite:///jobs.db)."
                    )
                )
        elif self._closing_at and time.monotonic() - self._closing_at > GONE_S:
            self._lose_all(
                ServerGone("The server said goodbye and did not come back in time, so this call has no result yet.")
            )

    def _lose_all(self, error: Exception) -> None:
        with self.lock:
            under_way = self.state.under_way()
            lost = [sent for message_id, sent in self.state.sent.items() if message_id not in under_way]
        for sent in lost:
            self._fail(sent, sent.missing(), error)
        self._look_whether_idle()

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session; calls that have not ended are cancelled or fail. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        self.port.detach(goodbye=True)
        self._end(ServerUnavailable("This client was closed before the call had ended."))
        self._helper.stop()

    def _end(self, error: Exception) -> None:
        if self.gone is None:
            self.gone = error
        self.refuse(error)
        self.fail_all(self.gone)
        for asked in list(self._asked.values()):
            asked.waiter.nudge()
        self._look_whether_idle()


__all__ = ["CallSession"]
