"""Handing out, and what a holder says of what it holds."""

from __future__ import annotations

from manyhands.clock import Now
from manyhands.events import FOREVER, Begin, Extend, Failed, Granted, Lease, Recalled, Settled
from manyhands.lifecycle import parking, recalls
from manyhands.lifecycle.changes import Leased
from manyhands.lifecycle.packs import give_back
from manyhands.lifecycle.placing import promote
from manyhands.lifecycle.queue import LEASED, Queue
from manyhands.lifecycle.refusal import Refused, check_wait
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.silence import watch
from manyhands.lifecycle.state import State
from manyhands.lifecycle.waiting import WaitingLease
from manyhands.model import Delivery

MAX_ALSO = 64


def lease(state: State, session: Session, request: Lease, now: Now) -> None:
    """Hand out what there is, or wait for it."""
    rid, max_n = request.rid, request.max_n
    queue = state.queues.get(request.queue) or state.queue(request.queue)
    if type(max_n) is not int or max_n < 1 or request.begin_n < 0 or rid < 1:
        raise Refused(
            "usage",
            f"a lease asks for at least one message and needs a rid, not max_n={max_n!r:.40}, "
            f"begin_n={request.begin_n!r:.40}, rid={rid}",
        )
    others: tuple[Queue, ...] = ()
    deliveries = _at_once(state, session, queue, request, now)
    if deliveries:
        state.effects.append((session.id, Granted(rid, deliveries, queue.name if request.also else "")))
        return
    if request.also:
        others = _others(state, request)
        for one in others:
            deliveries = _at_once(state, session, one, request, now)
            if deliveries:
                state.effects.append((session.id, Granted(rid, deliveries, one.name)))
                return
    if queue.is_shut_down and _is_over(queue) and all(map(_is_over, others)):
        raise Refused("shut_down", f"queue {queue.name!r} was shut down and has nothing more")
    wait_s = request.wait_s
    if wait_s != FOREVER:
        check_wait(wait_s)
    waiting = WaitingLease(session, rid, queue, max_n, request.begin_n, others, request.is_move)
    state.park(waiting)
    queue.waiting[waiting] = None
    for one in others:
        one.waiting[waiting] = None
    if wait_s == 0:
        _end_wait(state, waiting, now)
        return
    if wait_s > 0:
        waiting.has_timer = True
        state.timers.at_mono(now.mono + wait_s, lambda over, at: _end_wait(state, over, at), waiting)
    if request.begin_n:
        if (queue.unbegun or queue.children) and not queue.is_recall_armed:
            recalls.arm(state, queue, now)
        for one in others:
            recalls.arm(state, one, now)


def _at_once(state: State, session: Session, queue: Queue, request: Lease, now: Now) -> list[Delivery]:
    """What lies ready for this request, behind those who waited before it."""
    if queue.delayed and queue.delayed[0][0] <= now.wall:
        promote(state, queue, now)
    if queue.waiting:
        serve(state, queue, now)
        if queue.waiting and not (queue.parked and parking.is_for(queue, session)):
            return []
    return grant(state, session, queue, request.max_n, request.begin_n, now, is_move=request.is_move)


def _others(state: State, request: Lease) -> tuple[Queue, ...]:
    """The other queues that will do, each once."""
    if len(request.also) > MAX_ALSO:
        raise Refused("usage", f"a lease names at most {MAX_ALSO} more queues, not {len(request.also)}")
    names = dict.fromkeys(request.also)
    names.pop(request.queue, None)
    return tuple([state.queue(name) for name in names])


def _is_over(queue: Queue) -> bool:
    return queue.is_shut_down and not queue.size()


def grant(
    state: State, session: Session, queue: Queue, max_n: int, begin_n: int, now: Now, *, is_move: bool = False
) -> list[Delivery]:
    """Lease up to max_n messages to a session; the first begin_n count as begun."""
    entries = parking.take(queue, session, max_n) if queue.parked and session.offers else []
    entries = entries or queue.take(max_n, state.numbers, is_move=is_move)
    if is_move and not entries and queue.delayed:
        entries = queue.take_early(max_n)
    if not entries:
        return []
    deliveries = []
    leases, token, wall, changes = session.leases, state.token, now.wall, state.changes
    session_id = session.id
    for entry in entries:
        token += 1
        entry.place = LEASED
        entry.leased_at = wall
        entry.deliveries += 1
        leases[token] = entry
        deliveries.append(Delivery(token, entry.deliveries, entry.message))
        if changes is not None:
            changes.append(Leased(entry.n, token, session_id, entry.deliveries))
    state.token = token
    n = len(entries)
    queue.leased += n
    if n > begin_n and (is_move or not entries[0].is_suspect):
        for entry in entries[begin_n:]:
            entry.is_begun = False
        queue.hold_unbegun(session_id, n - begin_n)
        if queue.waiting:
            recalls.arm(state, queue, now)
    if session.parent:
        queue.children[session_id] = None
        if queue.waiting and not queue.is_recall_armed:
            recalls.arm(state, queue, now)
    if not session.is_watched:
        watch(state, session, now)
    if queue.putting:
        state.dirty[queue] = None
    return deliveries


