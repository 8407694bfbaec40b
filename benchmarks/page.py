"""docs/benchmarks.md and its charts, written from one run's rows and nothing else."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.measure import Row
from benchmarks.peers.catalog import BY_NAME, OURS

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
LIMITS = frozenset({"raw TCP ping-pong", "raw TCP ping-pong on one core", "bare relay", "socket + fdatasync loop"})
TITLE = BY_NAME[OURS].title
CHARTS = {
    "submit": "submit → result, no-op",
    "map": "map, no-op",
    "latency": "one call, p50",
    "megabyte": "1 MB, in + out",
    "arrays": "8 MB numpy arrays, in + out",
    "start": "first result from a cold start",
    "memory": "memory of all processes after the first result",
}
INTRO = """# Benchmarks

`make bench` measures manyhands beside every peer that installs, in one run on one machine in which everybody takes turns,
and writes this page. Ratios are what counts; the absolute figures are this machine's. `python -m benchmarks --quick` gives
a first look in a few minutes; `manyhands bench` measures a server of your own. The figures of every day are kept in
[benchmarks/results/](../benchmarks/results/README.md).
"""


def newest() -> dict[str, Any] | None:
    """The newest full run that was kept."""
    for path in sorted(RESULTS.glob("*.json"), reverse=True):
        for run in reversed(json.loads(path.read_text(encoding="utf-8"))):
            if run.get("is_full"):
                return dict(run)
    return None


def rows_in(run: dict[str, Any]) -> list[Row]:
    known = {each.name for each in fields(Row)}
    return [Row(**{key: value for key, value in row.items() if key in known}) for row in run["rows"]]


def render(run: dict[str, Any]) -> dict[str, str]:
    """What each file of the page holds, by its path from docs/."""
    rows, machine = rows_in(run), run["machine"]
    by_name = {row.name: row for row in rows}
    files, body = {}, [INTRO]
    body.append(
        f"Written on {run['at'][:16].replace('T', ' ')} UTC: {machine['cores']} cores ({machine['processor']}), "
        f"CPython {machine['python']}, {machine['system']}, load {machine.get('load', 0.0)} before it began. "
        "Two workers, one producer that collects all results; over TCP, bodies signed and leases on for manyhands.\n"
    )
    for name, chosen in CHARTS.items():
        row = by_name.get(chosen)
        if row is None:
            continue
        values = {TITLE: row.ours, **row.others}
        svg = charts.bars(row.name, row.unit, values, ours=TITLE, limits=LIMITS, less=row.is_less_better)
        if svg:
            files[f"benchmarks/{name}.svg"] = svg
            body.append(f"![{row.name}](benchmarks/{name}.svg)\n")
    for name, row, series, labels in _growths(rows):
        files[f"benchmarks/{name}.svg"] = charts.lines(row.name, *labels, series, log_up=True)
        body.append(f"![{row.name}](benchmarks/{name}.svg)\n")
    body += [
        "## All rows\n",
        "× is how many times better manyhands is than that peer; below 1 is worse.\n",
        _table(rows),
        "",
    ]
    body += _details(rows)
    files["benchmarks.md"] = "\n".join(body).rstrip() + "\n"
    return files


def write(run: dict[str, Any]) -> None:
    folder = DOCS / "benchmarks"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for path, text in render(run).items():
        (DOCS / path).write_text(text, encoding="utf-8")


Growth = tuple[str, Row, dict[str, list[tuple[float, float]]], tuple[str, str]]


def _growths(rows: list[Row]) -> list[Growth]:
    found: list[Growth] = []
    for row in rows:
        if growing := row.detail.get("growing"):
            series = {
                title: [(float(n), point["cpu_us"]) for n, point in points.items()] for title, points in growing.items()
            }
            found.append(("workers", row, series, ("number of workers", "µs of processor time for a task, logarithmic")))
        if points := row.detail.get("points"):
            waiting = [point for point in points if point["backlog"]]
            series = {
                "put": [(point["backlog"], point["put_us"]) for point in waiting],
                "get": [(point["backlog"], point["get_us"]) for point in waiting],
            }
            found.append(("backlog", row, series, ("messages waiting", "µs for one, in batches, logarithmic")))
    return found


def beside(row: Row) -> list[str]:
    """Each peer's figure, and how many times better ours is."""
    return [f"{name}: {charts.number(value)} (× {charts.number(row.ratio(name))})" for name, value in row.others.items()]


def _table(rows: list[Row]) -> str:
    lines = ["| What | manyhands | Peers, same run | Aim |", "|---|---|---|---|"]
    for row in rows:
        peers = "<br>".join(
            f"{name}: {charts.number(value)} (× {row.ratio(name):.2f})" for name, value in row.others.items()
        )
        lines.append(f"| {row.name} | {charts.number(row.ours)} {row.unit} | {peers} | {row.aim} |")
    return "\n".join(lines)


def _details(rows: list[Row]) -> list[str]:
    detail = next((row.detail for row in rows if "configuration" in row.detail), None)
    if detail is None:
        return []
    body = ["## Where the processor time goes\n", "Microseconds for a submitted no-op, in all processes of a kind.\n"]
    body += ["| | |", "|---|---|"]
    body += [
        f"| {name} | {', '.join(f'{role} {us:,.0f}' for role, us in cpu.items())} |"
        for name, cpu in detail["cpu_us"].items()
    ]
    body += ["", "## How each is set up\n", "| | |", "|---|---|"]
    body += [f"| {name} | {said} |" for name, said in detail["configuration"].items()]
    body += ["", "What each environment held, to the last version, is in the dated results.", ""]
    if detail["absent"]:
        body += ["Not in this run:\n", *(f"* {name}: {why.splitlines()[0]}" for name, why in detail["absent"].items()), ""]
    return body


def main() -> None:
    """python -m benchmarks.page: write the page again from the newest full run."""
    if run := newest():
        write(run)


if __name__ == "__main__":
    main()
