"""`manyhands bench`: figures of a server of its own or of another, and no process left behind."""

from __future__ import annotations

import json

import pytest

import manyhands as mh
from cli.conftest import Command
from conftest import Start
from manyhands.cli import bench
from manyhands.cli.exits import Exit

FIGURES = ("first_result_ms", "call_p50_us", "call_p99_us", "submit_per_s", "map_per_s", "mb_per_s")


@pytest.mark.programs
def test_bench_measures_a_cluster_of_its_own_and_ends_it(start: Start) -> None:
    measuring = start("bench", "-m", "manyhands", "bench", "--seconds", "0.2", "--concurrency", "1", "--json")
    measuring.ends_quietly()
    found = json.loads(measuring.out)
    assert all(found[key] > 0 for key in FIGURES)
    assert found["call_p99_us"] >= found["call_p50_us"]
    assert found["process_pool_executor"].keys() == set(FIGURES)
    with pytest.raises(mh.ServerUnavailable):
        mh.connect(found["url"], "any key", timeout_s=0.1).close()


def test_bench_shows_people_a_table_of_the_server_they_named(
    server: mh.Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = [bench.Figure("submit_per_s", "submit → result", 123456.7, "calls/s")]
    monkeypatch.setattr(bench, "measure", lambda executor, seconds: figures)
    shown = command("bench", "--url", server.url, "--alone")
    assert shown.code == 0
    assert server.url in shown.out
    assert "123,457 calls/s" in " ".join(shown.out.split())


def test_a_line_says_how_many_times_better_ours_is_whichever_way_better_is() -> None:
    rate = bench.Figure("submit_per_s", "submit", 200.0, "calls/s")
    time = bench.Figure("call_p50_us", "one call", 50.0, "µs", is_less_better=True)
    beside = {"submit_per_s": 100.0, "call_p50_us": 100.0}
    assert bench.row(rate, beside) == ["submit", "200", "100", "2.0", "calls/s"]
    assert bench.row(time, beside) == ["one call", "50.00", "100", "2.0", "µs"]
    assert bench.row(rate, {}) == ["submit", "200", "calls/s"]


def test_bench_says_what_to_start_when_no_worker_takes_a_call(
    server: mh.Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "START_S", 0.05)
    answer = command("bench", "--alone", "--url", server.url, "--queue", "empty")
    assert answer.code == Exit.CANNOT_CONNECT
    assert "No worker took a call" in answer.err
    assert "manyhands worker" in answer.err


def test_a_rate_is_of_what_was_done_and_the_best_of_its_turns() -> None:
    asked: list[int] = []

    def job(n: int) -> int:
        asked.append(n)
        return sum(1 for _ in range(n * 1_000)) // 1_000

    rate = bench.best_of(job, 0.05, first=3)
    assert asked[0] == 3
    assert asked[1] == 6, "a turn that took a small part of the time is followed by one with twice the work"
    assert rate > 0
