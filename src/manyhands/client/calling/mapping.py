"""The iterator that `map` returns: arguments are taken as results come in, so that they may go on for ever.

    iterables ──take──> parts (up to a message of calls each) ──in order──> results

How much is under way is bounded: WINDOW messages, or `buffersize` calls. A map whose iterables have a length goes on by
itself as results arrive, as the standard library's does, which submits everything at once; one whose length nobody knows
goes on as its results are taken, or when its executor is shut down without anybody having begun to take them.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from itertools import islice
from typing import TYPE_CHECKING, Any

from manyhands._waiter import Waiter
from manyhands.calls import bodies
from manyhands.client.calling.cancelling import cancel_messages
from manyhands.client.calling.state import PACK_CALLS, Group, Sent
from manyhands.codec.pickles import Pickled
from manyhands.errors import ManyhandsError

if TYPE_CHECKING:
    from manyhands.client.calling.session import CallSession

WINDOW = 512
"""So many messages of a map are under way."""
FIRST_WINDOW = 32
"""While it is not known how long a call takes, and none has been waited for."""
_FLUSH_AT = 8
_SOON_S = 0.002
"""When nothing has come back after this, calls are not short: the window is filled."""


class Part:
    """Some calls of a map that share a message."""

    __slots__ = ("_left", "_on_end", "call_sent", "failed", "n", "values", "waiter")

    def __init__(self, n: int, on_end: Callable[[], None]) -> None:
        self.n = n
        self._on_end = on_end
        self.values: list[Any] = []
        self.failed: dict[int, BaseException] = {}
        self.call_sent: Sent | None = None
        self.waiter: Waiter | None = None
        self._left = n

    @property
    def is_over(self) -> bool:
        return self._left <= 0

    # -- Awaiting

    def sent(self, sent: Sent, first: int) -> None:
        self.call_sent = sent

    def ended(self, first: int, values: Sequence[Any], failed: dict[int, BaseException]) -> None:
        if self._left <= 0:
            return
        if len(values) == self.n:
            self.values, self.failed = list(values), failed
            self._left = 0
        else:
            if not self.values:
                self.values = [_MISSING] * self.n
            end = first + len(values)
            self._left -= self.values[first:end].count(_MISSING)
            self.values[first:end] = values
            for index, error in failed.items():
                self.failed[first + index] = error
        if self._left <= 0:
            self._on_end()
            waiter = self.waiter
            if waiter is not None and not waiter.is_set:
                waiter.set()

    def cancelled(self, first: int, n: int) -> None:
        self.ended(first, [None] * n, dict.fromkeys(range(n), CancelledError()))


_MISSING = object()


class Mapping:
    """What `map` does: gives calls as there is room, and results in order (`results`).

    Args:
        calls: the argument tuples; or, with is_single, the arguments of fn(argument).
        length: how many there are, where that is known.
        chunksize: how many calls share a message; None measures.
        buffersize: how many calls may be under way or wait to be taken; None leaves it to WINDOW.
        timeout_s: for the whole map, from now.
        on_feed: called when calls were given.
    """

    def __init__(
        self,
        session: CallSession,
        group: Group,
        before: tuple[Any, ...],
        calls: Iterable[Any],
        *,
        is_single: bool,
        length: int | None,
        chunksize: int | None,
        buffersize: int | None,
        timeout_s: float | None,
        on_feed: Callable[[], None],
    ) -> None:
        self._session = session
        self._group = group
        self._before = before
        self._calls = iter(calls)
        self._is_single = is_single and not before
        self._is_bare = is_single
        self.length = length
        """How many calls it makes, where that is known."""
        self._left = length
        self._goes_on = length is not None and buffersize is None
        self._chunksize = chunksize
        self._buffersize = buffersize
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._on_feed = on_feed
        self._parts: deque[Part] = deque()
        self._n_ended = 0
        self._n_sent = 0
        self._counts = threading.Lock()
        self._error: BaseException | None = None
        """What the iterables raised; comes behind the results of what they had given."""
        self._is_at_end = False
        self._is_closed = False
        self._is_begun = False
        self._has_waited = False
        self._turn = threading.Lock()
        session.add_feed(self)
        self.feed()

    # -- taking results

    def results(self) -> Iterator[Any]:
        """The results, once and in order. Like the standard library's: given up half-way, it cancels what has not begun; if
        nobody ever begins to take them, the calls are made all the same."""
        for batch in self.batches():
            batch.reverse()
            while batch:  # results belong to who takes them: none is kept here
                yield batch.pop()

    def batches(self) -> Iterator[list[Any]]:
        """The same, as many at a time as come together."""
        self._is_begun = True
        try:
            while True:
                if not self._parts:
                    self.feed()
                    if not self._parts:
                        break
                part = self._parts[0]
                if not part.is_over:
                    self._wait_for(part)
                if self._is_closed:  # by another thread
                    break
                self._parts.popleft()
                values, failed = part.values, part.failed
                del part
                if self._buffersize is not None or not self._goes_on:
                    self.feed()
                if failed:
                    first = min(failed)
                    del values[first:]
                yield values
                if failed:
                    raise failed[first]
            if self._error is not None and not self._is_closed:
                raise self._error
        finally:
            self.close()

    def _wait_for(self, part: Part) -> None:
        if self._session.state.has_output:
            self._session.flush()
        if not self._has_waited:
            self._wait_until(part, time.monotonic() + _SOON_S)
            self._has_waited = True
            self.feed()
        while not part.is_over:
            self._wait_until(part, self._deadline)
            if not part.is_over and self._deadline is not None and time.monotonic() >= self._deadline:
                raise TimeoutError

    def _wait_until(self, part: Part, deadline: float | None) -> None:
        part.waiter = waiter = Waiter()
        if not part.is_over:
            self._session.wait_with(waiter, deadline, lambda: part.is_over)

    # -- giving calls

    def feed(self) -> None:
        """Submit what fits into the window. Whoever finds another thread at it leaves it to that one."""
        if self._is_at_end or not self._turn.acquire(False):
            return
        try:
            unflushed = 0
            while not self._is_at_end and (n := self._room()):
                self._submit(n)
                unflushed += 1
                if unflushed % _FLUSH_AT == 0:
                    self._session.flush()
            if unflushed:
                self._session.flush()
                self._on_feed()
        except ManyhandsError as error:
            self._fail(error)
        finally:
            self._turn.release()

    def _fail(self, error: BaseException) -> None:
        """No more calls are given; the error comes behind the results of those that were."""
        self._error = error
        self._is_at_end = True
        self._session.remove_feed(self)

    def _room(self) -> int:
        """How many calls to put into the next message; 0: none now."""
        parts = self._parts
        pace = self._group.pack_calls
        n = self._chunksize or pace
        under_way = self._n_sent - self._n_ended if self._goes_on else len(parts)
        window = FIRST_WINDOW if self._group.pace.call_s < 0 and not self._has_waited else WINDOW
        if under_way >= window:
            return 0
        if self._buffersize is not None and not self._goes_on:
            n = min(n, self._buffersize - sum(part.n for part in parts))
        if self._left is not None and self._left < n * 8 and self._chunksize is None:
            n = max(1, min(n, self._left // 8 + 1))  # the last messages are smaller, so that workers end together
        return max(0, min(n, PACK_CALLS))

    def _submit(self, n: int) -> None:
        items: list[Any] = []
        try:
            items.extend(islice(self._calls, n))
        except BaseException as error:
            self._fail(error)
        else:
            if len(items) < n:
                self._is_at_end = True
                self._session.remove_feed(self)
        if not items:
            return
        if self._left is not None:
            self._left = max(0, self._left - len(items))
        try:
            self._send(items)
        except Exception as error:
            self._fail(error)

    def _send(self, items: list[Any]) -> None:
        group = self._group
        if self._is_single and bodies.single_arguments(items) is not None:
            self._send_body(group.prefix.encode(items, bodies.SINGLE), len(items))
            return
        arguments: list[Any] = []
        size = 0
        for item in items:
            args = (*self._before, item) if self._is_bare else self._before + item
            argument = bodies.argument(args, {})
            if type(argument) is Pickled:
                self._send_arguments(arguments)
                arguments, size = [], 0
                self._send_body(group.prefix.encode_alone(argument, group.python), 1)
                continue
            size += bodies.size_bytes(argument)
            if arguments and size > bodies.PACK_BYTES:
                self._send_arguments(arguments)
                arguments, size = [], 0
            arguments.append(argument)
        self._send_arguments(arguments)

    def _send_arguments(self, arguments: list[Any]) -> None:
        if arguments:
            self._send_body(self._group.prefix.encode(arguments), len(arguments))

    def _send_body(self, body: bytes, n: int) -> None:
        part = Part(n, self._part_ended)
        self._session.add_body(self._group, body, n, part)
        self._parts.append(part)
        self._n_sent += 1

    def _part_ended(self) -> None:
        with self._counts:
            self._n_ended += 1

    # -- the end

    def finish(self) -> None:
        """The executor is being shut down: go on by itself, if nobody has begun to take results; else take no more calls."""
        if self._is_at_end:
            return
        if self._goes_on or not self._is_begun:
            self._goes_on = True
            self._has_waited = True
            self.feed()
        else:
            self._fail(RuntimeError("cannot schedule new futures after shutdown"))

    def cease(self) -> None:
        """Take no more calls."""
        if not self._is_at_end:
            self._fail(CancelledError())

    def close(self) -> None:
        """Take nothing more: what has not begun is cancelled."""
        if self._is_closed:
            return
        self._is_closed = self._is_at_end = True
        self._session.remove_feed(self)
        parts = [part for part in self._parts if not part.is_over]
        self._parts.clear()
        if parts:
            cancel_messages(self._session, self._group, [part.call_sent for part in parts if part.call_sent is not None])
