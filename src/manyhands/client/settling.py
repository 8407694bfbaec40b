"""How a lease of `get` or `receive` ends when its message was not simply done: refused, given back, let go, or lost."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from manyhands.client.records import Held
from manyhands.errors import SealBroken, ServerGone, ServerUnavailable, UndecodableBody
from manyhands.events import Settled
from manyhands.model import SettleKind, Settlement

if TYPE_CHECKING:
    from manyhands.client.session import ClientSession

log = logging.getLogger(__name__)


def settle(session: ClientSession, held: Held, settlement: Settlement) -> bool:
    """Settle and wait for the engine's word; whether the lease was lost."""
    with session.lock:
        call = session.state.settle_and_hear(held, settlement)
    if call is None:
        return False
    reply = session.ask(call)
    return isinstance(reply, Settled) and bool(reply.lost) and not held.refused


def reject(session: ClientSession, held: Held, error: SealBroken) -> None:
    """Nobody can trust this message: it becomes a dead letter at once."""
    log.error("message rejected: %s", error)
    with session.lock:
        session.state.drop(held)
        session.state.settle(held, SettleKind.REJECT, reason=str(error))
    session.flush()


def give_back(session: ClientSession, held: Held, error: UndecodableBody) -> None:
    """Another worker may know the class; after max_deliveries the engine makes it a dead letter with this reason."""
    with session.lock:
        session.state.drop(held)
        session.state.settle(held, SettleKind.NACK, reason=str(error))
    session.flush()


def let_go(session: ClientSession, held: Held, kind: SettleKind, reason: str) -> None:
    """Settle while an exception is on its way, which matters more than a server that is gone."""
    with session.lock:
        session.state.settle(held, kind, reason=reason)
    try:
        session.flush()
    except (ServerGone, ServerUnavailable):
        log.debug("message %s was not given back: its server is gone, and it with it", held.delivery.message.id)


def warn_lost(lost: list[Held]) -> None:
    """Say once for each queue and batch that implicit leases were lost; the work may be done twice, nothing is missing."""
    held = lost[0]
    log.warning(
        "lease lost: message %s on queue %r%s went to another consumer, or its server started anew, while this one worked "
        "on it for %.1f s; it may be done twice. Use a longer lease_s, or make the task safe to run twice",
        held.delivery.message.id,
        held.queue.name,
        f" and {len(lost) - 1} more" if len(lost) > 1 else "",
        time.monotonic() - held.begun_at,
    )
