"""One simulated run: the parts, the faults that a seed chooses, and the judgement."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from manyhands.auth import Keyring
from manyhands.model import Limits
from manyhands.testing.simulation import programs
from manyhands.testing.simulation.checker import Checker, Violation
from manyhands.testing.simulation.clients import Program, SimClient
from manyhands.testing.simulation.network import Link, Network
from manyhands.testing.simulation.programs import Journal
from manyhands.testing.simulation.schedule import Schedule
from manyhands.testing.simulation.server import Disk, SimServer
from manyhands.wire import ClientWire

LIMITS = Limits(lease_s=10.0, heartbeat_s=2.0, resume_s=1.0)
DRAIN_S = 90.0
"""After the last fault everything must be done within this: the longest silence (a half-open connection, a frozen program's
lease), the longest backoff, and the work itself."""


class Report(msgspec.Struct):
    """What one run was."""

    seed: int
    steps: int
    virtual_s: float
    tasks: int
    dead: int
    runs: int
    faults: dict[str, int]


class World:
    """A server, producers, workers, one collector, and what happens to them."""

    def __init__(
        self,
        seed: int,
        *,
        make_wire: Callable[..., ClientWire] = ClientWire,
        faults: int | None = None,
        tasks_each: int | None = None,
    ) -> None:
        """Choose the run.

        Args:
            make_wire: what to use as ClientWire, so that a test can plant a bug.
            faults: how many to make; None lets the seed choose, and every tenth seed has none.
            tasks_each: for each producer.
        """
        self.schedule = Schedule(seed)
        rng = self.schedule.rng
        self.network = Network(self.schedule)
        self.checker = Checker()
        self.disk = Disk()
        self.made: dict[str, int] = {}
        self._keyring = Keyring(b"simulated key")
        self._make_wire = make_wire
        self._server = SimServer(self.schedule, self.network, self._keyring, LIMITS, self.checker, self.disk)
        self._faults_left = faults if faults is not None else (0 if seed % 10 == 0 else rng.randint(1, 12))
        self._last_fault_ends = 0.0
        self._bound = rng.choice((0, 0, 3, 20))
        self._work_s = rng.choice((0.0002, 0.002, 0.05, 0.5))
        self._pause_s = rng.choice((0.01, 0.1, 1.0))
        total = tasks_each if tasks_each is not None else rng.randint(5, 40)
        self._journals = {f"p{n}": Journal(total) for n in range(rng.randint(1, 4))}
        self._makers: dict[str, Callable[[SimClient], Program]] = {"collector": self._collector}
        for name in self._journals:
            self._makers[name] = self._producer(name)
        for n in range(rng.randint(1, 6)):
            self._makers[f"w{n}"] = lambda client: programs.worker(client, self.checker, rng, self._work_s)
        self.clients: dict[str, SimClient] = {}

    def _producer(self, name: str) -> Callable[[SimClient], Program]:
        journal = self._journals[name]
        return lambda client: programs.producer(
            client, name, journal, self.checker, self.schedule.rng, self._bound, self._pause_s
        )

    def _collector(self, client: SimClient) -> Program:
        return programs.collector(client, self.checker, self.schedule.rng)

    # -- the run ---------------------------------------------------------------------------------------------------

    def run(self, max_steps: int = 1_000_000) -> Report:
        """Run until everything is drained, or raise the Violation that a promise's breach is."""
        schedule = self.schedule
        begun_at = schedule.mono
        self._server.start()
        for name in self._makers:
            self._start(name)
        if self._faults_left:
            schedule.after(schedule.rng.uniform(0.0, 0.5), self._make_fault)
        drained_by = None
        while not self._is_drained():
            if not schedule.step() or schedule.steps > max_steps:
                raise Violation(f"I8: stuck after {schedule.steps} steps: {self._left()}")
            if not self._faults_left and drained_by is None:
                drained_by = (
                    max(schedule.mono, self._last_fault_ends) + DRAIN_S + (self._work_s * 2 + self._pause_s) * self._total()
                )
            if drained_by is not None and schedule.mono > drained_by:
                raise Violation(f"I8: not drained {DRAIN_S} s after the last fault: {self._left()}")
        dead = self._dead()
        self.checker.finish(dead)
        return Report(
            seed=schedule.seed,
            steps=schedule.steps,
            virtual_s=schedule.mono - begun_at,
            tasks=self._total(),
            dead=len(dead),
            runs=sum(len(runs) for runs in self.checker.runs.values()),
            faults=self.made,
        )

    def _total(self) -> int:
        return sum(journal.total for journal in self._journals.values())

    def _is_drained(self) -> bool:
        if self._faults_left or len(self.checker.acked) < self._total() or not self._server.is_up:
            return False
        return not (missing := self.checker.missing(set())) or missing <= self._dead()

    def _dead(self) -> set[str]:
        """The tasks among the dead letters, as an administrator would see them."""
        return {programs.name_in(body) for body in self._server.dead(programs.TASKS)}

    def _left(self) -> str:
        missing = self.checker.missing(self._dead() if self._server.is_up else set())
        return (
            f"{len(self.checker.acked)} of {self._total()} puts acknowledged, {len(missing)} of them without a result: "
            f"{sorted(missing)[:5]}"
        )

    def _start(self, name: str) -> None:
        self.clients[name] = SimClient(
            self.schedule, self.network, self._keyring, LIMITS, name, self._makers[name], self._make_wire
        )

    # -- faults ----------------------------------------------------------------------------------------------------

    def _make_fault(self) -> None:
        rng = self.schedule.rng
        faults: list[Callable[[], float]] = [
            self._crash_client,
            self._crash_client,
            self._freeze_client,
            self._crash_server,
            self._crash_server_at_commit,
            self._crash_server_at_commit,
            self._cut,
            self._cut,
            self._cut_at_byte,
            self._cut_at_byte,
            self._stall,
            self._slow_disk,
            self._freeze_server,
        ]
        make = rng.choice(faults)
        name = make.__name__.strip("_")
        self.made[name] = self.made.get(name, 0) + 1
        until = make()
        self._last_fault_ends = max(self._last_fault_ends, until)
        self._faults_left -= 1
        if self._faults_left:
            self.schedule.after(rng.choice((0.001, 0.05, 0.3, 2.0, 15.0)) * rng.random() * 2, self._make_fault)

    def _fault(self, victim: str, lasts_s: float) -> float:
        """Note it for the checker; until when it is felt."""
        now = self.schedule.mono
        # What it breaks may be noticed only after a silence: a half-open connection, a frozen holder.
        until = now + lasts_s + LIMITS.lease_s
        self.checker.fault(victim, now, until)
        self.schedule.note(f"fault: {victim or 'everybody'} for {lasts_s:.2f} s")
        return now + lasts_s

    def _pick(self) -> str:
        return self.schedule.rng.choice(list(self._makers))

    def _pick_victim(self) -> str:
        """Whom to kill."""
        return self._pick()

    def _crash_client(self) -> float:
        name = self._pick_victim()
        if self.clients[name].is_over:
            return 0.0
        self.clients[name].crash()
        again_s = self.schedule.rng.choice((0.01, 0.5, 3.0))
        self.schedule.after(again_s, lambda: self._start(name))
        return self._fault(name, again_s)

    def _freeze_client(self) -> float:
        name = self._pick()
        seconds = self.schedule.rng.choice((0.5, LIMITS.lease_s / 2, LIMITS.lease_s * 2))
        if not self.clients[name].is_over:
            self.clients[name].freeze(seconds)
        return self._fault(name, seconds)

    def _crash_server(self) -> float:
        if not self._server.is_up:
            return 0.0
        self._server.crash()
        again_s = self.schedule.rng.choice((0.01, 0.5, 3.0, LIMITS.lease_s * 2))
        self.schedule.after(again_s, self._server.start)
        return self._fault("", again_s)

    def _crash_server_at_commit(self) -> float:
        if not self._server.is_up:
            return 0.0
        again_s = self.schedule.rng.choice((0.01, 0.5, 3.0))
        self.checker.fault("", self.schedule.mono, float("inf"))  # who knows when the next commit is

        def start_again() -> None:
            self.schedule.after(again_s, self._server.start)

        self._server.crash_at_commit(start_again, is_stored=self.schedule.rng.random() < 0.7)
        return self.schedule.mono + again_s

    def _freeze_server(self) -> float:
        seconds = self.schedule.rng.choice((0.3, 3.0, LIMITS.lease_s * 2))
        self._server.freeze(seconds)
        return self._fault("", seconds)

    def _slow_disk(self) -> float:
        self.disk.commit_s = self.schedule.rng.choice((0.01, 0.2, 2.0))
        seconds = self.schedule.rng.uniform(0.1, 5.0)

        def heal() -> None:
            self.disk.commit_s = 0.0005

        self.schedule.after(seconds, heal)
        return self._fault("", seconds + 2.0)

    def _some_links(self) -> list[Link]:
        """One connection, or now and then all of them: a switch that dies."""
        links = self.network.links()
        if not links or self.schedule.rng.random() < 0.1:
            return links
        return [self.schedule.rng.choice(links)]

    def _cut(self) -> float:
        for link in self._some_links():
            link.cut(keep_in_flight=self.schedule.rng.random() < 0.5)
            self._fault(link.name.partition("#")[0], 10.0)
        return self.schedule.mono + 10.0

    def _cut_at_byte(self) -> float:
        for link in self._some_links():
            towards = self.schedule.rng.choice((link.client, link.server))
            link.cut_at_byte(towards, self.schedule.rng.choice((0, 1, 7, 60, 300, 2000, 300_000)))
            # It may take long until so many bytes have passed.
            self.checker.fault(link.name.partition("#")[0], self.schedule.mono, float("inf"))
        return self.schedule.mono + 10.0

    def _stall(self) -> float:
        seconds = self.schedule.rng.choice((0.5, 3.0, LIMITS.lease_s * 2))
        for link in self._some_links():
            link.stall(seconds)
            self._fault(link.name.partition("#")[0], seconds)
        return self.schedule.mono + seconds
