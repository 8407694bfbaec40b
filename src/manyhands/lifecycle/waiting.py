"""Requests that wait: who waits, in which order, and how a wait ends without anybody searching for it."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, TypeVar

import msgspec

if TYPE_CHECKING:
    from manyhands.events import Put
    from manyhands.lifecycle.queue import Queue
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.streams import Stream


class _Ending(msgspec.Struct, eq=False, kw_only=True):
    is_over: bool = False
    """It was answered or withdrawn: its timer then skips it."""
    has_timer: bool = False


class Waiting(_Ending, eq=False):
    """One parked request."""

    session: Session
    rid: int


class WaitingLease(Waiting, eq=False):
    """A consumer that waits for messages, of one queue or of whichever of several has one first."""

    queue: Queue
    max_n: int
    begin_n: int
    others: tuple[Queue, ...] = ()
    """It stands in the lines of these too."""
    is_move: bool = False
    is_last_call: bool = False
    """Its time is over; it only waits for the answers to recalls before it is told that there is nothing."""


class WaitingPut(Waiting, eq=False):
    """A producer that waits for room. A resend of the same put waits along with it."""

    queue: Queue
    request: Put
    also: list[int] = []


class WaitingJoin(Waiting, eq=False):
    """Waits until a queue has nothing unfinished."""

    queue: Queue


class WaitingResult(Waiting, eq=False):
    """Waits for a result."""

    id: str
    forget: bool


class WaitingCollect(Waiting, eq=False):
    """Waits for the next ends of a stream's calls."""

    stream: Stream
    ack: int


W = TypeVar("W", bound=Waiting)


class Line(OrderedDict[W, None]):
    """First come, first served; whoever is in line leaves it at once, wherever it stands (`del line[waiting]`).

    A dict of C's making: whether anybody waits is asked several times for each message, and a plain dict looks through all
    that left at its front to find who is first.
    """

    __slots__ = ()

    def first(self) -> W | None:
        """Who is next."""
        return next(iter(self), None)
