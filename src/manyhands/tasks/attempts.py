"""What runs right now, for the code that is run: `mh.current()`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


def _unheard(done: float, total: float, note: str) -> None:
    pass


def _never() -> bool:
    return False


class Home(NamedTuple):
    """A server and its key."""

    url: str
    authkey: bytes


_home: Home | None = None


def live_at(server: Home | None) -> Home | None:
    """For the runner: this process works for that server (None: no more), so tasks that are submitted here go there as well;
    for which it worked before."""
    global _home
    before, _home = _home, server
    return before


def home() -> Home | None:
    """The server that this process works for; None where it is no worker."""
    return _home


class Current:
    """The attempt that runs.

    Args:
        message_id: the message's (of a call in a pack: the call's); "" where no worker runs it.
        attempt: 1 for the first; crashes count.
        deadline: UTC seconds at which the attempt will be stopped, or None.
        on_progress: takes (done, total, note); called in the task's thread.
        is_cancelled: whether somebody asked for it to stop.
    """

    __slots__ = ("_is_cancelled", "_on_progress", "attempt", "deadline", "id", "max_attempts")

    def __init__(
        self,
        message_id: str = "",
        attempt: int = 1,
        *,
        max_attempts: int = 1,
        deadline: float | None = None,
        on_progress: Callable[[float, float, str], None] = _unheard,
        is_cancelled: Callable[[], bool] = _never,
    ) -> None:
        self.id = message_id
        self.attempt = attempt
        self.max_attempts = max_attempts
        self.deadline = deadline
        self._on_progress = on_progress
        self._is_cancelled = is_cancelled

    def __repr__(self) -> str:
        return f"<attempt {self.attempt} of {self.id or 'a plain call'}>"

    def progress(self, done: float, total: float = 0.0, note: str = "") -> None:
        """Tell whoever waits how far it has come; nothing is stored, and where nobody listens nothing happens."""
        self._on_progress(float(done), float(total), note)

    def cancelled(self) -> bool:
        """Whether somebody cancelled this task, so that it should stop. Where tasks run in processes of their own the
        process is ended anyway; in a thread or event loop this is how a task learns of it."""
        return self._is_cancelled()


NOT_IN_A_WORKER = Current()
"""What a task sees that was called plainly: its progress goes nowhere and nobody cancels it."""
_current: ContextVar[Current] = ContextVar("manyhands.current", default=NOT_IN_A_WORKER)


def current() -> Current:
    """The attempt that runs in this thread or asyncio task."""
    return _current.get()


@contextmanager
def running(now: Current) -> Iterator[None]:
    """For the runner: within the block, `current()` is this."""
    token = _current.set(now)
    try:
        yield
    finally:
        _current.reset(token)
