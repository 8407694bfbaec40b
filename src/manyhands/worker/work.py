"""An Executor's work: the calls of one delivery, run one after another, and what is said of them. Tasks: task_work.py.

A worker's children, threads and event loops run the same. Who runs it measures it, and says how long it took.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from manyhands.calls.outcomes import Outcomes
from manyhands.calls.running import Calls, encode_result
from manyhands.errors import PayloadTooLarge, TaskTimedOut
from manyhands.model import Delivery, Kind, SettleKind, Settlement, result_id

if TYPE_CHECKING:
    from manyhands.worker.running import Runner

PORTION_BYTES = 32 * 1024 * 1024
"""Outcomes of a pack that are larger than this together travel in several messages."""

_SIZED = frozenset([bytes, str])


class CallWork:
    """The calls of one CALL message, or the one that a split left of it.

    Args:
        loaded: the message's calls.
    """

    __slots__ = (
        "_calls",
        "_cuts",
        "_id",
        "_is_pack",
        "_offset",
        "_outcomes",
        "_queue",
        "_runner",
        "_sent",
        "n",
        "size_bytes",
        "timeout_s",
        "token",
    )

    def __init__(self, runner: Runner, queue: str, delivery: Delivery, loaded: Calls) -> None:
        options = delivery.message.options
        part = options.part if options is not None else -1
        self.token = delivery.token
        self.n = loaded.n if part < 0 else 1
        """How many calls there are to run."""
        self.timeout_s = loaded.timeout_s
        """How long each may run; 0 is for ever."""
        self._runner = runner
        self._queue = queue
        self._id = delivery.message.id
        self._is_pack = options is not None and options.calls > 1
        self._offset = max(part, 0)
        self._calls = loaded
        self._outcomes = Outcomes(is_one=not self._is_pack)
        self.size_bytes = 0
        """About how much its outcomes take, at least."""
        self._sent = 0  # so many outcomes were reported
        self._cuts: list[tuple[int, float]] = []  # (calls up to here, seconds of the last step)

    @property
    def n_ended(self) -> int:
        """How many calls have ended."""
        return len(self._outcomes.values)

    def run(self, first: int, end: int) -> None:
        """Run the calls first … end - 1. Whatever they raise becomes their outcome."""
        calls = self._calls
        if calls.setup is not None and (trouble := self._runner.set_up(calls.setup)) is not None:
            for _ in range(first, end):
                self._outcomes.fail(trouble)
            self._outcomes.is_setup_failed = True
            return
        calls.run(first + self._offset, end + self._offset, self._outcomes)

    def took(self, seconds: float) -> None:
        """The calls of the last `run` took so long together."""
        values, cuts = self._outcomes.values, self._cuts
        if values and type(values[-1]) in _SIZED:  # a look at one of them is enough to know when it is time to send
            first = cuts[-1][0] if cuts else 0
            self.size_bytes += sum(len(value) for value in values[first:] if type(value) in _SIZED)
        cuts.append((len(values), seconds))

    def settlement(self) -> Settlement:
        """The end of the delivery: the outcomes of all that was run and not reported; what was not run goes back.

        So do calls whose outcomes are too much for one message; who can send a `report` first asks `is_too_much`.
        """
        outcomes, sent = self._outcomes, self._sent
        n = len(outcomes.values)
        if n == sent:
            return Settlement(self.token, SettleKind.RELEASE)
        if not self._is_pack:
            return Settlement(self.token, is_task_done=True, result=self._result_of_one())
        part = self._result(n)
        while part is None:
            n = sent + (n - sent) // 2
            part = self._result(n)
        return Settlement(self.token, is_task_done=True, result=part, calls=n - sent)

    @property
    def is_stopped(self) -> bool:
        """Whether no more of its calls are to be run."""
        return False

    @property
    def is_too_much(self) -> bool:
        """Whether what was not reported may not fit one message."""
        return self.size_bytes > self._runner.portion_bytes // 2 and len(self._outcomes.values) > self._sent + 1

    def report(self) -> tuple[int, bytes] | None:
        """Of a pack: how many of its calls, but for the last, have ended that were not reported, and their result.

        May be called in another thread than the one in `run`; the caller sees to it that `settlement` is not meanwhile.
        """
        sent = self._sent
        n = min(len(self._outcomes.values), self.n - 1)
        if not self._is_pack or n <= sent:
            return None
        while (result := self._result(n)) is None:
            n = sent + (n - sent) // 2
        self._sent = n
        self.size_bytes = sum(len(value) for value in self._outcomes.values[n:] if type(value) in _SIZED)
        return n - sent, result

    def will(self, index: int) -> Settlement:
        """How call `index` ends when its time limit ends it."""
        error = TaskTimedOut(
            f"The call was stopped after {self.timeout_s:g} s, its limit (timeout_s).", timeout_s=self.timeout_s
        )
        outcomes = Outcomes()
        outcomes.fail(error, is_ours=True)
        outcomes.took(1, self.timeout_s)
        result = self._sealed(outcomes, index, 1)
        return Settlement(self.token, is_task_done=True, result=result, calls=1 if self._is_pack else 0)

    def _result(self, end: int) -> bytes | None:
        """The outcomes from the first that was not reported; None: more than one, and too much for one message."""
        start = self._sent
        outcomes = _slice(self._outcomes, start, end)
        outcomes.times += times_between(self._cuts, start, end)
        result = self._sealed(outcomes, start, end - start)
        if len(result) <= self._runner.portion_bytes:
            return result
        return None if end - start > 1 else self._fit(result, start)

    def _result_of_one(self) -> bytes:
        """The outcome of a message that is no pack; once."""
        outcomes = self._outcomes
        outcomes.times.append((1, self._cuts[-1][1]))
        result = encode_result(self._runner.codec, self._queue, self._id, Kind.CALL, outcomes)
        return result if len(result) <= self._runner.limit_bytes else self._fit(result, 0)

    def _fit(self, result: bytes, index: int) -> bytes:
        """The outcome of one call, or the error that it is too large."""
        if len(result) <= self._runner.limit_bytes:
            return result
        outcomes = Outcomes()
        outcomes.fail(too_large(len(result), self._runner.limit_bytes), is_ours=True)
        outcomes.times += times_between(self._cuts, index, index + 1)
        return self._sealed(outcomes, index, 1)

    def _sealed(self, outcomes: Outcomes, first: int, n: int) -> bytes:
        to = result_id(self._id, first, n) if self._is_pack else self._id
        return encode_result(self._runner.codec, self._queue, to, Kind.CALL, outcomes)


def too_large(size_bytes: int, limit_bytes: int) -> PayloadTooLarge:
    """What a call ends with whose result is larger than the engine takes."""
    return PayloadTooLarge(
        f"The call returned {size_bytes:,} bytes, and max_body_bytes is {limit_bytes:,}; have it put the data in a file "
        "or object store and return the path.",
        size_bytes=size_bytes,
        limit_bytes=limit_bytes,
    )


def times_between(cuts: Sequence[tuple[int, float]], start: int, end: int) -> list[tuple[int, float]]:
    """How long the calls start … end - 1 took: (how many, seconds that they took together), in order.

    Args:
        cuts: (calls up to here, seconds of the step that ended there), in order.
    """
    at, times = 0, []
    for upto, seconds in cuts:
        first, last = max(at, start), min(upto, end)
        if first < last:
            times.append((last - first, seconds * (last - first) / (upto - at)))
        at = upto
    if at < end:  # a step that is not over
        times.append((end - max(at, start), 0.0))
    return times


def _slice(outcomes: Outcomes, start: int, end: int) -> Outcomes:
    """A copy of some outcomes, from a list to which another thread may add."""
    part = Outcomes()
    part.values = outcomes.values[start:end]
    part.blobs = [index - start for index in list(outcomes.blobs) if start <= index < end]
    part.failures = {index - start: failure for index, failure in list(outcomes.failures.items()) if start <= index < end}
    part.is_setup_failed = outcomes.is_setup_failed
    return part
