"""A queue as a person would explain it: every message in one dictionary, every rule one line. No speed, no cleverness."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Known:
    """One message as the oracle sees it."""

    queue: str
    n: int
    priority: int
    max_deliveries: int
    place: str = "ready"  # ready, delayed, leased, done, dead
    turn: int = 0
    due_at: float = 0.0
    put_due_at: float = 0.0
    not_before: float = 0.0  # when given back, where a restart found it leased before its time as the clock has it
    deliveries: int = 0
    is_head: bool = False
    is_suspect: bool = False
    holder: str = ""
    token: int = 0
    is_begun: bool = True


class Oracle:
    def __init__(self, resume_s: float, lease_s: float, bounds: dict[str, int]) -> None:
        self.resume_s, self.lease_s, self.bounds = resume_s, lease_s, bounds
        self.messages: dict[str, Known] = {}
        self.heard: dict[str, float] = {}  # connected session: when last heard
        self.away: dict[str, float] = {}  # session without connection: when its leases return
        self.unfinished: dict[str, int] = {}
        self.turns = 0

    def at(self, queue: str, *places: str) -> list[Known]:
        return [m for m in self.messages.values() if m.queue == queue and m.place in places]

    def size(self, queue: str) -> int:
        return len(self.at(queue, "ready", "delayed")) + sum(not m.is_begun for m in self.at(queue, "leased"))

    def turn(self) -> int:
        self.turns += 1
        return self.turns

    def put(self, queue: str, ids: list[str], priority: int, due_at: float, max_deliveries: int, wall: float) -> bool:
        """False: no room for all, so none was put."""
        if self.bounds.get(queue) and self.size(queue) + len(ids) > self.bounds[queue]:
            return False
        for one in ids:
            place = "delayed" if due_at > wall else "ready"
            self.messages[one] = Known(queue, self.turn(), priority, max_deliveries, place, self.turn(), due_at, due_at)
        self.unfinished[queue] = self.unfinished.get(queue, 0) + len(ids)
        return True

    def promote(self, wall: float) -> None:
        for m in sorted(self.messages.values(), key=lambda m: (m.due_at, m.n)):
            if m.place == "delayed" and m.due_at <= wall:
                m.place, m.turn = "ready", self.turn()
                m.is_head = m.deliveries > 0 or m.is_suspect

    def next(self, queue: str, max_n: int) -> list[str]:
        """Which ids a lease must hand out: given back ones first by age, then by priority and arrival; suspects alone."""
        ready = [(one, m) for one, m in self.messages.items() if m.queue == queue and m.place == "ready"]
        ready.sort(key=lambda pair: (0, pair[1].n) if pair[1].is_head else (1, -pair[1].priority, pair[1].turn))
        if ready and ready[0][1].is_suspect:
            return [ready[0][0]]
        first_suspect = next((i for i, (_, m) in enumerate(ready) if m.is_suspect), len(ready))
        return [one for one, _ in ready[: min(max_n, first_suspect)]]

    def lease(self, session: str, token: int, one: str, is_begun: bool) -> Known:
        m = self.messages[one]
        m.place, m.holder, m.token, m.deliveries = "leased", session, token, m.deliveries + 1
        m.is_begun = is_begun or m.is_suspect
        return m

    def held(self, session: str, token: int) -> Known | None:
        found = [m for m in self.messages.values() if m.place == "leased" and m.holder == session and m.token == token]
        return found[0] if found else None

    def ack(self, m: Known, is_task_done: bool) -> None:
        m.place = "done"
        if is_task_done:
            self.unfinished[m.queue] = max(0, self.unfinished[m.queue] - 1)

    def leave(self, m: Known) -> None:
        m.place = "gone"
        self.unfinished[m.queue] = max(0, self.unfinished[m.queue] - 1)

    def bury(self, m: Known) -> None:
        m.place = "dead"
        self.unfinished[m.queue] = max(0, self.unfinished[m.queue] - 1)

    def give_back(self, m: Known, wall: float, *, is_charged: bool, is_suspect: bool, due_at: float = 0.0) -> None:
        if is_charged and m.deliveries >= m.max_deliveries:
            self.bury(m)
            return
        m.deliveries -= not is_charged
        if m.not_before > wall:
            due_at = max(due_at, m.not_before)
        m.not_before = 0.0
        m.is_suspect, m.is_head, m.due_at = is_suspect, True, due_at
        m.place = "delayed" if due_at else "ready"

    def lose(self, session: str, wall: float) -> None:
        for m in self.messages.values():
            if m.place == "leased" and m.holder == session:
                self.give_back(m, wall, is_charged=m.is_begun, is_suspect=True)

    def pass_time(self, mono: float, wall: float) -> None:
        for session in [s for s, heard in self.heard.items() if mono >= heard + self.lease_s]:
            self.lose(session, wall)
        for session in [s for s, until in self.away.items() if mono >= until]:
            self.lose(session, wall)
        self.promote(wall)

    def restart(self, mono: float, wall: float) -> None:
        for session in [*self.heard, *self.away]:
            self.away[session] = mono + self.lease_s
        self.heard.clear()
        for m in sorted(self.messages.values(), key=lambda m: m.n):
            m.is_begun = m.is_begun or m.place == "leased"
            m.is_head = m.deliveries > 0 or m.is_suspect
            m.turn = m.n if m.place == "ready" else m.turn
            due_at = m.due_at or m.put_due_at
            if m.place == "ready" and due_at > wall:  # the clock was set back since it was due
                m.place, m.due_at = "delayed", due_at
            if m.place == "leased" and m.put_due_at > wall:  # nobody wrote down whether it was due when it was leased
                m.not_before = m.put_due_at

    def summary(self, queue: str) -> dict[str, Any]:
        leased = self.at(queue, "leased")
        return {
            "ready": len(self.at(queue, "ready")),
            "delayed": len(self.at(queue, "delayed")),
            "leased": len(leased),
            "unbegun": sum(not m.is_begun for m in leased),
            "dead": len(self.at(queue, "dead")),
            "unfinished": self.unfinished.get(queue, 0),
        }
