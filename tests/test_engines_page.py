"""docs/engines.md: its tables are what the engines declare, what the contract holds and what the calculation says."""

from __future__ import annotations

import pytest
from benchmarks import engine_page, sizing

from manyhands.model import Features
from manyhands.testing.contract import EngineContract

pytest.importorskip("redis", reason="the page reads what each engine declares, its driver included")
pytest.importorskip("nats", reason="the page reads what each engine declares, its driver included")


def test_the_page_s_tables_are_what_a_run_of_their_script_writes() -> None:
    text = engine_page.PAGE.read_text(encoding="utf-8")
    assert text == engine_page.render(text), "run: python -m benchmarks.engine_page --write"


def test_every_feature_and_every_part_of_the_contract_has_a_line() -> None:
    assert list(engine_page.MEANING) == list(Features.__struct_fields__)
    parts = [each.__name__ for each in EngineContract.__bases__]
    assert set(engine_page.PARTS) == set(parts), "a part of the suite without a line, or a line without its part"
    table = engine_page.promises()
    assert all(f"| {line} |" in table for line in [*engine_page.MEANING.values(), *engine_page.PARTS.values()])


def test_what_an_engine_does_not_offer_is_not_counted_as_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        engine_page, "declared", lambda: {"all": Features(survives_restart=True), "few": Features(bounded=False)}
    )
    (line,) = [line for line in engine_page.promises().splitlines() if line.startswith("| bounds and backpressure")]
    everything, few = line.split("|")[2:4]
    assert " of " not in everything
    assert int(few.split(" of ")[0]) < int(everything)


def test_a_billion_messages_a_day_and_ten_thousand_workers() -> None:
    load = sizing.Load(1e9, 10_000)
    redis, nats = sizing.size(load), sizing.size(load, "nats")
    assert redis.mean_per_s == pytest.approx(11_574, abs=1)
    assert redis.spaces == 4
    assert redis.peak_per_s <= redis.spaces * sizing.SPACE_PER_S["redis"]
    assert (redis.programs, redis.connections, nats.connections) == (1_250, 2_500, 1_250)
    assert redis.backlog_bytes == pytest.approx(29.2e9, rel=0.01)
    assert nats.backlog_bytes == pytest.approx(3 * redis.backlog_bytes)


def test_sizes_grow_with_the_load_and_never_vanish() -> None:
    small, large = sizing.size(sizing.Load(1, 1)), sizing.size(sizing.Load(1e10, 100_000, children=4))
    assert (small.spaces, small.programs, small.connections) == (1, 1, 2)
    assert small.is_within_connections
    assert not large.is_within_connections
    assert large.spaces > 30
