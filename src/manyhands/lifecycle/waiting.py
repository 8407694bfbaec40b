"""Requests that wait: who waits, in which order, and how a wait ends without anybody searching for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from manyhands.events import Put
    from manyhands.lifecycle.queue import Queue
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.streams import Stream


class Waiting:
    """One parked request. `is_over` once it was answered or withdrawn: lines and timers then skip it."""

    __slots__ = ("has_timer", "is_over", "rid", "session")

    def __init__(self, session: Session, rid: int) -> None:
        self.session = session
        self.rid = rid
        self.is_over = False
        self.has_timer = False


class WaitingLease(Waiting):
    """A consumer that waits for messages, of one queue or of whichever of several has one first."""

    __slots__ = ("begin_n", "is_last_call", "max_n", "others", "queue")

    def __init__(
        self, session: Session, rid: int, queue: Queue, max_n: int, begin_n: int, others: tuple[Queue, ...] = ()
    ) -> None:
        super().__init__(session, rid)
        self.queue = queue
        self.others = others
        """It stands in the lines of these too."""
        self.max_n = max_n
        self.begin_n = begin_n
        self.is_last_call = False
        """Its time is over; it only waits for the answers to recalls before it is told that there is nothing."""


class WaitingPut(Waiting):
    """A producer that waits for room. A resend of the same put waits along with it."""

    __slots__ = ("also", "queue", "request")

    def __init__(self, session: Session, rid: int, queue: Queue, request: Put) -> None:
        super().__init__(session, rid)
        self.queue = queue
        self.request = request
        self.also: list[int] = []


class WaitingJoin(Waiting):
    """Waits until a queue has nothing unfinished."""

    __slots__ = ("queue",)

    def __init__(self, session: Session, rid: int, queue: Queue) -> None:
        super().__init__(session, rid)
        self.queue = queue


class WaitingResult(Waiting):
    """Waits for a result."""

    __slots__ = ("forget", "id")

    def __init__(self, session: Session, rid: int, message_id: str, forget: bool) -> None:
        super().__init__(session, rid)
        self.id = message_id
        self.forget = forget


class WaitingCollect(Waiting):
    """Waits for the next ends of a stream's calls."""

    __slots__ = ("ack", "stream")

    def __init__(self, session: Session, rid: int, stream: Stream, ack: int) -> None:
        super().__init__(session, rid)
        self.stream = stream
        self.ack = ack


W = TypeVar("W", bound=Waiting)


class Line(Generic[W]):
    """First come, first served; one that is over in the middle is skipped later, so that leaving costs nothing."""

    __slots__ = ("_items", "_n")

    def __init__(self) -> None:
        self._items: deque[W] = deque()
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def __iter__(self) -> Iterator[W]:
        return iter([item for item in self._items if not item.is_over])

    def append(self, item: W) -> None:
        self._items.append(item)
        self._n += 1

    def first(self) -> W | None:
        """Who is next."""
        items = self._items
        while items:
            if not items[0].is_over:
                return items[0]
            items.popleft()
        return None

    def left(self) -> None:
        """One of those in line was marked over."""
        self._n -= 1
        if len(self._items) > 32 + 2 * self._n:
            self._items = deque(item for item in self._items if not item.is_over)
