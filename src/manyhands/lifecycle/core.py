"""The queue as one synchronous state machine: events and the time in, effects and changes out.

```
  shell:  attach / detach / apply / tick ──> Core ──> take() ──> Step(effects, changes)
                                              │                    │        └─ commit these first
                                              └ next_due()         └────────── then let these leave
```

It has no clock, no thread, no file and no randomness of its own, so a test or a simulation can put it anywhere in time.
The handlers live in the modules named in `_HANDLERS`; each takes (state, session, request, now), decides, and emits. A
handler that raises `Refused` has changed nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from manyhands import events
from manyhands.clock import Now
from manyhands.events import Attach, Failed, Reply, Request
from manyhands.lifecycle import (
    admin,
    attaching,
    cancelling,
    leases,
    moving,
    nearby,
    packs,
    parents,
    parking,
    puts,
    results,
    settling,
    streams,
)
from manyhands.lifecycle.changes import Snapshot
from manyhands.lifecycle.loading import load
from manyhands.lifecycle.refusal import Refused
from manyhands.lifecycle.silence import credit_stall
from manyhands.lifecycle.state import State, Step
from manyhands.model import Delivery, Limits, Message

_log = logging.getLogger(__name__)

# A timer this late means that the process itself did not run (stopped, swapped out, the machine asleep).
_STALL_S = 0.5

_HANDLERS: dict[type, Callable[[State, Any, Any, Now], None]] = {
    events.Declare: puts.declare,
    events.Put: puts.put,
    events.Lease: leases.lease,
    events.Begin: leases.begin,
    events.Recalled: leases.recalled,
    events.Extend: leases.extend,
    events.Settle: settling.settle,
    events.TaskDone: settling.task_done,
    events.Join: settling.join,
    events.Result: results.result,
    events.Ping: attaching.ping,
    events.Goodbye: attaching.goodbye,
    events.ReportDead: attaching.report_dead,
    events.Withdraw: attaching.withdraw,
    events.Collect: streams.collect,
    events.Report: packs.report,
    events.Cancel: cancelling.cancel,
    events.Vouch: parents.vouch,
    events.Reclaim: parents.reclaim,
    events.Offer: parking.offer,
    events.Progress: parents.progress,
    events.Create: admin.create,
    events.Drop: admin.nothing,
    events.Invoke: admin.invoke,
    events.Refer: admin.invoke,
    events.Unrefer: admin.invoke,
    events.Leave: admin.nothing,
    events.ShutDown: admin.shut_down,
    events.Size: admin.size,
    events.Stats: admin.stats,
    events.Peek: admin.peek,
    events.Purge: admin.purge,
    events.DeadList: admin.dead_list,
    events.DeadRetry: admin.dead_retry,
    events.DeadDrop: admin.dead_drop,
    events.Bury: moving.bury_letters,
}


class Core:
    """Queues, sessions, leases, results. Not thread-safe: one shell owns it."""

    def __init__(
        self, *, limits: Limits, epoch: int, is_journaled: bool = False, snapshot: Snapshot | None = None, now: Now
    ) -> None:
        """Start empty, or from what a store kept.

        Args:
            epoch: a number that no earlier run over the same store had (below 2**22); tokens are made from it.
            is_journaled: whether `take` returns the changes.
        """
        self._state = State(limits, epoch, is_journaled, now)
        self._now = now
        self.timers = self._state.timers
        """What will be due; `timers.is_sooner` says that `next_due` may have come nearer since it was last asked."""
        if snapshot is not None:
            load(self._state, snapshot, now)

    def attach(self, attach: Attach, now: Now) -> tuple[bool, list[int]]:
        """Open or resume a session, also one that is still connected elsewhere.

        Returns:
            Whether the session was resumed, and which of the tokens it holds are not its any more.
        """
        self._now = now
        answer = attaching.attach(self._state, attach, now)
        self._serve(now)
        return answer

    def detach(self, session: str, now: Now, *, is_dead: bool = False) -> None:
        """A session's connection ended; is_dead: it will not come back, its leases return at once."""
        self._now = now
        found = self._state.sessions.get(session)
        if found is not None:
            attaching.detach(self._state, found, now, is_dead=is_dead)
            self._serve(now)

    def apply(self, session: str, requests: Sequence[Request], now: Now) -> None:
        """Apply a session's requests, in order. Never raises for what is in them."""
        self._now = now
        state = self._state
        found = state.sessions.get(session)
        if found is not None and found.is_connected:
            found.last_heard = now.mono
        for request in requests:
            if found is None or not found.is_connected:
                self._refuse(session, request, "usage", f"session {session:.8}… is not attached here (any more)")
                continue
            try:
                _HANDLERS[type(request)](state, found, request, now)
            except Refused as refused:
                self._refuse(session, request, refused.code, refused.text, refused.facts)
            except Exception as error:
                _log.debug("a request with wrong values was refused", exc_info=True)
                self._refuse(session, request, "usage", f"{type(request).__name__} has wrong values: {error!r:.200}")
        if state.dirty or state.collected:
            self._serve(now)

    def put_nearby(self, session: str, queue: str, message: Message, cause: int) -> bool:
        """See `nearby`: whether it was possible; if not, send a Put. Whoever waits is served by `serve`."""
        found = self._state.sessions.get(session)
        return found is not None and nearby.put_nearby(self._state, found, queue, message, cause)

    def get_nearby(self, session: str, queue: str, done: int, is_task_done: bool, wall: float) -> Delivery | None:
        """See `nearby`: the next delivery, or None and nothing was changed; then send a Settle and a Lease."""
        found = self._state.sessions.get(session)
        if found is None:
            return None
        return nearby.get_nearby(self._state, found, queue, done, is_task_done, wall)

    @property
    def is_unserved(self) -> bool:
        """Whether somebody waits for what a short way has just done: then call `serve`."""
        return bool(self._state.dirty)

    def serve(self, now: Now) -> None:
        """Serve those who wait."""
        self._now = now
        self._serve(now)

    def tick(self, now: Now) -> None:
        """Do what has become due."""
        self._now = now
        if self.timers.late_s(now) > _STALL_S:
            credit_stall(self._state, now)
        self.timers.run(now)
        self._serve(now)

    def next_due(self) -> float | None:
        """The monotonic time at which `tick` should be called next; None while nothing is to come."""
        return self.timers.next_due(self._now)

    def parked(self) -> list[tuple[str, int]]:
        """(session, rid) of every request that waits for its answer: what a shell must tell if it throws this core away."""
        return [
            (session.id, rid)
            for session in self._state.sessions.values()
            for waiting in session.parked.values()
            for rid in (waiting.rid, *getattr(waiting, "also", ()))
        ]

    def offers(self) -> dict[str, list[str]]:
        """What each session offers, by its id: what a shell must repeat to the next core if it throws this one away."""
        return {session.id: sorted(session.offers) for session in self._state.sessions.values() if session.offers}

    @property
    def next_n(self) -> int:
        """No message and no result is numbered so high yet; a store that keeps it never sees a number twice."""
        return self._state.numbers.next

    def take(self) -> Step:
        """All effects, in leaving order, and all changes since the last take."""
        return self._state.take()

    def effects(self) -> list[tuple[str, Reply]]:
        """All effects since the last call, in leaving order: `take` for a core that is not journaled."""
        state = self._state
        effects, state.effects = state.effects, []
        return effects

    def _refuse(self, session: str, request: Request, code: str, text: str, facts: dict[str, Any] | None = None) -> None:
        rid = getattr(request, "rid", 0)
        if rid:
            self._state.effects.append((session, Failed(rid, code, text, facts)))

    def _serve(self, now: Now) -> None:
        """Serve those who wait, until nothing more follows from it."""
        state = self._state
        dirty = state.dirty
        while dirty:
            queue, _ = dirty.popitem()
            if queue.putting:
                puts.admit(state, queue, now)
            if queue.waiting:
                leases.serve(state, queue, now)
            if queue.joining and not queue.unfinished:
                for waiting in list(queue.joining):
                    settling.answer_join(state, waiting)
        if state.collected:
            collected, state.collected = state.collected, {}
            for stream in collected:
                streams.serve(state, stream, now)
