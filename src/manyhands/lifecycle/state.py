"""What the core knows, and the two things that a handler does besides: emit an effect, note a change."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from manyhands import _faults
from manyhands._text import is_text
from manyhands.clock import Now
from manyhands.events import Failed, Reply
from manyhands.lifecycle.changes import Change, Counted, Marked, QueueSet, ResultKept
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.queue import Entry, Numbers, Queue
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.streams import Stream
from manyhands.lifecycle.timers import Timers
from manyhands.lifecycle.waiting import Waiting, WaitingResult
from manyhands.model import Limits, Options


class Step(NamedTuple):
    """What came of the events since the last step."""

    effects: list[tuple[str, Reply]]
    """(session id, reply) in the order in which they must leave."""
    changes: list[Change]
    """What a durable engine must commit before any effect leaves; empty in a core that is not journaled."""


class State:
    """Everything that the handlers share. Each handler has the form `handler(state, session, request, now)`."""

    def __init__(self, limits: Limits, epoch: int, is_journaled: bool, now: Now) -> None:
        self.limits = limits
        self.token = epoch << 40
        self.numbers = Numbers(1)
        self.opened_mono = now.mono
        self.is_unfenced = _faults.is_planted("no_fencing")
        self.expired: dict[int, Entry] = {}
        """Only with the planted bug: leases that ended, which a Settle may then still use."""

        self.queues: dict[str, Queue] = {}
        self.sessions: dict[str, Session] = {}
        self.timers = Timers()
        self.streams: dict[str, Stream] = {"": Stream("")}
        """By name; they list the calls and tasks that are not finished. "" is for those whose results no stream awaits."""
        self.collected: dict[Stream, None] = {}
        """Streams where something has ended for which somebody waits."""
        self.stopping: set[str] = set()
        """Ids of running calls that were cancelled: when one of them comes back to its queue, it ends there."""
        self.buried: dict[str, tuple[str, str]] = {}
        """Message id to code and reason, of the calls and tasks among the dead letters."""
        self.results: dict[str, ResultKept] = {}
        self.pieces: dict[str, list[ResultKept]] = {}
        """By the pack's id: results of its calls."""
        self.options = Options()
        """Those of the last message that was put with some and was no pack; good, and shared by those that equal them."""
        self.result_waits: dict[str, list[WaitingResult]] = {}
        self.known: dict[str, float] = {}
        """Caller-given ids: 0 while their message is here, else until when (UTC seconds) they are remembered."""
        self.remembered: deque[tuple[float, str]] = deque()

        self.effects: list[tuple[str, Reply]] = []
        self.changes: list[Change] | None = [] if is_journaled else None
        self.dirty: dict[Queue, None] = {}
        """Queues where somebody who waits may be served now."""
        self._counted: dict[Queue, None] = {}
        self._marked: dict[tuple[str, str], Mark] = {}

    def reply(self, session: Session, reply: Reply) -> None:
        """Answer a session."""
        self.effects.append((session.id, reply))

    def fail(self, session: Session, rid: int, code: str, text: str) -> None:
        """Refuse a request that was parked."""
        if rid:
            self.effects.append((session.id, Failed(rid, code, text)))

    def note(self, change: Change) -> None:
        """Add to the change set."""
        if self.changes is not None:
            self.changes.append(change)

    def count(self, queue: Queue) -> None:
        """This queue's counters changed."""
        if self.changes is not None:
            self._counted[queue] = None

    def mark(self, session: Session, stream: str, seq: int, floor: int, *, is_applied: bool) -> None:
        """Remember that a request of this stream was applied, or not; seq 0 and below is not counted."""
        if seq <= 0:
            return
        mark = session.marks.get(stream)
        if mark is None:
            mark = session.marks[stream] = Mark()
        if is_applied and seq == mark.seq + 1 and mark.holes is None:
            mark.seq = seq
        else:
            mark.note(seq, floor, is_applied=is_applied)
        if self.changes is not None:
            self._marked[session.id, stream] = mark

    def queue(self, name: str) -> Queue:
        """The queue of that name, made if it is new.

        Raises:
            Refused: "usage", the name is not a text of 1 to 255 characters.
        """
        queue = self.queues.get(name)
        if queue is None:
            if not isinstance(name, str) or not 0 < len(name) <= 255 or not is_text(name):
                raise Refused("usage", f"a queue's name is a text of 1 to 255 characters, not {name!r:.80}")
            queue = self.queues[name] = Queue(name)
            self.note(QueueSet(name, 0))
        return queue

    def wake(self, queue: Queue) -> None:
        """Somebody may be waiting for what just happened to this queue."""
        if queue.waiting or queue.putting or queue.joining:
            self.dirty[queue] = None

    def park(self, waiting: Waiting) -> None:
        """Keep a request until it can be answered."""
        if waiting.rid in waiting.session.parked:
            raise Refused("usage", f"request {waiting.rid} is still waiting; each request needs a rid of its own")
        waiting.session.parked[waiting.rid or -id(waiting)] = waiting

    def unpark(self, waiting: Waiting) -> None:
        """A parked request is answered or withdrawn; the caller takes it out of its line."""
        waiting.is_over = True
        waiting.session.parked.pop(waiting.rid or -id(waiting), None)
        if waiting.has_timer:
            self.timers.discard()

    def take(self) -> Step:
        """All effects and changes since the last take."""
        effects, self.effects = self.effects, []
        if self.changes is None:
            return Step(effects, [])
        changes, self.changes = self.changes, []
        for q in self._counted:
            changes.append(Counted(q.name, q.unfinished, q.put_total, q.done_total, q.redelivered_total, q.dead_total))
        self._counted.clear()
        for (session_id, stream), mark in self._marked.items():
            changes.append(Marked(session_id, stream, mark.seq, tuple(sorted(mark.holes or ()))))
        self._marked.clear()
        return Step(effects, changes)
