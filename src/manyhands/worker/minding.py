"""What a worker's parent decides about one child: what goes back, which call is stopped, when it has to be gone. Pure.

A child is ended for one call only (its time limit, a cancellation, too much memory) and never beside it. Between seeing that
a call is to be stopped and stopping it, it may end and another begin; so it takes two steps:

    doom ──> fence: the child begins nothing more, and what it had not begun goes back
         ──> second look: does the same call still run?   yes: kill    no: the doom is over, nothing happened

After its death one more look tells what it died in, and that call alone is charged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from enum import Enum, auto

import msgspec

from manyhands.events import Recall, Reclaim, ReportDead, Stop
from manyhands.model import Begun, Settlement
from manyhands.worker.block import Glimpse, Held, Phase, Returned
from manyhands.worker.effects import Effect, Fence, Kill, Say, Send, Tell, Watch
from manyhands.worker.settings import DRAIN

WHOLE_AFTER_S = 0.005
"""Whole messages are taken back once the child's running call has lasted so long; before, it is nearly done with them."""
SPLIT_AFTER_S = 0.05
"""And after so long a pack is split behind the running call."""
RECALL_LONGEST_S = 0.25
"""A recall is answered after so long, whatever the child is doing."""
LOOK_S = 0.1
"""While calls with limits run, how long a call that began since the last look may go unseen."""
WATCH_S = 1.0
"""The looking stops when no call with a limit has run for so long."""
LEAVE_S = 2.0
"""A child that was told to leave, has nothing to run and is still there after so long is ended."""

NOTHING = Glimpse(Phase.STARTING, 0, 0, 0.0, 0.0, 0.0, 0)
"""What a child that never ran shows."""


class Look(msgspec.Struct, frozen=True):
    """A child as its block shows it at one moment."""

    seen: Glimpse = NOTHING
    held: Sequence[Held] = ()

    @property
    def is_busy(self) -> bool:
        """Whether it runs a call."""
        return self.seen.phase is Phase.RUNNING

    def silent_s(self, now: float) -> float:
        """For how long it has waited for work and heard nothing from the engine, which answers each of its heartbeats; 0.0
        while it does something else."""
        return max(0.0, now - self.seen.heard_mono) if self.seen.phase is Phase.WAITING else 0.0

    @property
    def running(self) -> tuple[Held, int] | None:
        """The message whose call runs, and which call of it; None: none does."""
        at = self.seen.claimed_from
        found = (held for held in self.held if held.first <= at <= held.last)
        held = next(found, None) if self.is_busy else None
        return None if held is None else (held, at - held.first)


class Death(msgspec.Struct, frozen=True):
    """How a child's process ended."""

    code: int
    """Its exit code; below 0: minus the signal that killed it."""
    text: str
    """The same in words: "was killed by SIGKILL"."""
    said: str = ""
    """The sentence that the child left to be said."""
    where: str = ""
    """And its traceback."""


class State(Enum):
    """How far a child has come."""

    STARTING = auto()
    READY = auto()
    LEAVING = auto()
    """It was told to finish what it runs and to take nothing more."""
    KILLED = auto()


class Doom(msgspec.Struct, frozen=True):
    """Why a child is to be ended, if it still runs this."""

    begun: int
    """The ordinal of the call that is meant; -1: whatever it runs."""
    why: str
    settlement: Settlement | None = None