def serve(state: State, queue: Queue, now: Now) -> None:
    """Share what is ready among those who wait, first come first served, and end the waits that are in vain."""
    waiting_n = len(queue.waiting)
    if not waiting_n:
        return
    if queue.parked and queue.has_news:
        waiting_n -= _serve_parked(state, queue, now)
    ready = queue.ready_n()
    while ready and (waiting := queue.waiting.first()) is not None:
        share = min(waiting.max_n, -(-ready // waiting_n))
        deliveries = grant(state, waiting.session, queue, share, waiting.begin_n, now, is_move=waiting.is_move)
        if not deliveries:
            break
        leave(state, waiting)
        # What was given while it waited is heard of only now: its silence counts from here.
        waiting.session.last_heard = now.mono
        granted = Granted(waiting.rid, deliveries, queue.name) if waiting.others else Granted(waiting.rid, deliveries)
        state.effects.append((waiting.session.id, granted))
        ready -= len(deliveries)
        waiting_n -= 1
    if queue.is_shut_down and not queue.size():
        for waiting in list(queue.waiting):
            if waiting.others and not (_is_over(waiting.queue) and all(map(_is_over, waiting.others))):
                continue
            leave(state, waiting)
            text = f"queue {waiting.queue.name!r} was shut down and has nothing more"
            state.effects.append((waiting.session.id, Failed(waiting.rid, "shut_down", text)))
    if queue.last_calls:
        for waiting in list(queue.waiting):
            if waiting.is_last_call and not _is_pending(waiting, now):
                answer_empty(state, waiting)


def _serve_parked(state: State, queue: Queue, now: Now) -> int:
    """What is parked goes to those in line who can run it; how many were served."""
    n = 0
    queue.has_news = False
    for waiting in list(queue.waiting):
        if parking.is_for(queue, waiting.session):
            deliveries = grant(state, waiting.session, queue, waiting.max_n, waiting.begin_n, now)
            leave(state, waiting)
            waiting.session.last_heard = now.mono
            granted = Granted(waiting.rid, deliveries, queue.name if waiting.others else "")
            state.effects.append((waiting.session.id, granted))
            n += 1
    return n


def _is_pending(waiting: WaitingLease, now: Now) -> bool:
    return recalls.is_pending(waiting.queue, waiting.session, now) or any(
        recalls.is_pending(one, waiting.session, now) for one in waiting.others
    )


def leave(state: State, waiting: WaitingLease) -> None:
    """Take a waiting lease out of its lines."""
    state.unpark(waiting)
    del waiting.queue.waiting[waiting]
    if waiting.is_last_call:
        waiting.queue.last_calls -= 1
    if waiting.others:
        for one in waiting.others:
            del one.waiting[waiting]
            if waiting.is_last_call:
                one.last_calls -= 1


def answer_empty(state: State, waiting: WaitingLease) -> None:
    """Tell a consumer that there is nothing."""
    leave(state, waiting)
    state.effects.append((waiting.session.id, Granted(waiting.rid, [])))


def _end_wait(state: State, waiting: WaitingLease, now: Now) -> None:
    """Its time is over: ask for what others have not begun, and wait for their answers only."""
    queue = waiting.queue
    if waiting.begin_n:
        for one in (queue, *waiting.others):
            recalls.ask(state, one, now)
    if not waiting.begin_n or not _is_pending(waiting, now):
        answer_empty(state, waiting)
        return
    waiting.is_last_call = True
    for one in (queue, *waiting.others):
        one.last_calls += 1
    waiting.has_timer = True
    until = now.mono + state.limits.recall_answer_s
    state.timers.at_mono(until, lambda over, at: answer_empty(state, over), waiting)


def begin(state: State, session: Session, request: Begin, now: Now) -> None:
    """A get has returned these: they are charged if their holder dies, and count no longer for the bound."""
    queue = state.queues.get(request.queue)
    if queue is None:
        return
    n = 0
    for token in request.tokens:
        entry = session.leases.get(token)
        if entry is not None and not entry.is_begun and entry.queue == queue.name:
            entry.is_begun = True
            n += 1
    if n:
        queue.hold_unbegun(session.id, -n)
        state.wake(queue)


def recalled(state: State, session: Session, request: Recalled, now: Now) -> None:
    """A holder answers a recall: what it names goes back to the head, charged nothing."""
    queue = state.queues.get(request.queue)
    if queue is None:
        return
    queue.recalls.pop(session.id, None)
    session.recalled.discard(queue.name)
    n = 0
    for token in request.tokens:
        entry = session.leases.get(token)
        if entry is None or entry.is_begun or entry.queue != queue.name:
            continue
        del session.leases[token]
        entry.is_begun = True
        n += 1
        queue.leased -= 1
        give_back(state, queue, entry, now, is_suspect=entry.is_suspect)
    if n:
        queue.hold_unbegun(session.id, -n)
        recalls.arm(state, queue, now)
    if queue.waiting:
        state.dirty[queue] = None


def extend(state: State, session: Session, request: Extend, now: Now) -> None:
    """Say which of these leases still stand; having been heard is all that it takes to extend them."""
    if request.rid:
        state.reply(session, Settled(request.rid, [token for token in request.tokens if token not in session.leases]))
