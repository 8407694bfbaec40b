"""Who waits for what in a call session: futures for calls, maps for room, threads for the engine's answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from manyhands._waiter import Waiter
from manyhands.client.calling.futures import CallFuture, deliver
from manyhands.client.calling.state import Sent
from manyhands.errors import WorkerCrashed
from manyhands.events import Reply


class Fed(Protocol):
    """What gives more calls as results come in."""

    def feed(self) -> None: ...

    def finish(self) -> None:
        """The executor is being shut down: give the rest, or stop."""

    def cease(self) -> None:
        """Give nothing more."""


class Futures:
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


class Asked:
    """One question to the engine."""

    __slots__ = ("reply", "waiter")

    def __init__(self) -> None:
        self.reply: Reply | None = None
        self.waiter = Waiter()

    def is_over(self) -> bool:
        return self.reply is not None


def setup_failed(failed: dict[int, BaseException]) -> BaseException:
    """What the calls of an executor end with whose initializer failed."""
    cause = next(iter(failed.values()), None)
    error = WorkerCrashed("The initializer failed in a worker, so no call of this executor can be run there.")
    error.__cause__ = cause
    return error
