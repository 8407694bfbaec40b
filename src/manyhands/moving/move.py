"""What a move as a whole decides: which queues, how much at once, when it is over. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from manyhands.errors import ManyhandsError, UnknownId, UsageError, from_code
from manyhands.events import Failed, Offer, Recall, Reply, Stats, StatsReply
from manyhands.model import Features, QueueStats, halves, name_of
from manyhands.moving.ends import End
from manyhands.moving.line import Line
from manyhands.moving.progress import Progress
from manyhands.moving.translating import Translator

ROOM, ROOM_BYTES = 6000, 32 * 1024 * 1024
"""How many messages and bytes of bodies are on their way between the engines at most, but for the last batches."""
LOOK_S = 1.0
"""How often the numbers are asked for while something moves."""
IDLE_S = 5.0
"""How long a lease waits at the source where a move follows its producers."""


class Move:
    """One run of a move.

    Args:
        queues: their names; none is all there are, and those that come.
        is_following: go on when nothing is left, until it is stopped.
        features, max_body_bytes: the target's.
        sessions: the public ids of this move's sessions at the source and at the target.
    """

    def __init__(
        self,
        translator: Translator,
        queues: Sequence[str],
        *,
        is_following: bool,
        features: Features,
        max_body_bytes: int,
        sessions: tuple[str, str],
    ) -> None:
        self.translator = translator
        self.is_following = is_following
        self.takes_letters = features.moves
        self.max_body_bytes = max_body_bytes
        self.source = End(self._unasked, self._failed)
        self.target = End(lambda _: None, self._failed)
        self.failure: ManyhandsError | None = None
        self.is_stopping = False
        self.flying = self.flying_bytes = 0
        self.moved = self.size_bytes = self.dead = self.refused = self.overtaken = 0
        self._queues = queues
        self._own, self._own_at_target = sessions
        self._lines: dict[str, Line] = {}
        self._needs: frozenset[str] = frozenset()
        self._is_looking = False
        self._must_look = True
        self._has_looked = False
        self._looked_at = 0.0
        self._moved_when_looked = 0
        self._moved_then = 0
        self._users: tuple[str, ...] = ()

    # -- what happens

    def tick(self, now: float) -> None:
        """Time has passed."""
        is_moving = self.moved + self.flying != self._moved_then
        if not self._is_looking and (self._must_look or now - self._looked_at >= (LOOK_S if is_moving else self.wait_s)):
            self._is_looking, self._must_look = True, False
            self._looked_at = now
            self._moved_then = self.moved + self.flying
            self.source.ask(lambda rid: Stats(rid), self._looked)

    def stop(self) -> None:
        """Take nothing more; over when all that is on its way has arrived."""
        self.is_stopping = True

    @property
    def is_over(self) -> bool:
        if self.failure is not None:
            return True
        if self.is_stopping:
            return not self.flying
        return self._has_looked and not self.is_following and all(line.is_done for line in self._lines.values())

    # -- what lines ask

    @property
    def has_room(self) -> bool:
        return self.flying < ROOM and self.flying_bytes < ROOM_BYTES

    @property
    def wait_s(self) -> float:
        """How long a lease waits where nothing is ready."""
        return IDLE_S if self.is_following else LOOK_S

    @property
    def is_stale(self) -> bool:
        """Whether newer numbers will be asked for at once."""
        return self._must_look

    def want_stats(self) -> None:
        """At the next tick, which comes with the next requests."""
        self._must_look = True

    def pump(self) -> None:
        for line in self._lines.values():
            line.pump()

    def fail(self, failed: Failed, what: str) -> None:
        """End the move with this error; what the target has not acknowledged stays at the source."""
        if self.failure is None:
            error = from_code(failed.code, f"{what}: {failed.text}", failed.facts)
            self.failure = error if isinstance(error, ManyhandsError) else UsageError(str(error))

    # -- answers

    def _failed(self, failed: Failed) -> None:
        self.fail(failed, "the move stopped")

    def _unasked(self, reply: Reply) -> None:
        if isinstance(reply, Recall) and (line := self._lines.get(reply.queue)) is not None:
            line.recalled(reply)

    def _looked(self, reply: StatsReply) -> None:
        self._is_looking = False
        self._moved_when_looked = self.moved + self.dead
        if any(seen.id == self._own_at_target for seen in reply.sessions):
            self.failure = UsageError("Both URLs lead to the same queues; give two different places.")
            return
        self._users = tuple(sorted(seen.name for seen in reply.sessions if seen.is_connected and seen.id != self._own))
        found = {stats.name: stats for stats in reply.queues}
        if not self._has_looked and not self.is_following:
            self._require(found)
        self._has_looked = True
        needs = frozenset(need for stats in reply.queues if self._is_meant(stats.name) for need in stats.parked)
        if not needs <= self._needs:
            self._needs |= needs
            self.source.tell(Offer(sorted(self._needs)))
        for name, stats in found.items():
            line = self._lines.get(name)
            if line is not None:
                line.stats = stats
                line.judge()
            elif self._is_meant(name) and not self.is_stopping:
                line = self._lines[name] = Line(self, name, stats)
                line.open()

    def _is_meant(self, half: str) -> bool:
        return not self._queues or name_of(half) in self._queues

    def _require(self, found: dict[str, QueueStats]) -> None:
        for name in self._queues:
            if not any(half in found for half in halves(name)):
                there = sorted({name_of(each) for each in found})
                self.failure = UnknownId(
                    f"There is no queue {name!r} at the source; "
                    + (f"there are: {', '.join(there)}" if there else "there are none yet")
                )

    # -- for people

    def progress(self) -> Progress:
        """How far it is."""
        lines = list(self._lines.values())
        held = [message for line in lines for message in line.held.values()]
        too_large = sum(len(message.body) > self.max_body_bytes for message in held)
        letters = sum(line.dead_staying if self.takes_letters else line.stats.dead for line in lines)
        return Progress(
            moved=self.moved,
            size_bytes=self.size_bytes,
            dead=self.dead,
            left=max(0, sum(line.left for line in lines) - (self.moved + self.dead - self._moved_when_looked)),
            working=sum(line.working for line in lines),
            retrying=sum(line.stats.delayed for line in lines),
            staying=len(held) - too_large,
            dead_staying=letters,
            too_large=too_large,
            refused=self.refused,
            overtaken=self.overtaken,
            queues=len({name_of(line.name) for line in lines}),
            users=self._users,
            is_idle=self._has_looked and all(line.is_idle for line in lines),
        )
