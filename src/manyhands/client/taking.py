"""How a `get` comes by deliveries: from what was prefetched, else by asking the engine and waiting for its answer."""

from __future__ import annotations

import queue as stdlib_queue
import time

from manyhands.client.messages import server_gone
from manyhands.client.records import Call, Held, QueueState
from manyhands.client.session import GRACE_S, ClientSession
from manyhands.errors import from_code
from manyhands.events import Failed, Granted


def take_unowned(session: ClientSession, queue: QueueState, consumer: int, n: int, deadline: float | None) -> list[Held]:
    """Take up to n deliveries, at least one, which nobody holds yet: a caller that fails must settle them."""
    state = session.state
    now = time.monotonic()
    if session.port.attached is not state.attached:
        session.reattached()
    with session.lock:
        helds: list[Held] = []
        while len(helds) < n and (held := state.take(queue, consumer, now)) is not None:
            helds.append(held)
        call = None if helds else state.ask(queue, consumer, n, deadline, now)
    if call is None:
        flush(session, queue, now)
        return helds
    return hear(session, call, deadline, now)


def hear(session: ClientSession, call: Call, deadline: float | None, now: float) -> list[Held]:
    """What a get's question brings, at least one delivery; nobody holds it yet."""
    state = session.state
    try:
        session.flush()
        session.hear(call, None if deadline is None else deadline - now + GRACE_S)
    except BaseException:
        with session.lock:
            state.cancel(call)
        if session.gone is None:
            session.flush()
        raise
    if not call.is_over():
        with session.lock:
            if not call.is_over():
                state.cancel(call)
        session.flush()
    return what_came(call, is_closing=state.is_closing)


def what_came(call: Call, *, is_closing: bool) -> list[Held]:
    """What a get's question brought, once it is over or was cancelled: at least one delivery, or the error to raise."""
    if call.held:
        return call.held
    if isinstance(call.reply, Failed):
        raise from_code(call.reply.code, call.reply.text, call.reply.facts)
    if is_closing:
        raise server_gone()
    assert call.reply is None or isinstance(call.reply, Granted)
    raise stdlib_queue.Empty


def flush(session: ClientSession, queue: QueueState, now: float) -> None:
    """Send what there is, before the caller begins its next task; if those are short, with the next few."""
    if queue.pace.is_short:
        session.flush_soon(now)
    else:
        session.flush()
