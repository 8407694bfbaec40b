"""What must hold, told from outside: who put what, who ran what, what arrived, and which faults there were.

The checker never looks into a state machine. It knows only what programs saw, what the server let out, and every fault
that was made, with whom it hit and how long it lasted.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import NamedTuple


class Violation(AssertionError):
    """A promise was broken."""


class Run(NamedTuple):
    """One execution of a task by one worker. A larger token is a later lease."""

    worker: str
    token: int
    begun_at: float


class Fault(NamedTuple):
    """Something that was done to one program ("" is all of them) from `at` until `until`."""

    victim: str
    at: float
    until: float


class Checker:
    """Collects what happened; `finish` judges the whole, the others raise at once."""

    def __init__(self) -> None:
        self.attempted: set[str] = set()
        self.acked: set[str] = set()
        self.results: dict[str, str] = {}
        """Task to the id of the message that carried its result."""
        self.runs: defaultdict[str, list[Run]] = defaultdict(list)
        self._messages: dict[str, str] = {}
        self.faults: list[Fault] = []
        self._current: dict[str, int] = {}
        self._message_of: dict[int, str] = {}
        self._ended: set[int] = set()
        self._done: set[str] = set()
        self._holder: dict[int, str] = {}

    # -- what programs saw -----------------------------------------------------------------------------------------

    def putting(self, task: str) -> None:
        self.attempted.add(task)

    def put_acked(self, task: str) -> None:
        self.acked.add(task)

    def ran(self, task: str, message_id: str, worker: str, token: int, at: float) -> None:
        """A worker's get returned this task (I2, I6, and the first half of I4)."""
        if task not in self.attempted:
            raise Violation(f"I2: {worker} was given {task!r}, which nobody put")
        if self._messages.setdefault(task, message_id) != message_id:
            raise Violation(f"I6: {task!r} was put once and is there twice: {message_id} and {self._messages[task]}")
        if any(run.token == token for run in self.runs[task]):
            raise Violation(f"I4: {task!r} was returned twice under one lease, token {token}")
        self.runs[task].append(Run(worker, token, at))

    def result_arrived(self, task: str, message_id: str) -> None:
        """The collector's get returned a result; the same message may come again after a fault, another may not (I5)."""
        if task not in self.runs:
            raise Violation(f"I2: a result of {task!r} arrived, which nobody ran")
        if self.results.setdefault(task, message_id) != message_id:
            raise Violation(f"I5: {task!r} has two results")

    # -- what the server let out -----------------------------------------------------------------------------------

    def granted(self, message_id: str, token: int, session: str) -> None:
        """A committed delivery left the server (I3, I6)."""
        if message_id in self._done:
            raise Violation(f"I6: {message_id!r} was done, and is given out again as {token}")
        if token in self._message_of:
            raise Violation(f"I3: token {token} was given out twice")
        if token <= self._current.get(message_id, 0):
            raise Violation(f"I3: the tokens of {message_id!r} do not grow: {token} after {self._current[message_id]}")
        self._current[message_id] = token
        self._message_of[token] = message_id
        self._holder[token] = session

    def settled(self, token: int, session: str, *, is_done: bool) -> None:
        """A committed settlement was accepted for the first time (I3); is_done: the message will not come again."""
        message_id = self._message_of.get(token)
        if message_id is None:
            raise Violation(f"I3: token {token} was settled and never given out")
        if self._holder[token] != session:
            raise Violation(f"I3: {session} settled token {token}, which {self._holder[token]} holds")
        if self._current[message_id] != token:
            raise Violation(f"I3: the stale token {token} settled {message_id!r}, now held as {self._current[message_id]}")
        if token in self._ended:
            raise Violation(f"I3: token {token} was settled twice")
        self._ended.add(token)
        if is_done:
            self._done.add(message_id)

    def settled_again(self, tokens: list[int]) -> None:
        """A settlement that was sent again was answered as a success (I3): something of it must have been applied."""
        if tokens and not self._ended.intersection(tokens):
            raise Violation(f"I3: a resend was told that {tokens} were settled, and none of them was")

    # -- faults ----------------------------------------------------------------------------------------------------

    def fault(self, victim: str, at: float, until: float) -> None:
        self.faults.append(Fault(victim, at, until))

    # -- the end ---------------------------------------------------------------------------------------------------

    def missing(self, dead: set[str]) -> set[str]:
        """Acknowledged puts that are neither done nor dead."""
        return self.acked - self.results.keys() - dead

    def finish(self, dead: set[str]) -> None:
        """Judge the whole run (I1, I2, I4)."""
        if lost := self.missing(dead):
            raise Violation(f"I1: {len(lost)} acknowledged puts are lost: {sorted(lost)[:5]}")
        if invented := (self.results.keys() | dead) - self.attempted:
            raise Violation(f"I2: invented: {sorted(invented)[:5]}")
        for task, runs in self.runs.items():
            for earlier, later in pairwise(sorted(runs, key=lambda run: run.token)):
                if not self._explains(earlier, later):
                    raise Violation(
                        f"I4: {task!r} was run by {earlier.worker} at {earlier.begun_at:.3f} (token {earlier.token}) "
                        f"and again by {later.worker} at {later.begun_at:.3f} (token {later.token}); no fault hit the first"
                    )

    def _explains(self, earlier: Run, later: Run) -> bool:
        """Whether a fault hit who held the earlier lease; a frozen holder may even begin after the later one did."""
        since, until = sorted((earlier.begun_at, later.begun_at))
        return any(
            fault.victim in ("", earlier.worker) and fault.at <= until and fault.until >= since for fault in self.faults
        )
