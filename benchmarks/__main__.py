"""Measure manyhands beside its peers in one run, print the ratios, keep the dated results.

python -m benchmarks                 all rows, 5 turns each
python -m benchmarks rate latency    only these
python -m benchmarks --runs 3 --no-save
"""

from __future__ import annotations

import argparse
import datetime
import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.measure import Row, machine
from benchmarks.rows import ROWS

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="row", help=f"some of: {', '.join(ROWS)} (default: all)")
    parser.add_argument("--runs", type=int, default=5, help="turns of each job; medians are printed (default: 5)")
    parser.add_argument("--no-save", action="store_true", help="do not write benchmarks/results/DATE.json")
    args = parser.parse_args()
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f"unknown row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    console = Console()
    found: list[Row] = []
    for name in args.rows or ROWS:
        with console.status(name) as status:
            found += ROWS[name](args.runs, status.update)
    console.print(table(found))
    if not args.no_save:
        console.print(f"written: {save(found)}")


def table(rows: list[Row]) -> Table:
    made = Table(title="medians; × is how many times better than that peer")
    for column in ("what", "manyhands", "peers", "aim"):
        made.add_column(column)
    for row in rows:
        peers = "\n".join(f"{peer}: {value:,.4g} (× {row.ratio(peer):.2f})" for peer, value in row.others.items())
        made.add_row(row.name, f"{row.ours:,.4g} {row.unit}", peers, row.aim)
    return made


def save(rows: list[Row]) -> Path:
    """Add this run to the results of its day."""
    RESULTS.mkdir(exist_ok=True)
    today = datetime.datetime.now(tz=datetime.UTC)
    path = RESULTS / f"{today:%Y-%m-%d}.json"
    runs = json.loads(path.read_text()) if path.exists() else []
    runs.append({"at": today.isoformat(timespec="seconds"), "machine": machine(), "rows": [asdict(row) for row in rows]})
    path.write_text(json.dumps(runs, indent=1, ensure_ascii=False) + "\n")
    (RESULTS / "README.md").write_text(page(rows, today))
    return path


def page(rows: list[Row], at: datetime.datetime) -> str:
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
    for row in rows:
        peers = "<br>".join(f"{peer}: {value:,.4g} (× {row.ratio(peer):.2f})" for peer, value in row.others.items())
        lines.append(f"| {row.name} | {row.ours:,.4g} {row.unit} | {peers} | {row.aim} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