class Child:
    """One child. All methods but the last say what is to be done, in order.

    Args:
        queues: the engine's names of its queues, in its settings' order.
        new_rid: makes the rids of requests.
    """

    def __init__(self, number: int, session: str, queues: Sequence[str], new_rid: Callable[[], int], now: float) -> None:
        self.number = number
        self.session = session
        self.state = State.STARTING
        self.since = now
        """When it came into its state."""
        self.doom: Doom | None = None
        self._queues = queues
        self._new_rid = new_rid
        self._is_fencing = False
        self._recalls: dict[str, float] = {}  # by queue: since when the engine waits for an answer
        self._recall_look_at = 0.0
        self._is_watched = False
        self._limit_look_at = 0.0
        self._limited_at = 0.0  # when a call with a limit was last seen
        self._leave_by = 0.0
        self._idle_since = 0.0

    def becomes(self, state: State, now: float) -> None:
        """Enter a state."""
        self.state, self.since = state, now

    # -- giving back

    def is_recalled(self, recall: Recall, look: Look, now: float) -> list[Effect]:
        """Others wait for what it has not begun."""
        self._recalls.setdefault(recall.queue, now)
        return self._serve_recalls(look, now)

    def _serve_recalls(self, look: Look, now: float) -> list[Effect]:
        """Answer, or look again when its running call has lasted long enough to be worth the trouble."""
        if not self._recalls or self._is_fencing:
            return []
        seen = look.seen
        unbegun = [held for held in look.held if held.last > seen.begun and self._queues[held.queue] in self._recalls]
        if not unbegun:
            return self._reclaim([])
        since = min(self._recalls.values())
        ran_s = now - (seen.started_mono if look.is_busy else since)
        if ran_s >= SPLIT_AFTER_S or now - since >= RECALL_LONGEST_S:
            return self._fence()
        has_whole = any(held.first > seen.begun for held in unbegun)
        if has_whole and ran_s >= WHOLE_AFTER_S:
            # A pack that it has begun stays whole.
            current = next((held for held in look.held if held.first <= seen.begun <= held.last), None)
            return self._fence(current.last - seen.begun if current is not None else 0)
        wait_s = (WHOLE_AFTER_S if has_whole else SPLIT_AFTER_S) - ran_s
        self._recall_look_at = min(now + wait_s, since + RECALL_LONGEST_S)
        return []

    def _fence(self, keep: int = 0) -> list[Effect]:
        if self._is_fencing:
            return []
        self._is_fencing = True
        return [Fence(self.number, keep)]

    def has_fenced(self, returned: Sequence[Returned], look: Look, now: float) -> list[Effect]:
        """A fence was raised, and this is what it had not begun."""
        self._is_fencing = False
        effects = self._reclaim(returned)
        doom = self.doom
        if doom is None or self.state is State.KILLED:
            return effects
        if look.is_busy and doom.begun in (-1, look.seen.begun):
            self.becomes(State.KILLED, now)
            return [*effects, Kill(self.number)]
        self.doom = None  # the call ended by itself in the last moment
        return effects

    def _reclaim(self, returned: Sequence[Returned]) -> list[Effect]:
        by_queue: dict[str, list[Begun]] = {queue: [] for queue in self._recalls}
        for each in returned:
            by_queue.setdefault(self._queues[each.queue], []).append(Begun(each.token, each.n))
        self._recalls.clear()
        self._recall_look_at = 0.0
        return [Send(Reclaim(self._new_rid(), self.session, queue, begun)) for queue, begun in by_queue.items()]

    # -- stopping a call

    def is_stopped(self, stop: Stop, look: Look) -> list[Effect]:
        """A call that it may be running was cancelled."""
        running = look.running
        if running is not None and running[0].token == stop.token and stop.part in (-1, running[1]):
            return self.condemn(Doom(look.seen.begun, "the call was cancelled"))  # the engine knows how it ends
        if any(held.token == stop.token and held.last > look.seen.begun for held in look.held):
            return self._fence()  # it goes back to the engine, which knows that nobody wants it
        return []

    def condemn(self, doom: Doom) -> list[Effect]:
        """End the child if it still runs that."""
        if self.state is State.KILLED or self.doom is not None:
            return []
        self.doom = doom
        return self._fence()

    def has_limit(self, now: float) -> list[Effect]:
        """It has begun a call with a time limit, and nobody was looking."""
        self._is_watched = True
        self._limited_at = self._limit_look_at = now
        return [Watch(self.number, True)]

    def _check_limit(self, look: Look, verdict: Settlement | None, now: float) -> list[Effect]:
        self._limit_look_at = now + LOOK_S
        deadline = look.seen.deadline_mono if look.is_busy else 0.0
        if deadline:
            self._limited_at = now
            if now >= deadline:
                limit_s = deadline - look.seen.started_mono
                return self.condemn(Doom(look.seen.begun, f"the call ran past its limit of {limit_s:.6g} s", verdict))
            self._limit_look_at = min(deadline, now + LOOK_S)
        elif now - self._limited_at >= WATCH_S:
            if self._is_watched:
                # One more look after this: a call may have begun before the child could see that nobody looks.
                self._is_watched = False
                return [Watch(self.number, False)]
            self._limit_look_at = 0.0
        return []

    # -- leaving

    def let_go(self, grace_s: float, now: float) -> list[Effect]:
        """Let it finish what it runs, for so long, and go; what it has not begun goes back now."""
        if self.state is State.STARTING:
            self.becomes(State.KILLED, now)
            return [Kill(self.number)]
        if self.state is State.READY:
            self.becomes(State.LEAVING, now)
            self._leave_by = now + grace_s
            self._idle_since = now
            return [Tell(self.number, DRAIN), *self._fence()]
        self._leave_by = min(self._leave_by, now + grace_s)
        return []

    def _check_leaving(self, look: Look, now: float) -> list[Effect]:
        if look.is_busy:
            self._idle_since = now
        if now < min(self._leave_by, self._idle_since + LEAVE_S):
            return []
        self.becomes(State.KILLED, now)
        # The call is charged: it has begun, and only its own limits say whether it may begin again elsewhere.
        self.doom = Doom(-1, "its worker was stopped while it ran")
        return [Kill(self.number)]

    def has_ended(self, death: Death, look: Look) -> list[Effect]:
        """Its process is no more, and this is what its block shows: the engine is told what it died in."""
        if look.seen.phase is Phase.STARTING:
            return []  # the engine has never heard of it
        why, settlement = f"its process {death.text}", None
        running = look.running
        if running is None:
            return [Send(ReportDead(self._new_rid(), self.session, why, is_idle=not look.is_busy))]
        held, index = running
        if self.doom is not None and self.doom.begun in (-1, look.seen.begun):
            why, settlement = self.doom.why, self.doom.settlement
        # Which of several very short calls that were claimed together it was is not known: then none of them is charged, and
        # each travels alone from here.
        part = index if held.calls and look.seen.claimed_from == look.seen.begun else -1
        return [Send(ReportDead(self._new_rid(), self.session, why, held.token, part, settlement))]

    def has_weighed(self, used: str, look: Look, grace_s: float, now: float) -> list[Effect]:
        """It uses too much memory: so it is ended with the call that it runs, or let go if it runs none."""
        if self.state is not State.READY:
            return []
        if look.is_busy:
            why = f"its process used {used}"
            return [
                Say(logging.WARNING, f"a child used {used}, and is ended with its call"),
                *self.condemn(Doom(look.seen.begun, why)),
            ]
        return [Say(logging.INFO, f"a child used {used}, and is replaced"), *self.let_go(grace_s, now)]

    # -- time

    def tick(self, now: float, look_at: Callable[[], Look], verdict: Callable[[], Settlement | None]) -> list[Effect]:
        """Time has passed.

        Args:
            look_at: its block now.
            verdict: how the call that it runs is to end if it is ended for its time limit, as the child left it.
        """
        effects: list[Effect] = []
        if self._recall_look_at and now >= self._recall_look_at:
            self._recall_look_at = 0.0
            effects += self._serve_recalls(look_at(), now)
        if self._is_limit_due(now):
            effects += self._check_limit(look_at(), verdict(), now)
        if self.state is State.LEAVING and now >= min(self._leave_by, self._idle_since + LEAVE_S):
            effects += self._check_leaving(look_at(), now)
        return effects

    def _is_limit_due(self, now: float) -> bool:
        return bool(self._limit_look_at) and now >= self._limit_look_at and self.state in (State.READY, State.LEAVING)

    def due(self) -> Iterator[float]:
        """When `tick` is needed."""
        if self._recall_look_at:
            yield self._recall_look_at
        if self._limit_look_at and self.state in (State.READY, State.LEAVING):
            yield self._limit_look_at
        if self.state is State.LEAVING:
            yield min(self._leave_by, self._idle_since + LEAVE_S)
