"""The simulation holds every promise over many seeds, and breaks the right one for each planted bug."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from manyhands.lifecycle import replay
from manyhands.lifecycle.changes import Change, Marked
from manyhands.lifecycle.marks import Mark
from manyhands.lifecycle.replay import Replay
from manyhands.testing.simulation import Violation, World
from manyhands.wire import ClientWire

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
SEEDS = int(os.environ.get("MANYHANDS_SIMULATION_SEEDS", "50000" if IS_NIGHTLY else "300"))
TWICE = ("I3", "I4", "I6")
"""What a message that is there twice breaks, depending on which of the two is finished first."""
FIRST = int(os.environ.get("MANYHANDS_SIMULATION_FIRST", "1"))


def first_violation(make: Callable[[int], World], seeds: int) -> str:
    """What the first red seed says; "" when all are green."""
    for seed in range(1, seeds + 1):
        try:
            make(seed).run()
        except Violation as violation:
            return str(violation)
    return ""


def test_every_promise_holds_for_every_seed() -> None:
    faults: dict[str, int] = {}
    runs = tasks = 0
    for seed in range(FIRST, FIRST + SEEDS):
        world = World(seed)
        try:
            report = world.run()
        except Violation as violation:
            pytest.fail(
                f"seed {seed}: {violation}\nrepeat: python -m manyhands.testing.simulation --seed {seed}\n"
                + world.schedule.trace()
            )
        runs, tasks = runs + report.runs, tasks + report.tasks
        for name, n in report.faults.items():
            faults[name] = faults.get(name, 0) + n
    print(f"{SEEDS} seeds from {FIRST}: {tasks} tasks, {runs} runs, faults {faults}")
    assert len(faults) == 9, "some kind of fault was never made"
    assert runs > tasks, "no fault ever repeated a task: they are too gentle to prove anything"


def test_the_same_seed_is_the_same_run() -> None:
    def trace() -> tuple[str, int]:
        world = World(7, faults=8)
        report = world.run()
        return world.schedule.trace(), report.steps

    assert trace() == trace()


def test_undisturbed_every_task_runs_once() -> None:
    report = World(3, faults=0, tasks_each=200).run()
    assert report.dead == 0
    assert report.runs - report.tasks <= report.tasks * 0.05, "only the workers' own nacks may repeat a task"


# -- a checker that has never been red proves nothing --------------------------------------------------------------


def test_no_fencing_is_found() -> None:
    program = [sys.executable, "-m", "manyhands.testing.simulation", "--seeds", "3000"]
    ended = subprocess.run(
        program, env=os.environ | {"MANYHANDS_PLANT": "no_fencing"}, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "I3: the stale token" in ended.stdout


class ForgetfulWire(ClientWire):
    """Does not send again what was unanswered when the connection broke."""

    def connection_lost(self, now: float) -> None:
        super().connection_lost(now)
        self._unanswered.clear()


def test_a_wire_that_forgets_what_was_unanswered_is_found() -> None:
    violation = first_violation(lambda seed: World(seed, make_wire=ForgetfulWire, faults=6), 100)
    assert violation.startswith("I8"), violation or "not found"


def test_watermarks_that_recognise_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mark, "is_new", lambda self, seq, floor: True)
    violation = first_violation(lambda seed: World(seed, faults=12), 200)
    assert violation.startswith(TWICE), violation or "not found"


def test_watermarks_that_are_lost_at_a_restart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(replay._RULES, Marked, lambda self, change: None)
    violation = first_violation(lambda seed: World(seed, faults=12), 300)
    assert violation.startswith(TWICE), violation or "not found"


def test_a_disk_that_lies_about_its_last_commits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    apply = Replay.apply

    def late(self: Replay, changes: Iterable[Change]) -> None:
        cache: list[Change] = self.__dict__.setdefault("cache", [])
        cache.extend(changes)
        if len(cache) > 40:
            apply(self, cache)
            cache.clear()

    def snapshot(self: Replay) -> Any:
        self.__dict__.setdefault("cache", []).clear()
        return original(self)

    original = Replay.snapshot
    monkeypatch.setattr(Replay, "apply", late)
    monkeypatch.setattr(Replay, "snapshot", snapshot)
    assert first_violation(lambda seed: World(seed, faults=12), 100), "not found"
