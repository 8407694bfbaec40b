"""Calls: the same work by manyhands and by every peer that installs, in turns, and what the machine itself can do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.measure import PROGRAMS, Row, answer, median, start
from benchmarks.peers import broker
from benchmarks.peers.catalog import BY_NAME, OURS, OURS_LOCAL, Entry
from benchmarks.peers.environments import NotInstalled, interpreter, versions
from benchmarks.peers.running import PeerFailed, plan_for, run

Note = Callable[[str], None]
Found = dict[str, list[dict[str, Any]]]
"""For each peer what each of its turns found."""

GROWING = (1, 2, 4, 8)
GROWING_PEERS = (OURS, "stdlib_managers", "mp_pool", "process_pool", "huey")


def calls(runs: int, note: Note, scale: float = 1.0, names: Iterable[str] = tuple(BY_NAME)) -> list[Row]:
    """Everybody's turn, again and again, so that a drift of the machine's speed meets all of them alike."""
    found, absent = {name: [] for name in names}, {}
    limits: dict[str, list[dict[str, Any]]] = {"one core": [], "two cores": [], "hop": [], "relay": []}
    for turn in range(runs):
        limits["one core"].append(answer(start(PROGRAMS / "bare.py", "pingpong", 5_000, 1)))
        limits["two cores"].append(answer(start(PROGRAMS / "bare.py", "pingpong", 5_000, 2)))
        limits["hop"].append(answer(start(PROGRAMS / "bare.py", "hop", 5_000)))
        limits["relay"].append(answer(start(PROGRAMS / "bare.py", "relay", 300)))
        for name in [name for name in found if name not in absent]:
            entry = BY_NAME[name]
            note(f"{entry.title}, {turn + 1} of {runs}")
            try:
                found[name].append(run(entry, plan_for(entry, workers=2, scale=scale)))
            except (NotInstalled, PeerFailed) as error:
                absent[name] = str(error)
                print(f"{entry.title} is not in this run: {error}", file=sys.stderr)
    return rows_of(found, limits, absent)


def rows_of(found: Found, limits: dict[str, list[dict[str, Any]]], absent: dict[str, str]) -> list[Row]:
    hop, relay = limits["hop"], limits["relay"]

    def us(runs: list[dict[str, Any]], key: str) -> float:
        return median([run[key] for run in runs]) * 1e6

    # Placement decides latency: a reply that wakes a process on its own core is several times as fast.
    bare = {
        key: {
            "raw TCP ping-pong": us(limits["two cores"], key),
            "raw TCP ping-pong on one core": us(limits["one core"], key),
            "bare relay": us(hop, key),
        }
        for key in ("p50", "p99")
    }
    mb = {"bare relay": median([run["mb_per_s"] for run in relay])}
    rows = [
        row(found, "submit → result, no-op", "tasks/s", "submit", "per_s", "≥ 100,000/s, 20 × managers, 2 × Pool, 10 × PPE"),
        row(found, "map, no-op", "calls/s", "many", "per_s", "≥ 2,500,000/s, ≥ 1 × Pool"),
        row(found, "map of 10 ms calls, over the ideal", "%", "sleeps", "over", "≤ 3 %", 100.0, less=True),
        row(found, "map of 1 ms and 1 s calls, over the ideal", "%", "mixed", "over", "≤ 10 %", 100.0, less=True),
        row(found, "one call, p50", "µs", "calls", "p50", "≤ 2 × ping-pong", 1e6, less=True, others=bare["p50"]),
        row(found, "one call, p99", "µs", "calls", "p99", "≤ 3 × its p50", 1e6, less=True, others=bare["p99"]),
        row(found, "1 MB, in + out", "MB/s", "megabytes", "mb_per_s", "≥ 1,500 MB/s, ≥ 60 % of the relay", others=mb),
        row(found, "8 MB numpy arrays, in + out", "MB/s", "arrays", "mb_per_s", "likewise", others=mb),
        row(found, "first result from a cold start", "s", "cold", "seconds", "≤ 0.6 s", less=True, ours=OURS_LOCAL),
        memory(found),
        *memory_of_ours(found),
    ]
    rows[0].detail = {
        "found": found,
        "limits": limits,
        "absent": {BY_NAME[name].title: why for name, why in absent.items()},
        "configuration": configurations(found),
        "versions": {name: installed(BY_NAME[name]) for name in found if found[name]},
        "cpu_us": {BY_NAME[name].title: cpu(got) for name, got in found.items() if cpu(got)},
    }
    return rows


def row(
    found: Found,
    name: str,
    unit: str,
    measure: str,
    key: str,
    aim: str,
    factor: float = 1.0,
    *,
    less: bool = False,
    ours: str = OURS,
    others: dict[str, float] | None = None,
) -> Row:
    """The medians of one measure, ours and everybody's who has it. Ours is over TCP, with all the others' beside it."""
    value = {
        BY_NAME[peer].title: median(values) * factor
        for peer, got in found.items()
        if (values := [run[measure][key] for run in got if key in run.get(measure, {})])
    }
    mine = value.pop(BY_NAME[ours].title, 0.0)
    return Row(name, unit, mine, {**value, **(others or {})}, aim, is_less_better=less, who=BY_NAME[ours].title)


def memory(found: Found) -> Row:
    value = {
        BY_NAME[peer].title: median([run["cold"]["memory"]["all"] for run in got]) / 1e6
        for peer, got in found.items()
        if got
    }
    ours = value.pop(BY_NAME[OURS].title, 0.0)
    return Row("memory of all processes after the first result", "MB", ours, value, "≤ 120 MB in all", is_less_better=True)


def memory_of_ours(found: Found) -> list[Row]:
    """Resident memory of each kind of process of ours."""
    rows = []
    for role, aim in (("server", "≤ 45 MB"), ("parent", "≤ 45 MB"), ("child", "≤ 35 MB")):
        values = [resident[role] for run in found.get(OURS, []) if role in (resident := run["cold"]["memory"]["resident"])]
        rows.append(Row(f"resident memory of a {role}", "MB", median(values) / 1e6, {}, aim, is_less_better=True))
    return rows


def cpu(got: list[dict[str, Any]]) -> dict[str, float]:
    """Microseconds of processor time for a submitted no-op, by kind of process: what to improve next."""
    each = [run["submit"]["cpu_us"] for run in got if "cpu_us" in run.get("submit", {})]
    return {
        role: round(median([one.get(role, 0.0) for one in each]), 2) for role in sorted({r for one in each for r in one})
    }


def configurations(found: Found) -> dict[str, str]:
    said = {BY_NAME[name].title: str(got[0]["configuration"]) for name, got in found.items() if got}
    if any(BY_NAME[name].needs_broker for name in found):
        said["their Redis"] = broker.CONFIGURATION
    return said


def installed(entry: Entry) -> list[str]:
    """What its environment holds, to the last version."""
    return versions(interpreter(entry.name, entry.requirements)).split() if entry.requirements else []


def growing(runs: int, note: Note, scale: float = 1.0) -> list[Row]:
    """Processor time and rate of a task while the workers grow from 1 to 8 (on few cores: what more workers cost)."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for workers in GROWING:
        for name in GROWING_PEERS:
            entry = BY_NAME[name]
            note(f"{entry.title} with {workers} workers")
            plan = {"workers": workers, "submit": max(100, int(entry.plan["submit"] * scale / 2))}
            try:
                turns = [run(entry, plan) for _ in range(max(1, runs // 2))]
            except (NotInstalled, PeerFailed) as error:
                print(f"{entry.title} with {workers} workers: {error}", file=sys.stderr)
                continue
            measured = [turn["submit"] for turn in turns if "per_s" in turn["submit"]]
            if measured:
                found.setdefault(entry.title, {})[str(workers)] = {
                    "per_s": median([each["per_s"] for each in measured]),
                    "cpu_us": median([sum(each["cpu_us"].values()) for each in measured]),
                }
    cost = {
        title: points["8"]["cpu_us"] / points["1"]["cpu_us"]
        for title, points in found.items()
        if {"1", "8"} <= points.keys() and points["1"]["cpu_us"]
    }
    ours = cost.pop(BY_NAME[OURS].title, 0.0)
    aim = "processor time for a task with 8 workers ÷ with 1"
    return [Row("cost per task, 8 workers ÷ 1", "×", ours, cost, aim, is_less_better=True, detail={"growing": found})]
