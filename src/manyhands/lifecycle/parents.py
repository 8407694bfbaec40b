"""Parents: worker processes that look after their children's sessions, and speak for them.

```
   child  ── Lease, Settle, Report ──> engine ── Recall(session=child), Stop ──> parent
   parent ── Vouch, Reclaim, ReportDead ──> engine          (the child may be busy, or dead)
```

A session's id is its secret: whoever names it may speak for it. `Attach.parent` says only who is asked in its place, and
whoever knows neither id can bring neither about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from manyhands._text import REASON_CHARS, readable
from manyhands.clock import Now
from manyhands.events import Done, Progress, Progressed, Reclaim, ReportDead, Stop, Vouch
from manyhands.lifecycle import packs, recalls
from manyhands.lifecycle.placing import check_settlement
from manyhands.lifecycle.queue import is_pack
from manyhands.model import Told, part_id

if TYPE_CHECKING:
    from manyhands.lifecycle.sessions import Session
    from manyhands.lifecycle.state import State

_TOLD = 64
"""So much that calls of a session told is kept before what belongs to none any more is looked for."""


def vouch(state: State, session: Session, request: Vouch, now: Now) -> None:
    """A parent's heartbeat for its children."""
    for child_id in request.sessions:
        child = state.sessions.get(child_id)
        if child is not None and child.is_connected:
            child.last_heard = now.mono


def reclaim(state: State, session: Session, request: Reclaim, now: Now) -> None:
    """A parent gives back what its child has not begun; also the answer to a Recall."""
    child = state.sessions.get(request.session)
    queue = state.queues.get(request.queue)
    if child is not None and queue is not None:
        queue.recalls.pop(child.id, None)
        child.recalled.discard(queue.name)
        n = 0
        for begun in request.begun:
            entry = child.leases.get(begun.token)
            if entry is None or entry.queue != queue.name:
                continue
            if begun.n <= 0:
                del child.leases[begun.token]
                queue.release(entry, child.id)
                packs.give_back(state, queue, entry, now, is_suspect=entry.is_suspect)
                n += 1
                continue
            if not entry.is_begun:  # the parent knows better
                entry.is_begun = True
                queue.hold_unbegun(child.id, -1)
            if is_pack(entry.message):
                n += packs.keep_first(state, queue, entry, begun.n, now)
        if n:
            recalls.arm(state, queue, now)
        else:
            recalls.arm_again(state, queue, now)
        state.wake(queue)
    if request.rid:
        state.reply(session, Done(request.rid))


def end_running(state: State, dead: Session, request: ReportDead, reason: str, now: Now) -> None:
    """The lease of the call that ran when a child died ends; everything else that the child held was not running.

    Raises:
        Refused: the settlement cannot be made; nothing was changed.
    """
    settlement = request.settlement
    running = dead.leases.get(request.token)
    if settlement is not None:
        check_settlement(state, settlement)
    if running is not None:
        del dead.leases[request.token]
        queue = state.queues[running.queue]
        queue.release(running, dead.id)
        packs.end_one(state, dead, queue, running, request.part, settlement, reason, now)
    leases, dead.leases = dead.leases, {}
    for entry in leases.values():
        queue = state.queues[entry.queue]
        queue.release(entry, dead.id)
        packs.give_back(state, queue, entry, now, is_suspect=entry.is_suspect)


def stop(state: State, session: Session, token: int, part: int) -> None:
    """Have a running call stopped: by the parent of the session that runs it, or by that session itself."""
    parent = state.sessions.get(session.parent) if session.parent else None
    asked = parent if parent is not None and parent.is_connected else session
    state.effects.append((asked.id, Stop(session.id, token, part)))


def progress(state: State, session: Session, request: Progress, now: Now) -> None:
    """How far a running call has come: for who awaits it, and for who asks for statistics meanwhile."""
    entry = session.leases.get(request.token)
    if entry is None:
        return
    options = entry.message.options
    call = part_id(entry.message.id, request.part) if options is not None and options.calls > 1 else entry.message.id
    note = readable(request.note, REASON_CHARS)
    if len(session.told) >= _TOLD:
        session.told = {token: told for token, told in session.told.items() if token in session.leases}
    session.told[request.token] = Told(call, entry.queue, request.done, request.total, note, now.wall)
    if options is None or not options.reply_to:
        return
    stream = state.streams.get(options.reply_to)
    owner = state.sessions.get(stream.owner) if stream is not None else None
    if owner is None or not owner.is_connected:
        return
    state.effects.append((owner.id, Progressed(call, request.done, request.total, note)))


def check_parent(session: str, parent: str) -> str:
    """The parent's id as it may be kept; "" for one that is none."""
    if not isinstance(parent, str) or parent == session or len(parent) > 255:
        return ""
    return parent
