"""docs/benchmarks.md and its charts, written from one run's rows and nothing else."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

from benchmarks import charts
from benchmarks.measure import Row
from benchmarks.peers.catalog import BY_NAME, OURS, OURS_LOCAL

RESULTS = Path(__file__).parent / "results"
DOCS = Path(__file__).parents[1] / "docs"
LIMITS = frozenset({"raw TCP ping-pong", "raw TCP ping-pong on one core", "bare relay", "socket + fdatasync loop"})
TITLE = BY_NAME[OURS].title
OUR_TITLES = frozenset({TITLE, BY_NAME[OURS_LOCAL].title})
CHARTS = {
    "submit": "submit → result, no-op",
    "map": "map, no-op",
    "latency": "one call, p50",
    "megabyte": "1 MB, in + out",
    "arrays": "8 MB numpy arrays, in + out",
    "start": "first result from a cold start",
    "memory": "memory of all processes after the first result",
}
HEADS = {
    "submit → result, no-op": "submit → result",
    "map, no-op": "map",
    "map of 10 ms calls, over the ideal": "10 ms calls, over the ideal",
    "map of 1 ms and 1 s calls, over the ideal": "1 ms and 1 s calls, over the ideal",
    "one call, p50": "one call, p50",
    "one call, p99": "p99",
    "1 MB, in + out": "1 MB in + out",
    "8 MB numpy arrays, in + out": "8 MB arrays in + out",
    "first result from a cold start": "first result",
    "memory of all processes after the first result": "memory in all",
}
"""The rows that most peers are in; the page has them as columns."""
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
        values = {row.who or TITLE: row.ours, **row.others}
        svg = charts.bars(row.name, row.unit, values, ours=OUR_TITLES, limits=LIMITS, less=row.is_less_better)
        if svg:
            files[f"benchmarks/{name}.svg"] = svg
            body.append(f"![{row.name}](benchmarks/{name}.svg)\n")
    for name, row, series, labels in _growths(rows):
        files[f"benchmarks/{name}.svg"] = charts.lines(row.name, *labels, series, log_up=True)
        body.append(f"![{row.name}](benchmarks/{name}.svg)\n")
    crowded = [row for row in rows if row.name in HEADS]
    if crowded:
        body += ["## Everybody\n", *_everybody(crowded)]
    body += ["## More rows\n", *table_of([row for row in rows if row not in crowded])]
    body += _details(rows)
    files["benchmarks.md"] = "\n".join(body).rstrip() + "\n"
    return files


def write(run: dict[str, Any]) -> None:
    """Write the page and its charts, and take away charts that are no more."""
    files = render(run)
    folder = DOCS / "benchmarks"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for path, text in files.items():
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
    """Each peer's figure, and how many times better ours is where there is one."""
    better = {name: row.ratio(name) for name in row.others}
    return [
        f"{name}: {charts.number(value)}" + (f" (× {charts.number(better[name])})" if better[name] else "")
        for name, value in row.others.items()
    ]


def _everybody(rows: list[Row]) -> list[str]:
    """A line for each peer, and the same as ratios: a row with many peers is no line to read."""
    names = [TITLE, *(name for name in dict.fromkeys(name for row in rows for name in row.others) if name != TITLE)]
    head = ["", *(f"{HEADS[row.name]}, {row.unit}" for row in rows)]
    figures = [[name, *(_figure(_of(row, name)) for row in rows)] for name in names]
    ratios = [[name, *(_figure(row.ratio(name) if name in row.others else 0.0) for row in rows)] for name in names[1:]]
    return [
        *lines_of([head, *figures, ["*aim*", *(row.aim for row in rows)]]),
        "How many times better manyhands is; below 1 it is worse:\n",
        *lines_of([head, *ratios]),
    ]


def _of(row: Row, name: str) -> float:
    """A name's figure in a row; 0 when it has none."""
    return row.ours if name == (row.who or TITLE) else row.others.get(name, 0.0)


def _figure(value: float) -> str:
    return charts.number(value) if value else "–"


def lines_of(cells: list[list[str]]) -> list[str]:
    first, *others = [f"| {' | '.join(each)} |" for each in cells]
    return [first, "|---" * len(cells[0]) + "|", *others, ""]


def table_of(rows: list[Row]) -> list[str]:
    head = ["What", "manyhands", "Peers, same run (× better)", "Aim"]
    cells = [[row.name, f"{charts.number(row.ours)} {row.unit}", "<br>".join(beside(row)), row.aim] for row in rows]
    return lines_of([head, *cells])


def _details(rows: list[Row]) -> list[str]:
    detail = next((row.detail for row in rows if "configuration" in row.detail), None)
    if detail is None:
        return []
    spent = [
        [name, ", ".join(f"{role} {charts.number(us)}" for role, us in cpu.items() if us)]
        for name, cpu in detail["cpu_us"].items()
    ]
    body = ["## Where the processor time goes\n", "Microseconds for a submitted no-op, in all processes of a kind.\n"]
    body += lines_of([["", ""], *spent])
    body += [
        "## How each is set up\n",
        *lines_of([["", ""], *([name, said] for name, said in detail["configuration"].items())]),
    ]
    body += ["What each environment held, to the last version, is in the dated results.", ""]
    if detail["absent"]:
        body += ["Not in this run:\n", *(f"* {name}: {why.splitlines()[0]}" for name, why in detail["absent"].items()), ""]
    return body


def main() -> None:
    """python -m benchmarks.page: write the page again from the newest full run."""
    if run := newest():
        write(run)


if __name__ == "__main__":
    main()
