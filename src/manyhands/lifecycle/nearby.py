"""The short ways for a program in the engine's own process: one plain put, one get, without requests and replies.

They do what `Put` and `Settle` + `Lease` do, for the case in which nothing needs deciding: an unbounded queue that is open,
messages without headers, and something ready. In every other case they change nothing and say so, and the caller asks in
the ordinary way. A journaled core never takes them: its effects wait for a commit.
"""

from __future__ import annotations

from manyhands.lifecycle.finishing import less_unfinished
from manyhands.lifecycle.queue import GONE, LEASED
from manyhands.lifecycle.sessions import Session
from manyhands.lifecycle.state import State
from manyhands.model import Delivery, Message


def put_nearby(state: State, session: Session, name: str, message: Message, cause: int) -> bool:
    """Add one message without headers; whether that was possible.

    Args:
        message: no larger than the engine's limit.
        cause: as one of `Put.causes`; 0 is none.
    """
    queue = state.queues.get(name)
    if queue is None or queue.maxsize or queue.is_shut_down or state.changes is not None:
        return False
    if cause:
        entry = session.leases.get(cause)
        if entry is None:
            return False
        if not entry.note_put(message.id):
            return True
    queue.lane(0).append(message)
    queue.put_total += 1
    queue.unfinished += 1
    if queue.waiting:
        state.dirty[queue] = None
    return True


def get_nearby(state: State, session: Session, name: str, done: int, is_task_done: bool, wall: float) -> Delivery | None:
    """Ack one lease and take the next message, as one step; None when that was not possible and nothing was changed.

    Args:
        done: the token of a lease on the same queue; 0 is none.
        is_task_done: as `Settlement.is_task_done`.
        wall: UTC seconds.
    """
    queue = state.queues.get(name)
    if queue is None or queue.waiting or queue.putting or queue.parked or state.changes is not None or not session.is_here:
        return None
    if queue.delayed and queue.delayed[0][0] <= wall:
        return None
    leases = session.leases
    ended = None
    if done:
        ended = leases.get(done)
        if ended is None or ended.queue != name or not ended.is_begun:
            return None
        if ended.message.kind or ended.message.options is not None:
            return None
    entries = queue.take(1, state.numbers)
    if not entries:
        return None
    entry = entries[0]
    state.token = token = state.token + 1
    entry.place = LEASED
    entry.leased_at = wall
    entry.deliveries += 1
    leases[token] = entry
    if ended is None:
        queue.leased += 1
    else:
        del leases[done]
        ended.place = GONE
        queue.done_total += 1
        if is_task_done:
            less_unfinished(state, queue, 1)
    return Delivery(token, entry.deliveries, entry.message)
