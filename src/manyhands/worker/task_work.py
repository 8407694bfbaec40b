"""A task's work: one attempt, or those of a pack, and what is said of them. See work.py, which has an Executor's calls.

a pack      [ ok  ok  ok  raised  …  … ]     the first three are reported, the fourth is settled as its task says, and the
              report      ^settled ^go back  rest goes back uncharged: from then on each travels alone
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.codec import PLAIN, PLAIN_CALLS
from manyhands.errors import ManyhandsError, TaskTimedOut
from manyhands.model import Delivery, Kind, SettleKind, Settlement, part_id, result_id
from manyhands.tasks.attempts import Current, running
from manyhands.tasks.bodies import Body, TaskCall, TaskPack
from manyhands.tasks.policy import after
from manyhands.tasks.results import pack_error, pack_outcomes, pack_value
from manyhands.worker.work import CallWork, times_between, too_large

if TYPE_CHECKING:
    from manyhands.tasks.task import Task
    from manyhands.worker.running import Runner


_AROUND_BYTES = 256
"""Of a result, beside the outcome: the seal, times, and what msgpack puts around them; rather too much."""


class TaskWork:
    """One attempt of a task."""

    __slots__ = (
        "_call",
        "_delivery",
        "_error",
        "_queue",
        "_runner",
        "_seconds",
        "_value",
        "n",
        "n_ended",
        "timeout_s",
        "token",
    )

    def __init__(self, runner: Runner, queue: str, delivery: Delivery, call: TaskCall) -> None:
        self.token = delivery.token
        self.n = 1
        self.n_ended = 0
        self.timeout_s = call.body.timeout_s
        self._runner = runner
        self._queue = queue
        self._delivery = delivery
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._seconds = 0.0

    @property
    def is_async(self) -> bool:
        """Whether the task's function is a coroutine function."""
        return self._call.task.is_async

    @property
    def size_bytes(self) -> int:
        return 0

    @property
    def is_stopped(self) -> bool:
        return False

    @property
    def is_too_much(self) -> bool:
        return False

    def run(self, first: int, end: int) -> None:
        """Run the attempt. Whatever it raises becomes its outcome."""
        call = self._call
        try:
            with running(_current(self._runner, self._delivery, self._call.body, -1)):
                value = call.task.__wrapped__(*call.args, **call.kwargs)
                if call.task.is_async:
                    value = self._runner.complete(value)
                self._value = value
        except BaseException as error:  # SystemExit too: it ends the attempt, not the worker
            self._error = error
        self.n_ended = 1

    async def run_async(self) -> None:
        """The same for a coroutine function, in the caller's event loop. Cancelling it raises CancelledError here too."""
        call = self._call
        try:
            with running(_current(self._runner, self._delivery, self._call.body, -1)):
                self._value = await call.task.__wrapped__(*call.args, **call.kwargs)
        except BaseException as error:
            self._error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.n_ended = 1

    def took(self, seconds: float) -> None:
        """The attempt took so long."""
        self._seconds = seconds

    def settlement(self) -> Settlement:
        """The end of the delivery."""
        if not self.n_ended:
            return Settlement(self.token, SettleKind.RELEASE)
        error = self._error
        if error is None:
            try:
                result = self._sealed(pack_value(self._call.task, self._value, self._seconds))
                if len(result) > self._runner.limit_bytes:
                    raise too_large(len(result), self._runner.limit_bytes)
                return Settlement(self.token, is_task_done=True, result=result)
            except ManyhandsError as trouble:
                error = trouble
        return self._failed(error, self._seconds)

    def report(self) -> tuple[int, bytes] | None:
        return None

    def will(self, index: int) -> Settlement:
        """How the attempt ends when its time limit ends it: again, or as TaskTimedOut."""
        return self._failed(_timed_out(self._call.task, self.timeout_s), self.timeout_s)

    def _failed(self, error: BaseException, seconds: float) -> Settlement:
        verdict = after(error, self._delivery.attempt, self._call.task, self._call.body, self._runner.unit())
        result = None if verdict.kind == SettleKind.NACK else self._sealed(pack_error(error, seconds))
        is_done = verdict.kind == SettleKind.ACK  # a dead letter is counted as such
        return Settlement(self.token, verdict.kind, is_done, verdict.delay_s, verdict.reason, result)

    def _sealed(self, body: bytes) -> bytes:
        return self._runner.codec.sealed(self._queue, self._delivery.message.id, PLAIN, [body], Kind.TASK)


