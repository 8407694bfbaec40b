"""One queue's order and counts.

```
 put ──> lane of its priority ──┐
     └─> delayed (a heap) ──────┤        (due)
                                ├──> take ──> leased ──> gone, or dead
 head (a heap, oldest first) ───┘                │
     ^───────────────────────────────────────────┘  given back
```

A message waits in its lane as the bare record that arrived, and becomes an `Entry` when it is first handed out (at once
when a store keeps numbers for it, or when it is delayed or can expire). That halves the memory of a long backlog and
makes a put one `deque.extend`.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict, deque
from collections.abc import Iterator
from enum import IntEnum

import msgspec

from manyhands.lifecycle.waiting import Line, WaitingJoin, WaitingLease, WaitingPut
from manyhands.model import Attempt, Message, QueueStats


class Place(IntEnum):
    """Where an entry is."""

    READY = 0
    DELAYED = 1
    LEASED = 2
    DEAD = 3
    GONE = 4
    PARKED = 5


# Bare ints: reading an enum's member costs more than the rest of a hand-out's bookkeeping.
READY, DELAYED, LEASED, DEAD, GONE, PARKED = (int(place) for place in Place)


class Past(msgspec.Struct):
    """What happened to an entry, for the few to which something did."""

    history: list[Attempt] = msgspec.field(default_factory=list)
    produced: set[str] = msgspec.field(default_factory=set)
    """Ids of the messages put under its leases, but for the first."""
    died_at: float = 0.0
    reason: str = ""
    need: str = ""
    """Of a parked one: what it waits for."""
    due_at: float = 0.0
    """Above 0: it was leased before this time (UTC seconds), to be moved, and waits for it again when it comes back."""
    first: int = 0
    end: int = 0
    """Above 0: of a leased pack, the calls [first, end) that are left to its lease (packs.py)."""


# gc=False: an entry names its queue and holds no session, so nothing it refers to refers back to it.
class Entry(msgspec.Struct, gc=False):
    """A message with what the core knows of it."""

    n: int
    queue: str
    message: Message
    deliveries: int = 0
    place: int = READY
    leased_at: float = 0.0
    is_begun: bool = True
    is_suspect: bool = False
    past: Past | None = None
    put_id: str = ""
    """Id of the first message put under its leases; most have but one, and need no `past` for it."""

    def note_put(self, message_id: str) -> bool:
        """A message with this id is put under a lease of this one; false: the same was put before."""
        if message_id == self.put_id:
            return False
        if self.past is None:
            if not self.put_id:
                self.put_id = message_id
                return True
        elif message_id in self.past.produced:
            return False
        self.the_past().produced.add(message_id)
        return True

    def the_past(self) -> Past:
        """Its past, begun now if there was none."""
        if self.past is None:
            self.past = Past()
        return self.past


def is_pack(message: Message) -> bool:
    """Whether several calls share this message."""
    return message.options is not None and message.options.calls > 1


def calls_in(message: Message) -> int:
    """How many calls this message is; a queue's counters count calls, so that splitting a pack changes none."""
    return message.options.calls if message.options is not None and message.options.calls > 1 else 1


def is_divisible(entry: Entry) -> bool:
    """Whether this leased entry is a pack of which a part may still be given back."""
    options, past = entry.message.options, entry.past
    return options is not None and options.calls > 1 and (past is None or past.end in (0, options.calls))


class Numbers:
    """The numbers of stored messages: growing, never used twice."""

    __slots__ = ("next",)

    def __init__(self, first: int) -> None:
        self.next = first

    def take(self) -> int:
        n = self.next
        self.next = n + 1
        return n


