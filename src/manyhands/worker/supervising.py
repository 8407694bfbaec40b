"""What a worker's parent decides about its children together: how many, when to start the next, and the heartbeat. Pure.

                   is_ready                    let go
     Start ──> STARTING ──────────> READY ──────────────────────> LEAVING
       ^           │ cannot work       │ dies, or is ended            │ ends by itself, or when its time is over
       └── pause ──┴────<──────────────┴──────────────<───────────────┘

A child that died in a call, or after some, is replaced at once: a call that is at fault runs out of deliveries. One that
died without having run anything is replaced after a pause; and while no other child works, the pause doubles and one child
tries for all: then something is wrong here, and hurry would only take the machine down with it. The crew is never broken
for good.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import count

from manyhands.events import Ping, Recall, Stop, Vouch
from manyhands.model import HEARTBEAT_S, Settlement
from manyhands.retry import backoff_s
from manyhands.worker.block import Returned
from manyhands.worker.effects import Effect, Say, Send, Start, Weigh
from manyhands.worker.minding import Child, Death, Look, State
from manyhands.worker.settings import Exit

WEIGH_S = 1.0
RESTART_BASE_S, RESTART_CAP_S = 0.25, 15.0
KILLED, KILLED_TOO_OFTEN = -9, 5
"""A child that was killed from outside while it started (by hand, or for want of memory) does not say that none can work;
so many in a row do."""
STEADY_S = 10.0
"""A child that was ready for so long had no trouble starting."""


class Supervisor:
    """The decisions for one set of children. Methods that return effects say what is to be done, in order.

    Args:
        queues: the engine's names of the children's queues, in their settings' order.
        new_session: makes session ids.
        unit: gives random numbers in [0, 1).
        max_memory_bytes: a child that uses more is replaced; 0 is no limit.
        grace_s: how long a child that is replaced may go on with what it runs.
    """

    def __init__(
        self,
        queues: Sequence[str],
        *,
        new_session: Callable[[], str],
        unit: Callable[[], float],
        max_memory_bytes: int = 0,
        grace_s: float = 30.0,
    ) -> None:
        self.children: dict[int, Child] = {}
        self.failure = ""
        """Why the last child that could not work could not; "" after one could."""
        self.has_been_ready = False
        """Whether any child ever was."""
        self.heartbeat_s = HEARTBEAT_S
        self._queues = list(queues)
        self._new_session = new_session
        self._unit = unit
        self._max_memory_bytes = max_memory_bytes
        self._grace_s = grace_s
        self._wanted = 0
        self._is_over = False
        self._numbers = count(1)
        self._rids = count(1)
        self._beat_at = 0.0  # 0: not attached yet
        self._in_trouble = 0  # children in a row that ended for no call
        self._start_at = 0.0  # no start before; 0: at once
        self._weigh_at = 0.0

    @property
    def is_over(self) -> bool:
        """Whether it was drained and no child is left."""
        return self._is_over and not self.children

    # -- how many

    def want(self, n: int, now: float) -> list[Effect]:
        """Have n children from now on. Those above n stay."""
        if not self._is_over:
            self._wanted = n
        return self._fill(now)

    def _fill(self, now: float) -> list[Effect]:
        if now < self._start_at:
            return []
        starts: list[Effect] = []
        living = sum(child.state in (State.STARTING, State.READY) for child in self.children.values())
        for _ in range(self._wanted - living):
            child = Child(next(self._numbers), self._new_session(), self._queues, self._new_rid, now)
            self.children[child.number] = child
            starts.append(Start(child.number, child.session))
            if self._in_trouble and not self._can_work():  # one, to see whether it can now
                break
        return starts

    def _can_work(self) -> bool:
        return any(child.state is State.READY for child in self.children.values())

    def _new_rid(self) -> int:
        return next(self._rids)

    # -- what happens to children

    def is_ready(self, number: int, now: float) -> list[Effect]:
        """A child has attached and can work."""
        child = self.children.get(number)
        if child is None or child.state is not State.STARTING:
            return []
        child.becomes(State.READY, now)
        self.has_been_ready = True
        self.failure = ""
        self._start_at = 0.0
        return self._fill(now)

    def has_ended(self, number: int, death: Death, look: Look, now: float) -> list[Effect]:
        """A child's process is no more.

        Args:
            look: its block after its death.
        """
        child = self.children.pop(number, None)
        if child is None:
            return []
        effects = child.has_ended(death, look)
        was_asked = child.doom is not None or child.state in (State.LEAVING, State.KILLED)
        is_orderly = death.code in (Exit.DRAINED, Exit.RETIRED) and not look.is_busy
        if look.seen.begun:
            self._in_trouble = 0
        if look.is_busy and not was_asked:
            text = f"a child {death.text} while it ran a call; only that call is charged, and another child takes its place"
            effects.append(Say(logging.WARNING, text))
        elif not was_asked and not is_orderly:
            if look.seen.begun:
                effects.append(Say(logging.WARNING, f"a child {death.text} between two calls; another takes its place"))
            else:
                effects += self._trouble(child, death, now)
        return effects + self._fill(now)

    def _trouble(self, child: Child, death: Death, now: float) -> list[Effect]:
        text = death.said or f"a child {death.text}"
        if child.state is not State.STARTING and now - child.since >= STEADY_S:
            self._in_trouble = 0
        self._in_trouble += 1
        is_news = bool(death.where) and death.said != self.failure
        if child.state is State.STARTING and (death.code != KILLED or self._in_trouble >= KILLED_TOO_OFTEN):
            self.failure = death.said or f"a child {death.text} before it was ready"
        unit = 0.5 + self._unit() / 2  # over the upper half only: a pause is the point
        cap_s = RESTART_BASE_S if self._can_work() else RESTART_CAP_S
        wait_s = backoff_s(self._in_trouble, base_s=RESTART_BASE_S, cap_s=cap_s, unit=unit)
        self._start_at = now + wait_s
        if not self._wanted:
            return []
        told = f"{text.rstrip('.')}; another is started in {wait_s:.1f} s"
        return [Say(logging.WARNING, f"{told}\n{death.where}" if is_news else told)]

    # -- what the engine asks

    def has_attached(self, heartbeat_s: float, now: float) -> None:
        """The parent's session stands."""
        self.heartbeat_s = heartbeat_s
        self._beat_at = now

    def is_recalled(self, recall: Recall, look_at: Callable[[int], Look], now: float) -> list[Effect]:
        """Others wait for what a child has not begun."""
        child = self._by_session(recall.session)
        return child.is_recalled(recall, look_at(child.number), now) if child is not None else []

    def is_stopped(self, stop: Stop, look_at: Callable[[int], Look]) -> list[Effect]:
        """A call that a child may be running was cancelled."""
        child = self._by_session(stop.session)
        return child.is_stopped(stop, look_at(child.number)) if child is not None else []

    def _by_session(self, session: str) -> Child | None:
        return next((child for child in self.children.values() if child.session == session), None)

    # -- what a child's process and block show

    def has_fenced(self, number: int, returned: Sequence[Returned], look: Look, now: float) -> list[Effect]:
        """A fence was raised, and this is what the child had not begun."""
        child = self.children.get(number)
        return child.has_fenced(returned, look, now) if child is not None else []

    def has_limit(self, number: int, now: float) -> list[Effect]:
        """A child has begun a call with a time limit, and nobody was looking."""
        child = self.children.get(number)
        return child.has_limit(now) if child is not None else []

    def has_weighed(self, number: int, size_bytes: int, look: Look, now: float) -> list[Effect]:
        """A child uses so much memory."""
        child, limit = self.children.get(number), self._max_memory_bytes
        if child is None or not 0 < limit < size_bytes:
            return []
        used = f"{size_bytes / 2**20:.0f} MiB of memory, over the limit of {limit / 2**20:.0f} MiB"
        return child.has_weighed(used, look, self._grace_s, now) + self._fill(now)

    # -- leaving

    def replace(self, now: float) -> list[Effect]:
        """Let every child finish what it runs and leave, with others in their place at once."""
        self._in_trouble, self._start_at, self.failure = 0, 0.0, ""
        return self._let_all_go(self._grace_s, now) + self._fill(now)

    def drain(self, now: float, grace_s: float) -> list[Effect]:
        """Take nothing more, and have no children once they are done with what they run, or grace_s later."""
        self._is_over, self._wanted = True, 0
        return self._let_all_go(grace_s, now)

    def _let_all_go(self, grace_s: float, now: float) -> list[Effect]:
        return [effect for child in list(self.children.values()) for effect in child.let_go(grace_s, now)]

    # -- time

    def due(self) -> float | None:
        """When `tick` is next needed; None while nothing is pending."""
        times = [time for child in self.children.values() for time in child.due()]
        if self._beat_at:
            times.append(self._beat_at)
        if self._start_at and self._wanted:
            times.append(self._start_at)
        if self._max_memory_bytes and self.children:
            times.append(self._weigh_at)
        return min(times) if times else None

    def tick(
        self, now: float, look_at: Callable[[int], Look], verdict_of: Callable[[int], Settlement | None]
    ) -> list[Effect]:
        """Time has passed.

        Args:
            look_at: a child's block now, by the child's number.
            verdict_of: how the call that a child runs is to end if it is ended for its time limit, as the child left it.
        """
        effects = self._beat(now)
        if self._start_at and now >= self._start_at:
            self._start_at = 0.0
            effects += self._fill(now)
        must_weigh = bool(self._max_memory_bytes) and now >= self._weigh_at
        if must_weigh:
            self._weigh_at = now + WEIGH_S
        for number, child in list(self.children.items()):
            effects += child.tick(now, lambda number=number: look_at(number), lambda number=number: verdict_of(number))  # type: ignore[misc]
            if must_weigh and child.state is State.READY:
                effects.append(Weigh(number))
        return effects

    def _beat(self, now: float) -> list[Effect]:
        if not self._beat_at or now < self._beat_at:
            return []
        self._beat_at = now + self.heartbeat_s
        ping = Send(Ping(self._new_rid()))  # its answer says that the server lives
        sessions = [child.session for child in self.children.values()]
        return [Send(Vouch(sessions)), ping] if sessions else [ping]
