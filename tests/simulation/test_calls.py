"""The simulation of calls holds every promise over many seeds, and breaks the right one for each planted bug."""

from __future__ import annotations

import os
from typing import Any

import pytest

from manyhands.events import Collected
from manyhands.lifecycle import replay, streams
from manyhands.lifecycle.changes import Cut, Marked, ResultKept
from manyhands.lifecycle.marks import Mark
from manyhands.testing.simulation import Violation
from manyhands.testing.simulation.calls import CallsWorld
from manyhands.wire import ClientWire

SEEDS = 20_000 if os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly" else 60


def first_violation(seeds: int, **how: Any) -> str:
    """What the first red seed says; "" when all are green."""
    for seed in range(1, seeds + 1):
        try:
            CallsWorld(seed, **how).run()
        except Violation as violation:
            return str(violation)
    return ""


def test_every_call_ends_once_for_every_seed() -> None:
    crashed = faults = 0
    for seed in range(1, SEEDS + 1):
        world = CallsWorld(seed)
        try:
            world.run()
        except Violation as violation:
            pytest.fail(f"seed {seed}: {violation}\n{world.schedule.trace()}")
        crashed += sum(one.code == "worker_crashed" for one in world.ends.ended.values())
        faults += sum(world.made.values())
    assert faults > SEEDS, "too few faults to prove anything"
    assert crashed, "no worker ever died with a call that may run once"


def test_undisturbed_every_call_has_its_result() -> None:
    world = CallsWorld(3, faults=0, total=200)
    world.run()
    assert {one.code for one in world.ends.ended.values()} == {""}


# -- a checker that has never been red proves nothing --------------------------------------------------------------


class ForgetfulWire(ClientWire):
    """Does not send again what was unanswered when the connection broke."""

    def connection_lost(self, now: float) -> None:
        super().connection_lost(now)
        self._unanswered.clear()


def test_a_wire_that_forgets_what_was_unanswered_is_found() -> None:
    assert first_violation(100, make_wire=ForgetfulWire, faults=6).startswith("I8")


def test_watermarks_that_recognise_nothing_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Mark, "is_new", lambda self, seq, floor: True)
    assert first_violation(200, faults=12)[:2] in ("C1", "C2", "I3", "I6", "I8")


def test_an_engine_that_forgets_results_when_it_sends_them_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    collected = streams._collected

    def forgetful(stream: streams.Stream, rid: int, ack: int) -> Collected:
        reply = collected(stream, rid, ack)
        stream.ended.clear()
        return reply

    monkeypatch.setattr(streams, "_collected", forgetful)
    assert first_violation(100, faults=6).startswith("I8")


@pytest.mark.parametrize(
    ("change", "breaks"),
    [(ResultKept, "I8"), (Cut, "C"), (Marked, "")],
    ids=["results", "how far a pack came", "watermarks"],
)
def test_what_a_store_forgets_of_calls_is_found(monkeypatch: pytest.MonkeyPatch, change: type, breaks: str) -> None:
    monkeypatch.setitem(replay._RULES, change, lambda self, forgotten: None)
    violation = first_violation(300, faults=12)
    assert violation
    assert violation.startswith(breaks)
