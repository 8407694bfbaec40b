"""The change set: what one step of the core did to what must outlive the process.

A durable engine writes these, in order, in the one transaction that covers the step, before any effect of it leaves.
`n` is the core's own number for a stored message: growing, never used twice in a store, first in first out.
"""

from __future__ import annotations

import msgspec

from manyhands.model import Attempt, Message


class _Change(msgspec.Struct, array_like=True, frozen=True, gc=False):
    pass


class Stored(_Change, frozen=True, gc=False):
    """A new message (also a dead letter that was retried: it gets a new n)."""

    n: int
    queue: str
    message: Message


class Leased(_Change, frozen=True, gc=False):
    """Handed out; deliveries already counts this one."""

    n: int
    token: int
    session: str
    deliveries: int


class Freed(_Change, frozen=True, gc=False):
    """A lease ended and the message goes back to the head (or waits until due_at, or is parked)."""

    n: int
    deliveries: int
    is_suspect: bool
    due_at: float
    history: list[Attempt]
    need: str = ""
    """Parked until somebody offers this; "" is not parked."""


class Cut(_Change, frozen=True, gc=False):
    """Of a leased pack only the calls [first, end) are left to its lease."""

    n: int
    first: int
    end: int


class Removed(_Change, frozen=True, gc=False):
    """Acked, purged, expired or dropped: the message is gone, with what was noted of it."""

    n: int


class Buried(_Change, frozen=True, gc=False):
    """It became a dead letter; the row stays, out of every order."""

    n: int
    died_at: float
    reason: str
    history: list[Attempt]


class Produced(_Change, frozen=True, gc=False):
    """Under the lease of message n, a message with this id was put: a rerun of n that puts it again is recognised."""

    n: int
    put_id: str


class Marked(_Change, frozen=True, gc=False):
    """The watermark of one session's stream, with the refused seqs at or below it."""

    session: str
    stream: str
    seq: int
    holes: tuple[int, ...]


class SessionSeen(_Change, frozen=True, gc=False):
    """A session attached, or ended (ended_at above 0: its watermarks may be dropped watermark_kept_s later)."""

    session: str
    name: str
    ended_at: float


class ResultKept(_Change, frozen=True, gc=False):
    """A result, written in the step that acked its message, or how else a call of a stream ended. First write wins."""

    id: str
    """The message's; of a pack, the pack's."""
    queue: str
    value: bytes | None
    """None: there is none, the code says why. Only a stream keeps that."""
    until: float
    """UTC seconds to keep it to; 0 is until it was received."""
    number: int = 0
    """Above 0 for what a stream awaits and for calls of packs: its key, growing, never used twice in a store."""
    stream: str = ""
    """Who awaits it; "" nobody (any more)."""
    first: int = 0
    n: int = 0
    """Of a pack: how many calls from `first` on it covers; 0 where the message is none."""
    code: str = ""
    text: str = ""


class ResultDropped(_Change, frozen=True, gc=False):
    """Its time is over, or it was received."""

    id: str
    number: int = 0


class Acked(_Change, frozen=True, gc=False):
    """A stream has received everything up to a number: what need not be kept by id goes."""

    stream: str
    number: int


class Remembered(_Change, frozen=True, gc=False):
    """A caller-given id whose message is complete: further puts with it are dropped until then (UTC seconds)."""

    id: str
    until: float


class Forgotten(_Change, frozen=True, gc=False):
    id: str


class QueueSet(_Change, frozen=True, gc=False):
    """A queue exists, with this bound."""

    queue: str
    maxsize: int


class Counted(_Change, frozen=True, gc=False):
    """A queue's running counters after the step (at most one for each queue and step)."""

    queue: str
    unfinished: int
    put_total: int
    done_total: int
    redelivered_total: int
    dead_total: int


Change = (
    Stored
    | Leased
    | Freed
    | Removed
    | Buried
    | Produced
    | Marked
    | SessionSeen
    | ResultKept
    | ResultDropped
    | Acked
    | Cut
    | Remembered
    | Forgotten
    | QueueSet
    | Counted
)


# What a durable engine hands back to a new core: everything that the changes above left behind.


class StoredMessage(msgspec.Struct, frozen=True):
    """One stored message as it stood at the last commit."""

    n: int
    queue: str
    message: Message
    deliveries: int = 0
    is_suspect: bool = False
    due_at: float = 0.0
    token: int = 0
    """Above 0: leased to session when the store was last open."""
    session: str = ""
    produced: tuple[str, ...] = ()
    history: list[Attempt] = []
    died_at: float = 0.0
    """Above 0: a dead letter."""
    reason: str = ""
    need: str = ""
    """Parked until somebody offers this."""
    first: int = 0
    end: int = 0
    """Above 0: of a leased pack, the calls [first, end) that are left to its lease."""


class Snapshot(msgspec.Struct):
    """A whole store, read at opening. Messages in order of n."""

    queues: list[QueueSet]
    counters: list[Counted]
    messages: list[StoredMessage]
    watermarks: list[Marked]
    sessions: list[SessionSeen]
    results: list[ResultKept]
    remembered: list[Remembered]
    next_n: int
