"""Packs: messages that several calls share, and how they part ways.

```
            Report: first moves on          Reclaim: end moves back
                       v                           v
   P  =  [ 0  1  2 | 3  4  5  6  7 | 8  9 ]        [first, end) is left to the lease
           ended     this lease      P.8  P.9      messages of their own, at the head
```

A pack is handed out whole and always from its first call: whatever ends it in the middle (a loss, a refusal, a partial last
settlement) makes a message of each call that has not ended, with the pack's body and seal, which travels on alone.

What is charged: a call whose own running is known to have failed (NACK, ReportDead naming it) counts one delivery, its
neighbours none. When a session is lost and nobody can say which call ran, nothing is charged, because one of many ran: from
then on each travels alone, and the next loss has a name. A call that may run once only (max_deliveries 1) dies of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from manyhands._text import REASON_CHARS, readable
from manyhands.clock import Now
from manyhands.events import Done, Report
from manyhands.lifecycle import placing
from manyhands.lifecycle.changes import Cut, Removed, Stored
from manyhands.lifecycle.finishing import bury, less_unfinished, remember
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.parking import park
from manyhands.lifecycle.queue import GONE, LEASED, Entry, Past, Queue, is_pack
from manyhands.lifecycle.refusal import Refused, check_size
from manyhands.lifecycle.results import end_without, store_result
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import awaiting, know, unknow
from manyhands.model import Attempt, Message, SettleKind, Settlement, part_id


def left(entry: Entry) -> tuple[int, int]:
    """(first, end): the calls of a pack that its lease still has; (0, 1) of a message that is no pack."""
    options, past = entry.message.options, entry.past
    if options is None or options.calls < 2:
        return 0, 1
    if past is None or not past.end:
        return 0, options.calls
    return past.first, past.end


def give_back(
    state: State,
    queue: Queue,
    entry: Entry,
    now: Now,
    *,
    consumer: str = "",
    outcome: str = "",
    reason: str = "",
    is_suspect: bool = False,
    delay_s: float = 0.0,
    result: bytes | None = None,
) -> None:
    """Return an entry whose lease ended without an ack; see `placing.give_back`. A begun pack is taken apart."""
    if not is_pack(entry.message):
        placing.give_back(
            state,
            queue,
            entry,
            now,
            consumer=consumer,
            outcome=outcome,
            reason=reason,
            is_suspect=is_suspect,
            delay_s=delay_s,
            result=result,
        )
        return
    if not outcome and is_whole(state, entry):
        placing.give_back(state, queue, entry, now, is_suspect=is_suspect)
        return
    first, end = left(entry)
    _end(state, queue, entry, now)
    if outcome == "nack":
        _separate(state, queue, entry, range(first, end), now, False, consumer, outcome, reason, delay_s)
    elif outcome and entry.message.max_deliveries == 1:
        _separate(state, queue, entry, range(first, end), now, False, consumer, outcome, reason)
    else:
        _separate(state, queue, entry, range(first, end), now, is_suspect)


def is_whole(state: State, entry: Entry) -> bool:
    """Whether a pack can go back as it came."""
    past = entry.past
    if past is not None and past.end:
        return False
    if not state.stopping:
        return True
    return not any(part_id(entry.message.id, part) in state.stopping for part in range(*left(entry)))


def check(entry: Entry, settlement: Settlement) -> None:
    """Refuse a settlement of more calls than its lease has, and to move a pack.

    Raises:
        Refused: "usage".
    """
    first, end = left(entry)
    if settlement.kind == SettleKind.MOVED and is_pack(entry.message):
        raise Refused("usage", f"message {entry.message.id} has several calls, and only this engine can take them apart")
    if not 0 <= settlement.calls <= end - first:
        raise Refused(
            "usage", f"{settlement.calls} calls of message {entry.message.id} cannot be settled: {end - first} are left"
        )


def settle(state: State, session: Session, queue: Queue, entry: Entry, settlement: Settlement, now: Now) -> None:
    """End a lease on a pack: the first `calls` of what is left end as said, the others go back, charged nothing."""
    first, end = left(entry)
    middle = min(end, first + settlement.calls) if settlement.calls else end
    kind = settlement.kind
    if kind == SettleKind.RELEASE or (kind == SettleKind.PARK and is_whole(state, entry)):
        if kind == SettleKind.PARK:
            park(state, queue, entry, settlement.reason, now)
        else:
            give_back(state, queue, entry, now, is_suspect=entry.is_suspect)
        return
    if kind == SettleKind.REJECT and middle - first == _size(entry):
        _note_reject(session, entry, settlement, now)
        bury(state, queue, entry, _why(settlement), now, settlement.result)
        return
    _end(state, queue, entry, now)
    if kind == SettleKind.ACK:
        _cover(state, queue, entry, first, middle - first, settlement.result, now)
        if settlement.is_task_done:
            less_unfinished(state, queue, middle - first)
    elif kind == SettleKind.NACK:
        reason = readable(settlement.reason, REASON_CHARS)
        _separate(state, queue, entry, range(first, middle), now, False, session.name, "nack", reason, settlement.delay_s)
    elif kind == SettleKind.REJECT:
        is_heard = settlement.result is not None
        if settlement.result is not None and middle > first:
            store_result(
                state,
                queue.name,
                entry.message,
                settlement.result,
                awaiting(state, entry.message),
                now,
                first,
                middle - first,
            )
        for part in range(first, middle):
            alone = _part(state, queue, entry, part)
            _note_reject(session, alone, settlement, now)
            bury(state, queue, alone, _why(settlement), now, is_heard=is_heard)
    else:
        for part in range(first, end):
            park(state, queue, _part(state, queue, entry, part), settlement.reason, now)
        return
    _separate(state, queue, entry, range(middle, end), now, entry.is_suspect)


def _why(settlement: Settlement) -> str:
    return readable(settlement.reason, REASON_CHARS) or "rejected"


def _note_reject(session: Session, entry: Entry, settlement: Settlement, now: Now) -> None:
    reason = readable(settlement.reason, REASON_CHARS)
    attempt = Attempt(entry.deliveries, session.name, entry.leased_at, now.wall, "reject", reason)
    entry.the_past().history.append(attempt)


def end_one(
    state: State,
    session: Session,
    queue: Queue,
    entry: Entry,
    part: int,
    settlement: Settlement | None,
    reason: str,
    now: Now,
) -> None:
    """A lease ended while one known call of it ran: that call ends as said or is charged, its neighbours go back.

    Args:
        part: which call; of a message that is no pack it does not matter.
        settlement: None is a loss.
    """
    if not is_pack(entry.message):
        _end_alone(state, session, queue, entry, settlement, reason, now)
        return
    first, end = left(entry)
    if not first <= part < end:  # not known, or ended before
        outcome = "lost" if part < 0 else ""
        give_back(state, queue, entry, now, consumer=session.name, outcome=outcome, reason=reason, is_suspect=part < 0)
        return
    _end(state, queue, entry, now)
    if settlement is not None and settlement.kind == SettleKind.ACK:
        _cover(state, queue, entry, part, 1, settlement.result, now)
        if settlement.is_task_done:
            less_unfinished(state, queue, 1)
    elif settlement is not None and settlement.kind == SettleKind.REJECT and settlement.result is not None:
        store_result(state, queue.name, entry.message, settlement.result, awaiting(state, entry.message), now, part, 1)
        alone = _part(state, queue, entry, part)
        _note_reject(session, alone, settlement, now)
        bury(state, queue, alone, _why(settlement), now, is_heard=True)
    else:
        _end_alone(state, session, queue, _part(state, queue, entry, part), settlement, reason, now)
    others = [other for other in range(first, end) if other != part]
    _separate(state, queue, entry, others, now, entry.is_suspect)


def _end_alone(
    state: State, session: Session, queue: Queue, entry: Entry, settlement: Settlement | None, reason: str, now: Now
) -> None:
    if settlement is None:
        placing.give_back(state, queue, entry, now, consumer=session.name, outcome="lost", reason=reason, is_suspect=True)
    else:
        placing.settle(state, session, queue, entry, settlement, now)


def keep_first(state: State, queue: Queue, entry: Entry, n: int, now: Now) -> bool:
    """Leave the first n calls of a leased pack to its lease and give the others back; whether there were any."""
    first, end = left(entry)
    n = max(n, first)
    if n >= end:
        return False
    past = entry.the_past()
    past.first, past.end = first, n
    state.note(Cut(entry.n, first, n))
    _separate(state, queue, entry, range(n, end), now, entry.is_suspect)
    return True


def report(state: State, session: Session, request: Report, now: Now) -> None:
    """The next calls of a leased pack have ended; the lease goes on."""
    if request.seq > 0 and not (session.marks.get("") or Mark()).is_new(request.seq, request.floor):
        if request.rid:
            state.reply(session, Done(request.rid))
        return
    try:
        entry = session.leases.get(request.token)
        if entry is None:
            raise Refused(
                "lease_lost", "the calls reported on belong to another consumer now; their results were not stored"
            )
        first, end = left(entry)
        if not is_pack(entry.message) or not 0 < request.calls <= end - first:
            raise Refused(
                "usage", f"{request.calls} calls of message {entry.message.id} cannot be reported: {end - first} are left"
            )
        check_size(request.result, state.limits)
    except Refused:
        state.mark(session, "", request.seq, request.floor, is_applied=False)
        raise
    queue = state.queues[entry.queue]
    past = entry.the_past()
    past.first, past.end = first + request.calls, end
    state.note(Cut(entry.n, past.first, end))
    _cover(state, queue, entry, first, request.calls, request.result, now)
    less_unfinished(state, queue, request.calls)
    state.mark(session, "", request.seq, request.floor, is_applied=True)
    if request.rid:
        state.reply(session, Done(request.rid))


def cut_out(state: State, queue: Queue, message: Message, entry: Entry | None, gone: set[int], now: Now) -> None:
    """Take apart a pack that waits, leaving some of its calls out. The caller has taken it out of the order."""
    delay_s = max(0.0, message.due_at - now.wall)
    entry = entry or Entry(state.numbers.take(), queue.name, message)
    entry.deliveries += 1  # as if it had been leased: giving its calls back takes one off
    _end(state, queue, entry, now)
    others = [part for part in range(_size(entry)) if part not in gone]
    _separate(state, queue, entry, others, now, entry.is_suspect, delay_s=delay_s)


def _size(entry: Entry) -> int:
    return entry.message.options.calls if entry.message.options is not None else 1


def _cover(state: State, queue: Queue, entry: Entry, first: int, n: int, result: bytes | None, now: Now) -> None:
    if not n:
        return
    queue.done_total += n
    state.count(queue)
    if state.stopping:
        state.stopping.difference_update(part_id(entry.message.id, part) for part in range(first, first + n))
    stream = awaiting(state, entry.message)
    if result is not None:
        store_result(state, queue.name, entry.message, result, stream, now, first, n)
    else:
        text = f"calls {first} to {first + n - 1} of message {entry.message.id} were finished without a result"
        end_without(state, queue.name, entry.message, "unknown_id", text, stream, first, n)


def _end(state: State, queue: Queue, entry: Entry, now: Now) -> None:
    """The pack itself is over; its calls are the caller's."""
    entry.place = GONE
    state.note(Removed(entry.n))
    unknow(state, queue.name, entry.message)
    if entry.message.options is not None and entry.message.options.dedupe:
        remember(state, entry.message, now)