class TaskPackWork:
    """The attempts of a pack of tasks, one after another until one of them does not return."""

    __slots__ = (
        "_cuts",
        "_delivery",
        "_error",
        "_pack",
        "_queue",
        "_runner",
        "_sent",
        "_values",
        "n",
        "size_bytes",
        "timeout_s",
        "token",
    )

    def __init__(self, runner: Runner, queue: str, delivery: Delivery, pack: TaskPack) -> None:
        self.token = delivery.token
        self.n = len(pack.calls)
        self.timeout_s = pack.body.timeout_s
        self.size_bytes = 0
        """How much the outcomes take that were not reported."""
        self._runner = runner
        self._queue = queue
        self._delivery = delivery
        self._pack = pack
        self._values: list[bytes] = []  # packed, one for each that returned
        self._error: BaseException | None = None  # of the call behind those
        self._sent = 0  # so many outcomes were reported
        self._cuts: list[tuple[int, float]] = []  # (calls up to here, seconds of the last step)

    @property
    def n_ended(self) -> int:
        """How many attempts have ended."""
        return len(self._values) + self.is_stopped

    @property
    def is_stopped(self) -> bool:
        """Whether an attempt did not return: the others are not for this delivery any more."""
        return self._error is not None

    def run(self, first: int, end: int) -> None:
        """Run the attempts first … end - 1, until one raises; that becomes its outcome."""
        task, calls, body = self._pack
        runner, delivery, values = self._runner, self._delivery, self._values
        function, unpack = task.__wrapped__, task.arguments.unpack
        try:
            for part in range(first, end if self._error is None else first):
                args, kwargs = unpack(calls[part])
                with running(_current(runner, delivery, body, part)):
                    value = function(*args, **kwargs)
                    if task.is_async:
                        value = runner.complete(value)
                packed = pack_value(task, value, 0.0)
                if len(packed) + _AROUND_BYTES > runner.limit_bytes:
                    raise too_large(len(packed), runner.limit_bytes)
                values.append(packed)
                self.size_bytes += len(packed)
        except BaseException as error:  # SystemExit too: it ends the attempt, not the worker
            self._error = error

    def took(self, seconds: float) -> None:
        """The attempts of the last `run` took so long together."""
        self._cuts.append((self.n_ended, seconds))

    @property
    def is_too_much(self) -> bool:
        """Whether something has to be reported before the `settlement`: what came before a failure, or fits no message."""
        n_left = len(self._values) - self._sent
        return n_left > 0 and (self.is_stopped or (self.size_bytes > self._runner.portion_bytes // 2 and n_left > 1))

    def report(self) -> tuple[int, bytes] | None:
        """How many of its calls, but for the last, have returned that were not reported, and their result; see CallWork."""
        start, n, size = self._sent, 0, 0
        for packed in self._values[start : self.n - 1]:
            size += len(packed)
            if n and size > self._runner.portion_bytes // 2:
                break
            n += 1
        if not n:
            return None
        result = self._result(start, start + n)
        self._sent = start + n
        self.size_bytes = sum(map(len, self._values[start + n :]))
        return n, result

    def settlement(self) -> Settlement:
        """The end of the delivery; what was not run goes back. What `is_too_much` was reported before."""
        n = len(self._values)
        if n > self._sent:
            result = self._result(self._sent, n)
            return Settlement(self.token, is_task_done=True, result=result, calls=n - self._sent)
        if self._error is None:
            return Settlement(self.token, SettleKind.RELEASE)
        return self._failed(self._error, self._cuts[-1][1], n)

    def will(self, index: int) -> Settlement:
        """How attempt `index` ends when its time limit ends it: again, or as TaskTimedOut."""
        return self._failed(_timed_out(self._pack.task, self.timeout_s), self.timeout_s, index)

    def _failed(self, error: BaseException, seconds: float, part: int) -> Settlement:
        pack, runner = self._pack, self._runner
        verdict = after(error, self._delivery.attempt, pack.task, pack.body, runner.unit())
        result = None
        if verdict.kind != SettleKind.NACK:
            outcomes = pack_outcomes([(1, seconds)], [pack_error(error, seconds)])
            result = self._sealed(outcomes, part, 1)
        is_done = verdict.kind == SettleKind.ACK
        return Settlement(self.token, verdict.kind, is_done, verdict.delay_s, verdict.reason, result, 1)

    def _result(self, start: int, end: int) -> bytes:
        outcomes = pack_outcomes(times_between(self._cuts, start, end), self._values[start:end])
        return self._sealed(outcomes, start, end - start)

    def _sealed(self, body: bytes, first: int, n: int) -> bytes:
        to = result_id(self._delivery.message.id, first, n)
        return self._runner.codec.sealed(self._queue, to, PLAIN_CALLS, [body], Kind.TASK)


def _timed_out(task: Task[..., Any], limit_s: float) -> TaskTimedOut:
    return TaskTimedOut(f"Task {task.name} was stopped after {limit_s:g} s, its limit (timeout_s).", timeout_s=limit_s)


def _current(runner: Runner, delivery: Delivery, body: Body, part: int) -> Current:
    """What `mh.current()` is in an attempt.

    Args:
        part: which call of a pack; -1: it is none.
    """
    token, limit_s = delivery.token, body.timeout_s
    message_id = delivery.message.id
    return Current(
        part_id(message_id, part) if part >= 0 else message_id,
        delivery.attempt,
        max_attempts=body.max_attempts,
        deadline=runner.utc() + limit_s if limit_s else None,
        on_progress=lambda done, total, note: runner.on_progress(token, part, done, total, note),
        is_cancelled=lambda: runner.is_cancelled(token, part),
    )


Work = CallWork | TaskWork | TaskPackWork
