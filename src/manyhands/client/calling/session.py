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
from functools import partial
from itertools import count
from typing import Any, Protocol

from manyhands._waiter import Waiter
from manyhands.calls import bodies
from manyhands.client.calling.futures import CallFuture, deliver
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
    WorkerCrashed,
    from_code,
)
from manyhands.events import (
    Attach,
    Cancel,
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

LATE_S = 0.001
"""What was left to gather is sent after this."""
LOOK_S = 5.0
"""How often the helper looks whether the server has come back without what was there."""


class Fed(Protocol):
    """What gives more calls as results come in."""

    def feed(self) -> None: ...

    def finish(self) -> None:
        """The executor is being shut down: give the rest, or stop."""

    def cease(self) -> None:
        """Give nothing more."""


class _Futures:
    """The futures of one message's calls."""

    __slots__ = ("futures",)

    def __init__(self, futures: list[CallFuture[Any]]) -> None:
        self.futures = futures

    def sent(self, sent: Sent, first: int) -> None:
        for index, future in enumerate(self.futures, first):
            future._sent = sent
            future._index = index

    def ended(self, first: int, values: Sequence[Any], failed: dict[int, BaseException]) -> None:
        futures = self.futures
        deliver(futures if not first else futures[first:], values, failed)

    def cancelled(self, first: int, n: int) -> None:
        for future in self.futures[first : first + n]:
            future.cancel_quietly()


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
        self.state = CallState(codec, secrets.token_hex(16), self.new_id, _Futures)
        self.lock = threading.Lock()
        """Guards the state. Held for moments, and never while anything is sent or rebuilt."""
        self._sending = threading.Lock()
        self._signal = threading.Lock()
        self._signal.acquire()
        self._helper: threading.Thread | None = None
        self._is_late = False
        self._inbox: deque[Reply] = deque()
        self._leader: Waiter | None = None
        self._leading_thread = 0
        self._asked: dict[int, _Asked] = {}
        self._feeds: dict[Fed, None] = {}
        self._closing_at = 0.0
        self.width = 1
        """How many calls are run at a time, as far as is known."""
        self.is_closed = False
        self.refusal: Exception | None = None
        """Why no more calls are taken; the pending ones go on."""
        self.gone: Exception | None = None
        """Why no call will be answered any more."""
        self.on_idle: Callable[[], None] | None = None
        """Called, in any thread, when the last call has ended."""
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
        elif not self._is_late:
            self._is_late = True
            self._rouse_helper()
        return future

    def _submit_alone(self, group: Group, pickled: Pickled, future: CallFuture[Any]) -> None:
        if self.refusal is not None:
            raise self.refusal
        body = group.prefix.encode_alone(pickled, group.python)  # now: the caller may change its arrays
        self.add_body(group, body, 1, _Futures([future]))
        self.flush()

    def submit_message(self, group: Group, message: Message) -> CallFuture[Any]:
        """Send a sealed message with one call, now or with what gathers in the next moment.

        Its options name this session's stream (`state.stream`), or none: then its outcome is asked for by id, and a call of
        that id that is pending already is the same one.
        """
        with self.lock:
            known = self.state.sent.get(message.id)
            if known is not None and isinstance(known.awaiting, _Futures):
                return known.awaiting.futures[0]
            if self.refusal is not None:
                raise self.refusal
            future: CallFuture[Any] = CallFuture(self)
            is_due = self.state.add_message(group, message, 1, _Futures([future]))
        if is_due:
            self.flush()
        elif not self._is_late:
            self._is_late = True
            self._rouse_helper()
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
                    self._is_late = False
                    requests = state.take()
                if requests:
                    self.port.send(requests)
            except ServerUnavailable as error:
                self._end(error)
            finally:
                sending.release()
            if self.gone is not None:
                raise self.gone

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
            self._rouse_helper()

    def _take_inbox(self) -> None:
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
                    self._rouse_helper()

    def _take_results(self, collected: Collected) -> None:
        ended = collected.ended
        ended.reverse()
        with self.lock:
            self.state.collected(collected.number)
        while ended:
            self._take_result(ended.pop())
        for feed in list(self._feeds):
            feed.feed()
        if self.state.has_output:
            try:
                self.flush()
            except ManyhandsError:
                log.debug("no more results are fetched, because the session has ended")
        if self.on_idle is not None and self._is_idle():
            self.on_idle()

    def _take_outcome(self, outcome: Outcome) -> None:
        with self.lock:
            self.state.fetched(outcome.rid)
        if outcome.value is not None:
            self._take_result(Ended(outcome.id, outcome.value))
        if self.on_idle is not None and self._is_idle():
            self.on_idle()

    def _take_progress(self, told: Progressed) -> None:
        with self.lock:
            found = self.state.whose(Ended(told.id))
        if found is not None and isinstance(found[0].awaiting, _Futures):
            found[0].awaiting.futures[found[1]].progress = (told.done, told.total, told.note)

    def _take_result(self, ended: Ended) -> None:
        with self.lock:
            found = self.state.whose(ended)
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
        group = sent.group
        del ended  # arrays are rebuilt in the memory of the result, if nobody else has it
        try:
            encoding, start = self.codec.verify_result(group.queue, sealed_id, box[0], group.kind)
            read = group.read(encoding, box, start)
        except ManyhandsError as error:
            self._fail(sent, range(first, first + n), error)
            return
        if read.is_setup_failed:
            broken = _setup_failed(read.failed)
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
                refused = self.state.fetched(failed.rid) or self.state.put_done(failed.rid)
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
            reply = self._reading.read_answer(self.state.collect_rid, timeout, is_hurried=False)
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
                    self._take_inbox()
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
                    self._rouse_helper()

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
            before, self.on_idle = self.on_idle, _both(self.on_idle, waiter)
            try:
                self.flush()
                self.wait_with(waiter, time.monotonic() + LOOK_S, self._is_idle)
            finally:
                self.on_idle = before

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
        if self.on_idle is not None and self._is_idle():
            self.on_idle()

    # -- questions -----------------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[int], Request]) -> Reply | None:
        """Ask the engine something that it answers at once; None when it did not answer."""
        with self.lock:
            request = make(self.state.next_rid())
        rid = request.rid  # type: ignore[union-attr]
        asked = self._asked[rid] = _Asked()
        try:
            with self._sending:
                self.port.send([request])
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

    def cancel(self, future: CallFuture[Any], *, is_running_too: bool = False) -> bool:
        """Cancel one call; whether it was."""
        if self.cancel_all([future], is_running_too=is_running_too):
            return True
        if is_running_too and not future.done():
            # Its worker is being stopped, or it ends just now.
            with contextlib.suppress(TimeoutError):
                self.wait(future, ANSWER_S)
        return future.cancelled()

    def is_running(self, future: CallFuture[Any]) -> bool:
        """Whether somebody has probably begun a call: it is among the first that were sent and have not ended."""
        with self.lock:
            sent = future._sent
            return sent is not None and self.state.is_running(sent, self.width)

    def cancel_all(self, futures: Sequence[CallFuture[Any]], *, is_running_too: bool = False) -> int:
        """Cancel calls that nobody has begun; how many were."""
        n = 0
        by_group: dict[Group, dict[str, CallFuture[Any]]] = {}
        with self._sending, self.lock:  # so that none is on its way between the two places
            groups = [group for group in self.state.groups() if group.open]
            for future in futures:
                sent = future._sent
                if sent is not None:
                    by_group.setdefault(sent.group, {})[sent.call_id(future._index)] = future
                elif any(self.state.take_open(group, future) for group in groups):
                    n += future.cancel_quietly()
        for group, by_id in by_group.items():
            reply = self.ask(partial(_cancel, queue=group.queue, ids=list(by_id), is_running_too=is_running_too))
            if isinstance(reply, Cancelled):
                for call_id in reply.ids:
                    if call_id in by_id:
                        n += self._cancelled(by_id.pop(call_id))
            for future in by_id.values():
                if not is_running_too:
                    future.began()
        return n

    def cancel_messages(self, group: Group, messages: Sequence[Sent]) -> None:
        """Take messages out of the queue of which nobody will have the results; waits for nothing."""
        with self.lock:
            request = Cancel(self.state.next_rid(), group.queue, [sent.id for sent in messages])
        with contextlib.suppress(ServerUnavailable), self._sending:
            self.port.send([request])

    def pending(self) -> list[CallFuture[Any]]:
        """The futures of calls that have not ended."""
        with self.lock:
            found = [future for group in self.state.groups() for future in group.awaiting]
            for sent in self.state.sent.values():
                if isinstance(sent.awaiting, _Futures):
                    found += sent.awaiting.futures
        return [future for future in found if not future.done()]

    def _cancelled(self, future: CallFuture[Any]) -> bool:
        sent = future._sent
        assert sent is not None
        with self.lock:
            self.state.over(sent, future._index, 1)
        return future.cancel_quietly() or future.cancelled()

    # -- the helper ----------------------------------------------------------------------------------------------------

    @property
    def feeds(self) -> list[Fed]:
        """What is fed now."""
        return list(self._feeds)

    def add_feed(self, feed: Fed) -> None:
        """Call this whenever results have come in, until `remove_feed`."""
        self._feeds[feed] = None

    def remove_feed(self, feed: Fed) -> None:
        self._feeds.pop(feed, None)

    def _rouse_helper(self) -> None:
        if self._helper is None:
            with self.lock:
                if self._helper is None and not self.is_closed:
                    self._helper = threading.Thread(target=self._help, name="manyhands-calls", daemon=True)
                    self._helper.start()
        with contextlib.suppress(RuntimeError):  # it is roused already
            self._signal.release()

    def _help(self) -> None:
        flush_at = 0.0
        while not self.is_closed:
            if flush_at:
                timeout = max(0.0, flush_at - time.monotonic())
            else:
                timeout = LOOK_S if self.state.n_left and not self._is_here else -1.0
            self._signal.acquire(timeout=timeout)
            try:
                if self._leader is None:
                    self._take_inbox()
                if not self._is_late:
                    flush_at = 0.0
                elif not flush_at:
                    flush_at = time.monotonic() + LATE_S
                elif time.monotonic() >= flush_at:
                    flush_at = 0.0
                    self._is_late = False
                    self.flush()
                self._look_after()
            except ManyhandsError:
                log.debug("the helper of a session that has ended")
            except Exception:
                log.exception("A bug in the client; calls may wait for ever")

    def _look_after(self) -> None:
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
        if self.on_idle is not None and self._is_idle():
            self.on_idle()

    # -- the end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session; calls that have not ended are cancelled or fail. Idempotent."""
        if self.is_closed:
            return
        self.is_closed = True
        if self._helper is not None:
            self._rouse_helper()
        self.port.detach(goodbye=True)
        self._end(ServerUnavailable("This client was closed before the call had ended."))
        helper = self._helper
        if helper is not None and helper is not threading.current_thread():
            helper.join()

    def _end(self, error: Exception) -> None:
        if self.gone is None:
            self.gone = error
        self.refuse(error)
        self.fail_all(self.gone)
        for asked in list(self._asked.values()):
            asked.waiter.nudge()
        if self.on_idle is not None:
            self.on_idle()


def _cancel(rid: int, queue: str, ids: list[str], is_running_too: bool) -> Cancel:
    return Cancel(rid, queue, ids, is_running_too)


class _Asked:
    __slots__ = ("reply", "waiter")

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.waiter = Waiter()

    def is_over(self) -> bool:
        return self.reply is not None


def _both(first: Callable[[], None] | None, waiter: Waiter) -> Callable[[], None]:
    def call() -> None:
        if not waiter.is_set:
            waiter.set()
        if first is not None:
            first()

    return call


def _setup_failed(failed: dict[int, BaseException]) -> BaseException:
    cause = next(iter(failed.values()), None)
    error = WorkerCrashed("The initializer failed in a worker, so no call of this executor can be run there.")
    error.__cause__ = cause
    return error


__all__ = ["CallSession"]
