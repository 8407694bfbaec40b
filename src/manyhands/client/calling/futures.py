"""The futures of calls: concurrent.futures' own, made cheap enough for 100,000 of them a second.

A plain Future makes a condition at birth (1 µs) and takes it to set a result (1 µs more), though most futures are asked
once, when they have long been done. Here the condition is made when somebody needs it (a callback, `wait`, `as_completed`, a
second waiting thread). Who makes it and who sets a result without it hold the same lock, so a result is never set unseen:

    deliver:  lock { no condition? set the result: done }    else set it under the condition, as the standard library does
    wait:     lock { make the condition }                     then look at the state under the condition
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import TYPE_CHECKING, Any, TypeVar

from manyhands.client.calling.cancelling import cancel
from manyhands.errors import UsageError

if TYPE_CHECKING:
    from manyhands._waiter import Waiter
    from manyhands.client.calling.session import CallSession
    from manyhands.client.calling.state import Sent

T = TypeVar("T")

_PENDING, _RUNNING, _FINISHED = "PENDING", "RUNNING", "FINISHED"
_OVER = ("CANCELLED", "CANCELLED_AND_NOTIFIED", _FINISHED)

_lock = threading.Lock()


class CallFuture(Future[T]):
    """What `submit` returns: a concurrent.futures.Future with an `id` under which any client finds the result."""

    progress: tuple[float, float, str] | None = None
    """What the call said of itself last: (done, total, note) of `mh.current().progress(…)`."""
    _state: str = _PENDING
    _result: Any = None
    _exception: BaseException | None = None
    _waiter: Waiter | None = None
    """Of the one thread that waits in `result`, without a condition."""
    _made: threading.Condition | None = None
    _index = 0
    _sent: Sent | None = None
    """The message that it is in, once it has been put into one."""

    def __init__(self, session: CallSession) -> None:
        self._session = session

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        made = self._made
        if made is None:
            with _lock:
                made = self._made
                if made is None:
                    self._waiters: list[Any] = []
                    self._done_callbacks: list[Any] = []
                    made = self._made = threading.Condition()
        return made

    @property
    def id(self) -> str:
        """The call's id: any client finds its result by it, for as long as it is kept."""
        if self._sent is None:
            self._session.flush()
        sent = self._sent
        if sent is None:
            raise UsageError("This call was cancelled before it was sent, so it has no id.")
        return sent.call_id(self._index)

    def result(self, timeout: float | None = None) -> T:
        """What the call returned, waiting for it.

        Raises:
            TimeoutError: it has not ended after timeout seconds.
            CancelledError: it was cancelled.
            Whatever it raised, with the remote traceback as the cause.
        """
        if self._state != _FINISHED:
            self._session.wait(self, timeout)
        if self._state in ("CANCELLED", "CANCELLED_AND_NOTIFIED"):
            raise CancelledError
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                self = None  # type: ignore[assignment]
        result: T = self._result
        return result

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """What the call raised, or None, waiting for it; raises as `result` does where there is no answer."""
        if self._state != _FINISHED:
            self._session.wait(self, timeout)
        if self._state in ("CANCELLED", "CANCELLED_AND_NOTIFIED"):
            raise CancelledError
        return self._exception

    def cancel(self, running: bool = False) -> bool:
        """Cancel the call if nobody has begun it; whether it was cancelled.

        Args:
            running: also if it runs: its process is killed and replaced. The engine tells as soon as that is done; this
                waits for it.
        """
        if self._state in _OVER:
            return self._state != _FINISHED
        return cancel(self._session, self, is_running_too=running)

    def done(self) -> bool:
        """Whether it was cancelled or has ended."""
        return self._state in _OVER

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in ("CANCELLED", "CANCELLED_AND_NOTIFIED")

    def running(self) -> bool:
        """Whether somebody has begun it, as far as is known here."""
        return self._state == _RUNNING or (self._state == _PENDING and self._session.is_running(self))

    # -- for the session

    def set_waiter(self, waiter: Waiter) -> bool:
        """A thread is about to wait with this; False: it need not, or must do so by the condition."""
        with _lock:
            if self._state in _OVER or self._waiter is not None:
                return False
            self._waiter = waiter
            return True

    def cancel_quietly(self) -> bool:
        """It was taken out of the queue: cancelled, and all who wait are told."""
        with _lock:
            if self._state in _OVER:
                return False
            self._state = _PENDING  # if it was running: it was killed
        if not super().cancel():
            return False
        self.set_running_or_notify_cancel()
        self._wake()
        return True

    def began(self) -> None:
        """It cannot be cancelled any more."""
        with _lock:
            if self._state == _PENDING:
                self._state = _RUNNING

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.is_set:
            waiter.set()


def deliver(futures: Iterable[CallFuture[Any]], values: Sequence[Any], failed: Mapping[int, BaseException]) -> None:
    """Give each future its call's outcome; one that has one already, or was cancelled, keeps it.

    Args:
        failed: by place in values: what to raise.
    """
    seen: list[tuple[CallFuture[Any], Any, BaseException | None]] = []
    interrupt: BaseException | None = None
    waiting: list[Waiter] = []
    with _lock:
        if not failed:
            for future, value in zip(futures, values, strict=False):
                if future._made is None:
                    if future._state not in _OVER:
                        future._result = value
                        future._state = _FINISHED
                        waiter = future._waiter
                        if waiter is not None:
                            waiting.append(waiter)
                else:
                    seen.append((future, value, None))
        else:
            for index, (future, value) in enumerate(zip(futures, values, strict=False)):
                error = failed.get(index)
                if future._made is not None:
                    seen.append((future, value, error))
                elif future._state not in _OVER:
                    future._result, future._exception = value, error
                    future._state = _FINISHED
                    if future._waiter is not None:
                        waiting.append(future._waiter)
    for waiter in waiting:
        waiter.set()
    for future, value, error in seen:
        if future._state in _OVER:
            continue
        try:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(value)
        except InvalidStateError:  # it was cancelled just now
            pass
        except BaseException as raised:  # a callback's SystemExit, or Ctrl-C: the others have results all the same
            interrupt = raised
        future._wake()
    if interrupt is not None:
        raise interrupt
