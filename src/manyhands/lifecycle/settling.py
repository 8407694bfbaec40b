"""Ending deliveries, and the count of what is unfinished."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.events import Count, Done, Join, Settle, Settled, TaskDone
from manyhands.lifecycle import packs
from manyhands.lifecycle.finishing import finish, less_unfinished
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.placing import check_settlement
from manyhands.lifecycle.placing import settle as settle_alone
from manyhands.lifecycle.queue import GONE, LEASED, Entry, Queue, is_pack
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.lifecycle.waiting import WaitingJoin
from manyhands.model import SettleKind, Settlement


def settle(state: State, session: Session, request: Settle, now: Now) -> None:
    """End deliveries; name those that this session does not hold (any more)."""
    seq = request.seq
    if seq > 0:
        mark = session.marks.get("") or Mark()
        if not mark.is_new(seq, request.floor):
            if request.rid:
                state.reply(session, Settled(request.rid))
            return
    settlements = request.settlements
    limit = state.limits.max_body_bytes
    for settlement in settlements:
        result = settlement.result
        if settlement.kind or (result is not None and (settlement.calls or len(result) > limit)):
            try:
                check_settlement(state, settlement)
                is_for_packs = settlement.calls or settlement.kind == SettleKind.MOVED
                if is_for_packs and (held := session.leases.get(settlement.token)) is not None:
                    packs.check(held, settlement)
            except Refused:
                state.mark(session, "", seq, request.floor, is_applied=False)
                raise
    lost = []
    leases = session.leases
    queue: Queue | None = None
    for settlement in settlements:
        entry = leases.pop(settlement.token, None)
        if entry is None:
            entry = _planted_bug(state, settlement.token) if state.is_unfenced else None
            if entry is None:
                lost.append(settlement.token)
                continue
        if queue is None or queue.name != entry.queue:
            queue = state.queues[entry.queue]
        queue.leased -= 1
        if not entry.is_begun:
            entry.is_begun = True
            queue.hold_unbegun(session.id, -1)
            state.wake(queue)
        if settlement.kind:
            _give_up(state, session, queue, entry, settlement, now)
            continue
        message = entry.message
        if state.changes is None and not message.kind and message.options is None and settlement.result is None:
            entry.place = GONE
            queue.done_total += 1
        elif queue.has_packs and is_pack(message):
            _give_up(state, session, queue, entry, settlement, now)
            continue
        else:
            finish(state, queue, entry, settlement.result, now)
        if settlement.is_task_done:
            less_unfinished(state, queue, 1)
    if seq > 0:
        # One that changed nothing is judged anew when it is sent again: its sender must not take the answer for a success.
        is_applied = not lost or len(lost) < len(settlements)
        state.mark(session, "", seq, request.floor, is_applied=is_applied)
    if request.rid:
        state.effects.append((session.id, Settled(request.rid, lost) if lost else Settled(request.rid)))


def _give_up(state: State, session: Session, queue: Queue, entry: Entry, settlement: Settlement, now: Now) -> None:
    """Any end but the plain ack of a message that is no pack."""
    if is_pack(entry.message):
        packs.settle(state, session, queue, entry, settlement, now)
    else:
        settle_alone(state, session, queue, entry, settlement, now)


def _planted_bug(state: State, token: int) -> Entry | None:
    """no_fencing: what a Settle of an expired lease would do if nobody compared tokens."""
    entry = state.expired.get(token)
    if entry is None or entry.place != LEASED:
        return None
    for session in state.sessions.values():
        for held, other in session.leases.items():
            if other is entry:
                del session.leases[held]
                return entry
    return None


def task_done(state: State, session: Session, request: TaskDone, now: Now) -> None:
    """Count entries as finished without ending a lease."""
    if request.seq > 0 and not (session.marks.get("") or Mark()).is_new(request.seq, request.floor):
        if request.rid:
            state.reply(session, Done(request.rid))
        return
    try:
        queue = state.queue(request.queue)
        if request.n < 1:
            raise Refused("usage", f"task_done counts at least one, not {request.n}")
        if request.n > queue.unfinished:
            raise Refused("too_many_task_done", "task_done() called too many times")
    except Refused:
        state.mark(session, "", request.seq, request.floor, is_applied=False)
        raise
    less_unfinished(state, queue, request.n)
    state.mark(session, "", request.seq, request.floor, is_applied=True)
    if request.rid:
        state.reply(session, Done(request.rid))


def join(state: State, session: Session, request: Join, now: Now) -> None:
    """Wait until a queue has nothing unfinished."""
    queue = state.queue(request.queue)
    if not queue.unfinished or request.wait_s == 0:
        state.reply(session, Count(request.rid, queue.unfinished))
        return
    check_wait(request.wait_s)
    waiting = WaitingJoin(session, request.rid, queue)
    state.park(waiting)
    queue.joining[waiting] = None
    if request.wait_s > 0:
        waiting.has_timer = True
        state.timers.at_mono(now.mono + request.wait_s, lambda over, at: answer_join(state, over), waiting)


def answer_join(state: State, waiting: WaitingJoin) -> None:
    """End the wait of a join."""
    withdraw_join(state, waiting)
    state.reply(waiting.session, Count(waiting.rid, waiting.queue.unfinished))


def withdraw_join(state: State, waiting: WaitingJoin) -> None:
    """Nobody is there to hear it."""
    state.unpark(waiting)
    del waiting.queue.joining[waiting]
