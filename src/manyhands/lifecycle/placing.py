"""Where a message goes: into its lane, among the delayed, back to the head, or to the dead letters."""

from __future__ import annotations

import math

from manyhands._text import REASON_CHARS, readable
from manyhands.clock import Now
from manyhands.lifecycle.changes import Freed
from manyhands.lifecycle.finishing import bury, drop, expire, finish, leave, less_unfinished
from manyhands.lifecycle.parking import check_need, park
from manyhands.lifecycle.queue import Entry, Queue
from manyhands.lifecycle.refusal import Refused, check_size
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.streams import know
from manyhands.model import Attempt, SettleKind, Settlement

_ACK, _NACK, _REJECT, _RELEASE, _PARK, _MOVED = (int(kind) for kind in SettleKind)


def enqueue(state: State, queue: Queue, entry: Entry, now: Now, due_at: float) -> None:
    """Give a new entry its place in the order, and its timers."""
    message = entry.message
    if due_at > now.wall:
        hold_until_due(state, queue, entry, due_at)
    elif entry.deliveries or entry.is_suspect:
        queue.push_head(entry)
    else:
        queue.lane(message.priority).append(entry)
    if message.options is not None and message.options.expires_at:
        watch_expiry(state, entry, message.options.expires_at)


def watch_expiry(state: State, entry: Entry, expires_at: float) -> None:
    """Drop an entry when its time is over."""
    state.timers.at_wall(expires_at, lambda late, at: expire(state, late, at), entry)


def hold_until_due(state: State, queue: Queue, entry: Entry, due_at: float) -> None:
    """Keep an entry out of the order until due_at (UTC seconds)."""
    queue.push_delayed(entry, due_at)
    _arm(state, queue)


def promote(state: State, queue: Queue, now: Now) -> None:
    """Make ready what is due."""
    if now.wall < queue.armed_due:
        return  # a timer of one that was due earlier and is gone
    queue.armed_due = math.inf
    if queue.promote(now.wall):
        state.wake(queue)
    _arm(state, queue)


def _arm(state: State, queue: Queue) -> None:
    if queue.delayed and queue.delayed[0][0] < queue.armed_due:
        queue.armed_due = queue.delayed[0][0]
        state.timers.at_wall(queue.armed_due, lambda over, at: promote(state, over, at), queue)


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
    """Return an entry whose lease ended without an ack. The caller has taken it out of its lease.

    Not for begun packs, see packs.py.

    Args:
        outcome: how the delivery ended, for the history: it is charged. Empty: charged nothing.
        is_suspect: it was with a consumer that was lost, and travels alone from now.
        delay_s: how long to keep it from the next consumer.
        result: the error of the attempt, for those who wait, in case that it was the last one.
    """
    message = entry.message
    if outcome:
        history = entry.the_past().history
        history.append(Attempt(entry.deliveries, consumer, entry.leased_at, now.wall, outcome, reason))
        queue.redelivered_total += 1
        state.count(queue)
        if entry.deliveries >= message.max_deliveries:
            why = f"{entry.deliveries} of {message.max_deliveries} deliveries used up; the last one: {outcome}"
            bury(state, queue, entry, f"{why} ({reason})" if reason else why, now, result)
            return
    else:
        entry.deliveries -= 1
    if state.stopping and message.id in state.stopping:
        drop(state, queue, [entry], "cancelled", now, "task_cancelled")
        return
    if message.kind and state.changes is None:
        know(state, queue, message, entry)  # until now it was listed as the bare record that it was
    entry.is_suspect = is_suspect
    expires_at = message.options.expires_at if message.options is not None else 0.0
    if expires_at and expires_at <= now.wall:
        drop(state, queue, [entry], "dropped: it expired while it was with a consumer that did not finish it", now)
        return
    due_at = now.wall + delay_s if delay_s > 0 else 0.0
    if entry.past is not None and entry.past.due_at:  # it was leased before its time, to be moved
        if entry.past.due_at > now.wall:
            due_at = max(due_at, entry.past.due_at)
        entry.past.due_at = 0.0
    if due_at:
        hold_until_due(state, queue, entry, due_at)
    else:
        queue.push_head(entry)
    if state.changes is not None:
        history = entry.past.history if entry.past is not None else []
        state.note(Freed(entry.n, entry.deliveries, is_suspect, due_at, list(history)))
    state.wake(queue)


def check_settlement(state: State, settlement: Settlement) -> None:
    """Refuse what cannot be done to any delivery.

    Raises:
        Refused: "usage", "payload_too_large".
    """
    if settlement.kind not in (_ACK, _NACK, _REJECT, _RELEASE, _PARK, _MOVED):
        raise Refused("usage", f"settlement kind {settlement.kind!r:.40} is unknown to this engine")
    if not math.isfinite(settlement.delay_s):
        raise Refused("usage", f"delay_s {settlement.delay_s!r} is not a time")
    if settlement.kind == _PARK:
        check_need(settlement.reason)
    check_size(settlement.result, state.limits)


def settle(state: State, session: Session, queue: Queue, entry: Entry, settlement: Settlement, now: Now) -> None:
    """End a delivery of a message that is no pack, in any of the ways. The caller has taken it out of its lease."""
    kind = settlement.kind
    if kind == _ACK:
        finish(state, queue, entry, settlement.result, now)
        if settlement.is_task_done:
            less_unfinished(state, queue, 1)
        return
    if kind == _RELEASE:
        give_back(state, queue, entry, now, is_suspect=entry.is_suspect)
        return
    reason = readable(settlement.reason, REASON_CHARS)
    if kind == _MOVED:
        leave(state, queue, entry, reason)
    elif kind == _NACK:
        give_back(
            state,
            queue,
            entry,
            now,
            consumer=session.name,
            outcome="nack",
            reason=reason,
            delay_s=settlement.delay_s,
            result=settlement.result,
        )
    elif kind == _PARK:
        # Who parks what it offered to run has shown that it cannot: it must not be handed the same again and again.
        session.offers -= {settlement.reason}
        park(state, queue, entry, settlement.reason, now)
    else:
        entry.the_past().history.append(Attempt(entry.deliveries, session.name, entry.leased_at, now.wall, "reject", reason))
        bury(state, queue, entry, reason or "rejected", now, settlement.result)
