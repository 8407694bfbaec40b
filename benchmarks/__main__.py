"""Measure manyhands beside its peers in one run, print the ratios, keep the dated results.

python -m benchmarks                 all rows, 3 turns each; writes docs/benchmarks.md and its charts
python -m benchmarks --quick         all peers with a tenth of the work, once: a first look
python -m benchmarks rate latency    only these
python -m benchmarks engines         the stores that others run: Valkey, beside Celery and the others there
python -m benchmarks calls --peers manyhands,process_pool --runs 3 --no-save
python -m benchmarks backlog --backlog 10000000
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import backlog, engine_page, engines, page, real_jobs, side_by_side
from benchmarks.charts import number
from benchmarks.measure import Row, machine
from benchmarks.peers.catalog import BY_NAME
from benchmarks.rows import ROWS, Note

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"some of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--runs", type=int, default=3, help="turns of each job; medians are printed (default: 3)")
    parser.add_argument("--no-save", action="store_true", help="do not write benchmarks/results/DATE.json")
    parser.add_argument("--quick", action="store_true", help="one turn with a tenth of the work; nothing is written")
    parser.add_argument("--peers", metavar="A,B", help=f"only these in calls: {', '.join(BY_NAME)}")
    parser.add_argument("--backlog", type=int, default=10_000_000, metavar="N", help="how far the backlog grows")
    args = parser.parse_args()
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    peers = args.peers.split(",") if args.peers else list(BY_NAME)
    if strangers := set(peers) - set(BY_NAME):
        parser.error(f"unknown peer {', '.join(sorted(strangers))}; there are {', '.join(BY_NAME)}")
    runs, scale = (1, 0.1) if args.quick else (args.runs, 1.0)
    sized: dict[str, Callable[[Note], list[Row]]] = {
        "calls": lambda note: side_by_side.calls(runs, note, scale, peers),
        "engines": lambda note: engines.at_stores(runs, note, scale),
        "workers": lambda note: side_by_side.growing(runs, note, scale),
        "backlog": lambda note: backlog.ten_million(runs, note, min(args.backlog, 10_000) if args.quick else args.backlog),
        "grid": lambda note: real_jobs.grid(runs, note, int(200 * scale)),
    }
    console = Console() if sys.stdout.isatty() else Console(width=125)
    found: list[Row] = []
    where = machine()
    for name in args.rows or ROWS:
        with console.status(name) as status:
            found += sized[name](status.update) if name in sized else ROWS[name](runs, status.update)
    console.print(table(found))
    print_details(console, found)
    if not args.no_save and not args.quick:
        console.print(f"written: {save(found, where, is_full=not args.rows and not args.peers)}")


def table(rows: list[Row]) -> Table:
    made = Table(title="medians; × is how many times better than that peer", show_lines=True)
    for column in ("what", "manyhands", "peers", "aim"):
        made.add_column(column)
    for row in rows:
        ours = f"{number(row.ours)} {row.unit}" if row.ours else "not in this run"
        made.add_row(row.name, ours, "\n".join(page.beside(row)), row.aim)
    return made


def print_details(console: Console, rows: list[Row]) -> None:
    """How each was set up, and in which processes the time went."""
    for row in rows:
        for name, said in row.detail.get("configuration", {}).items():
            console.print(f"{name}: {said}", highlight=False)
        for name, cpu in row.detail.get("cpu_us", {}).items():
            console.print(
                f"{name}: " + ", ".join(f"{role} {us:,.1f} µs" for role, us in cpu.items()) + " of processor a task"
            )
        for name, why in row.detail.get("absent", {}).items():
            console.print(f"not in this run: {name}: {why.splitlines()[0]}")


def save(rows: list[Row], where: dict[str, Any], *, is_full: bool) -> Path:
    """Add this run to the results of its day."""
    RESULTS.mkdir(exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC)
    path = RESULTS / f"{today:%Y-%m-%d}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    run = {
        "at": today.isoformat(timespec="seconds"),
        "is_full": is_full,
        "machine": where,
        "rows": [asdict(row) for row in rows],
    }
    runs.append(run)
    path.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "README.md").write_text(summary(rows, today))
    if is_full:
        page.write(run)
    engine_page.write()
    return path


def summary(rows: list[Row], at: datetime.datetime) -> str:
    """The newest run as a page to read."""
    where = machine()
    lines = [
        "# Newest results",
        "",
        f"Written by `make bench` on {at:%Y-%m-%d %H:%M} UTC.",
        f"{where['cores']} cores, CPython {where['python']}, {where['system']}.",
        "",
        "Medians of one run in which everybody took turns; × is how many times better manyhands is than that peer.",
        "Every single figure, with those of the days before, is in the dated files beside this one.",
        "",
        "| What | manyhands | Peers, same run | Aim |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {each.name} | {number(each.ours)} {each.unit} | {'<br>'.join(page.beside(each))} | {each.aim} |" for each in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