def _separate(
    state: State,
    queue: Queue,
    entry: Entry,
    parts: Iterable[int],
    now: Now,
    is_suspect: bool = False,
    consumer: str = "",
    outcome: str = "",
    reason: str = "",
    delay_s: float = 0.0,
) -> None:
    """Give calls back, each as a message of its own, as `placing.give_back` does."""
    for part in parts:
        placing.give_back(
            state,
            queue,
            _part(state, queue, entry, part),
            now,
            consumer=consumer,
            outcome=outcome,
            reason=reason,
            is_suspect=is_suspect,
            delay_s=delay_s,
        )


def _part(state: State, queue: Queue, entry: Entry, part: int) -> Entry:
    """One call of a pack as an entry that was just leased."""
    pack = entry.message
    assert pack.options is not None
    options = msgspec.structs.replace(pack.options, dedupe=False, calls=0, part=part)
    # The body is the pack's own object: many calls, one piece of memory.
    message = Message(
        part_id(pack.id, part), pack.body, pack.seal, pack.kind, pack.priority, 0.0, pack.max_deliveries, options
    )
    alone = Entry(state.numbers.take(), queue.name, message, entry.deliveries, LEASED, entry.leased_at)
    if entry.past is not None and entry.past.history:
        alone.past = Past(list(entry.past.history))
    state.note(Stored(alone.n, queue.name, message))
    know(state, queue, message, alone)
    if options.expires_at:
        placing.watch_expiry(state, alone, options.expires_at)
    return alone