class Queue:
    """A named, ordered set of messages, and those who wait for it."""

    __slots__ = (
        "armed_due",
        "cancelled",
        "children",
        "dead",
        "dead_total",
        "delayed",
        "done_total",
        "gone_delayed",
        "gone_ready",
        "has_news",
        "has_packs",
        "head",
        "is_recall_armed",
        "is_shut_down",
        "joining",
        "lanes",
        "last_calls",
        "leased",
        "maxsize",
        "name",
        "order",
        "parked",
        "put_total",
        "putting",
        "recalls",
        "redelivered_total",
        "unbegun",
        "unbegun_by",
        "unfinished",
        "waiting",
    )

    def __init__(self, name: str, maxsize: int = 0) -> None:
        self.name = name
        self.maxsize = maxsize
        self.is_shut_down = False
        self.head: list[tuple[int, Entry]] = []
        self.lanes: dict[int, deque[Message | Entry]] = {}
        self.order: list[deque[Message | Entry]] = []
        """The lanes, most urgent first."""
        self.delayed: list[tuple[float, int, Entry]] = []
        self.armed_due = math.inf
        """When the next look at the delayed ones is due (UTC seconds)."""
        self.dead: dict[int, Entry] = {}
        self.gone_ready = 0
        """Entries that were dropped where they stood: still in head or a lane, skipped when they come up."""
        self.gone_delayed = 0
        self.cancelled: set[str] = set()
        """Ids of bare records that were taken out where they stood: still in a lane, skipped when they come up."""
        self.parked: dict[str, OrderedDict[int, Entry]] = {}
        """By the need that they wait for: what no consumer here could run."""
        self.has_news = False
        """Whether one of those in line may now get something that is parked."""
        self.leased = 0
        self.has_packs = False
        """Whether a pack was ever put here."""
        self.children: dict[str, None] = {}
        """Sessions with a parent that were given something here: the parent may give back what they have not begun."""
        self.unbegun = 0
        self.unbegun_by: dict[str, int] = {}
        """Session id to how many deliveries it holds that no get has returned; never 0."""
        self.recalls: dict[str, float] = {}
        """Session id to when its answer to a Recall is overdue (monotonic)."""
        self.is_recall_armed = False
        self.last_calls = 0
        """How many of those waiting only wait for the answers to recalls."""
        self.waiting: Line[WaitingLease] = Line()
        self.putting: Line[WaitingPut] = Line()
        self.joining: Line[WaitingJoin] = Line()
        self.unfinished = 0
        self.put_total = 0
        self.done_total = 0
        self.redelivered_total = 0
        self.dead_total = 0

    def ready_n(self) -> int:
        """How many can be handed out now."""
        n = len(self.head) - self.gone_ready - len(self.cancelled)
        for lane in self.order:
            n += len(lane)
        return n

    def delayed_n(self) -> int:
        return len(self.delayed) - self.gone_delayed

    def size(self) -> int:
        """What no get has returned: qsize, and what the bound counts."""
        return self.ready_n() + self.delayed_n() + self.unbegun

    def lane(self, priority: int) -> deque[Message | Entry]:
        """The lane of a priority, made when it is first used."""
        lane = self.lanes.get(priority)
        if lane is None:
            lane = self.lanes[priority] = deque()
            self.order = [self.lanes[urgency] for urgency in sorted(self.lanes, reverse=True)]
        return lane

    def push_head(self, entry: Entry) -> None:
        """Give back an entry: before every first delivery, among the given back by age."""
        entry.place = READY
        heapq.heappush(self.head, (entry.n, entry))

    def push_delayed(self, entry: Entry, due_at: float) -> bool:
        """Keep an entry until due_at (UTC seconds); whether it is now the first of those."""
        entry.place = DELAYED
        heapq.heappush(self.delayed, (due_at, entry.n, entry))
        return self.delayed[0][2] is entry

    def promote(self, wall: float) -> int:
        """Make ready what is due; how many."""
        delayed, n = self.delayed, 0
        while delayed and (delayed[0][0] <= wall or delayed[0][2].place == GONE):
            entry = heapq.heappop(delayed)[2]
            if entry.place == GONE:
                self.gone_delayed -= 1
                continue
            n += 1
            if entry.deliveries or entry.is_suspect:
                self.push_head(entry)
            else:
                entry.place = READY
                self.lane(entry.message.priority).append(entry)
        return n

    def take_early(self, max_n: int) -> list[Entry]:
        """The next entries that are not due yet, soonest first; not those that wait for another attempt."""
        delayed = self.delayed
        taken: list[Entry] = []
        tried: list[tuple[float, int, Entry]] = []
        while delayed and len(taken) < max_n:
            first = heapq.heappop(delayed)
            entry = first[2]
            if entry.place == GONE:
                self.gone_delayed -= 1
            elif entry.deliveries:
                tried.append(first)
            else:
                entry.the_past().due_at = first[0]
                taken.append(entry)
        for one in tried:
            heapq.heappush(delayed, one)
        return taken

    def drop(self, entry: Entry) -> None:
        """Take out an entry that is ready, delayed or parked, wherever it stands."""
        if entry.place == DELAYED:
            self.gone_delayed += 1
        elif entry.place == PARKED:
            self.unpark(entry)
        else:
            self.gone_ready += 1
        entry.place = GONE

    def park(self, entry: Entry, need: str) -> None:
        """Keep an entry until somebody offers what it needs."""
        entry.place = PARKED
        entry.the_past().need = need
        self.has_news = True
        waiting = self.parked.get(need)
        if waiting is None:
            waiting = self.parked[need] = OrderedDict()  # its first is found at once, however many were taken before
        waiting[entry.n] = entry

    def unpark(self, entry: Entry) -> None:
        """Take out a parked entry; what becomes of it is the caller's."""
        past = entry.the_past()
        waiting = self.parked[past.need]
        del waiting[entry.n]
        if not waiting:
            del self.parked[past.need]
        past.need = ""

    def take(self, max_n: int, numbers: Numbers, *, is_move: bool = False) -> list[Entry]:
        """The next entries to hand out, at most max_n. A suspect comes alone, unless nobody is going to run it."""
        taken: list[Entry] = []
        head = self.head
        while head:
            entry = head[0][1]
            if entry.place == GONE:
                heapq.heappop(head)
                self.gone_ready -= 1
                continue
            is_alone = entry.is_suspect and not is_move
            if is_alone and taken:
                return taken
            heapq.heappop(head)
            taken.append(entry)
            if is_alone or len(taken) == max_n:
                return taken
        name = self.name
        for lane in self.order:
            while lane:
                item = lane.popleft()
                if type(item) is Entry:
                    if item.place == GONE:
                        self.gone_ready -= 1
                        continue
                    entry = item
                else:
                    n = numbers.next
                    numbers.next = n + 1
                    entry = Entry(n, name, item)  # type: ignore[arg-type]
                taken.append(entry)
                if len(taken) == max_n:
                    return taken if not self.cancelled else self._not_cancelled(taken, max_n, numbers)
        return taken if not self.cancelled else self._not_cancelled(taken, max_n, numbers)

    def _not_cancelled(self, taken: list[Entry], max_n: int, numbers: Numbers) -> list[Entry]:
        """What was taken, with others in the place of what was cancelled; apart, so that who never cancels pays nothing."""
        cancelled, kept = self.cancelled, []
        for entry in taken:
            if entry.message.id in cancelled:
                cancelled.remove(entry.message.id)
            else:
                kept.append(entry)
        for lane in self.order:
            while lane and len(kept) < max_n:
                item = lane.popleft()
                if type(item) is Entry:
                    if item.place == GONE:
                        self.gone_ready -= 1
                    else:
                        kept.append(item)
                elif item.id in cancelled:  # type: ignore[union-attr]
                    cancelled.remove(item.id)  # type: ignore[union-attr]
                else:
                    kept.append(Entry(numbers.take(), self.name, item))  # type: ignore[arg-type]
        return kept

    def clear(self) -> list[Message | Entry]:
        """Take out everything that is ready, delayed or parked, in no particular order."""
        dropped: list[Message | Entry] = [entry for _, entry in self.head if entry.place != GONE]
        dropped += [entry for _, _, entry in self.delayed if entry.place != GONE]
        for lane in self.order:
            dropped += [item for item in lane if self._is_there(item)]
            lane.clear()
        dropped += [entry for waiting in self.parked.values() for entry in waiting.values()]
        self.parked.clear()
        self.cancelled.clear()
        self.head.clear()
        self.delayed.clear()
        self.gone_ready = self.gone_delayed = 0
        for item in dropped:
            if type(item) is Entry:
                item.place = GONE
        return dropped

    def _is_there(self, item: Message | Entry) -> bool:
        if type(item) is Entry:
            return item.place != GONE
        return item.id not in self.cancelled  # type: ignore[union-attr]

    def soonest(self, limit: int) -> Iterator[Message]:
        """What `take` would hand out, then what is delayed, then what is parked, without taking it."""
        for _, entry in heapq.nsmallest(limit + self.gone_ready, self.head):
            if entry.place != GONE:
                yield entry.message
        for lane in self.order:
            for item in lane:
                if self._is_there(item):
                    yield item.message if type(item) is Entry else item  # type: ignore[misc]
        for _, _, entry in heapq.nsmallest(limit + self.gone_delayed, self.delayed):
            if entry.place != GONE:
                yield entry.message
        for waiting in self.parked.values():
            for entry in waiting.values():
                yield entry.message

    def hold_unbegun(self, session_id: str, n: int) -> None:
        """Count n deliveries more (or fewer) that this session holds and no get has returned."""
        self.unbegun += n
        held = self.unbegun_by.get(session_id, 0) + n
        if held:
            self.unbegun_by[session_id] = held
        else:
            self.unbegun_by.pop(session_id, None)

    def release(self, entry: Entry, session_id: str) -> None:
        """An entry's lease by this session has ended; what becomes of it is the caller's."""
        self.leased -= 1
        if not entry.is_begun:
            entry.is_begun = True
            self.hold_unbegun(session_id, -1)

    def stats(self) -> QueueStats:
        return QueueStats(
            name=self.name,
            maxsize=self.maxsize,
            ready=self.ready_n(),
            delayed=self.delayed_n(),
            leased=self.leased,
            unbegun=self.unbegun,
            dead=len(self.dead),
            unfinished=self.unfinished,
            waiting=len(self.waiting),
            put_total=self.put_total,
            done_total=self.done_total,
            redelivered_total=self.redelivered_total,
            dead_total=self.dead_total,
            is_shut_down=self.is_shut_down,
            parked={need: len(waiting) for need, waiting in self.parked.items()},
        )
