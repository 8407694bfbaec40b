"""The tables of docs/engines.md: what each engine declares and the contract suite holds, measured costs, sizes.

python -m benchmarks.engine_page --write      after Features, the contract suite, results or sizing.py changed
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

from benchmarks import engines, page, sizing
from benchmarks.measure import Row
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.nats.engine import NatsEngine
from manyhands.engines.redis.checks import About, examine
from manyhands.engines.sqlite.engine import SqliteEngine
from manyhands.model import Features, Limits
from manyhands.testing.contract import EngineContract

PAGE = Path(__file__).parents[1] / "docs" / "engines.md"
MEANING = {
    "priorities": "priorities from −9 to 9",
    "delays": "delayed messages",
    "bounded": "bounded queues (`maxsize`)",
    "results": "results by id",
    "dedupe": "ids given by callers are put once",
    "join": "`join` and `task_done`",
    "survives_restart": "queues outlive the store's restart",
    "calls": "calls and tasks: `Executor`, `@task`, `manyhands worker`",
    "moves": "`manyhands queue move` from and to it",
}
PARTS = {
    "OrderPromises": "order",
    "BoundPromises": "bounds and backpressure",
    "FencingPromises": "stale holders change nothing",
    "LeasePromises": "leases end",
    "SessionPromises": "sessions outlive connections",
    "CountingPromises": "deliveries are counted, poison ends",
    "ResendPromises": "sending twice is sending once",
    "ResultPromises": "one result",
    "StreamPromises": "streams of results",
    "PackPromises": "packs of calls",
    "ParentPromises": "parents of children",
    "CancellingPromises": "cancelling",
    "ParkingPromises": "parking what nobody can run",
    "AccountingPromises": "what `join` waits for",
    "MovePromises": "moving to another engine",
    "StoppingPromises": "the broadcast stop",
    "WaitingPromises": "waiting requests",
    "AdminPromises": "statistics, peek, purge",
    "HygienePromises": "bad input",
}


def declared() -> dict[str, Features]:
    """What each engine offers, a Redis with its append-only file on."""
    info = {"redis_version": "8.0.0", "aof_enabled": "1"}
    redis = About(examine(info, {"appendfsync": "always", "maxmemory-policy": "noeviction"}, ""), Limits())
    return {
        "memory": MemoryEngine.features,
        "sqlite": _of(SqliteEngine),
        "Redis, Valkey": redis.features,
        "NATS": _of(NatsEngine),
    }


def _of(engine: Any) -> Features:
    """What a class declares, whatever its store."""
    features: Features = engine.features.fget(engine.__new__(engine))
    return features


def promises() -> str:
    """Features, then how many tests of each part of the contract hold there."""
    columns = declared()
    cells = [["", *columns]]
    cells += [[meaning, *(_yes(getattr(has, name)) for has in columns.values())] for name, meaning in MEANING.items()]
    total = dict.fromkeys(columns, 0)
    for part in (each for each in EngineContract.__mro__ if each.__name__ in PARTS):
        tests = [test for name, test in vars(part).items() if name.startswith("test_")]
        everything = sum(map(_cases, tests))
        line = [PARTS[part.__name__]]
        for name, has in columns.items():
            offered = [test for test in tests if all(getattr(has, feature) for feature in getattr(test, "needs", ()))]
            count = sum(map(_cases, offered))
            total[name] += count
            line.append(str(count) if count == everything else f"{count} of {everything}")
        cells.append(line)
    cells.append(["**promises held by a test**", *(f"**{n}**" for n in total.values())])
    return "\n".join(page.lines_of(cells)).strip()


def _cases(test: Any) -> int:
    """How often pytest runs it, as the contract's own count has it."""
    marks = getattr(test, "pytestmark", [])
    return math.prod(len(mark.args[1]) for mark in marks if mark.name == "parametrize")


def _yes(has: bool) -> str:
    return "yes" if has else "–"


def newest() -> dict[str, Any] | None:
    """The newest kept run that measured the stores."""
    for path in sorted(page.RESULTS.glob("*.json"), reverse=True):
        for run in reversed(json.loads(path.read_text(encoding="utf-8"))):
            if any(row["name"] in engines.NAMES for row in run["rows"]):
                return dict(run)
    return None


def costs(run: dict[str, Any]) -> str:
    """The rows about stores of one run."""
    rows: list[Row] = [row for row in page.rows_in(run) if row.name in engines.NAMES]
    where = run["machine"]
    load = f"{where['cores']} cores, load {where.get('load', 0.0)} before it began"
    said = f"Measured on {run['at'][:16].replace('T', ' ')} UTC, {load}:"
    return said + "\n\n" + "\n".join(page.table_of(rows)).strip()


def sizes() -> str:
    """Three loads, at both kinds of engine."""
    head = ["messages a day, workers", "mean, peak a second", "programs"]
    head += ["Redis: spaces", "connections", "memory for an hour's backlog"]
    head += ["NATS: spaces", "connections", "files for an hour's backlog"]
    cells = [head]
    for exponent, workers in ((7, 100), (8, 1_000), (9, 10_000)):
        load = sizing.Load(10.0**exponent, workers)
        found = [sizing.size(load, engine) for engine in ("redis", "nats")]
        line = [
            f"10^{exponent}, {workers:,}",
            f"{found[0].mean_per_s:,.0f}, {found[0].peak_per_s:,.0f}",
            f"{found[0].programs:,}",
        ]
        for each in found:
            line += [str(each.spaces), f"{each.connections:,}", f"{each.backlog_bytes / 1e9:,.1f} GB"]
        cells.append(line)
    return "\n".join(page.lines_of(cells)).strip()


def render(text: str) -> str:
    """The page with its tables as they are now."""
    run = newest()
    parts = {"promises": promises(), "costs": costs(run) if run else "Not measured on this machine.", "sizes": sizes()}
    for name, table in parts.items():
        begin, end = f"<!-- {name}: written by python -m benchmarks.engine_page --write -->", f"<!-- end of {name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        assert found, f"the page has no line {begin}"
        assert closed, f"the page has no line {end}"
        text = f"{before}{begin}\n\n{table}\n\n{end}{after}"
    return text


def write() -> None:
    """Write the page again."""
    PAGE.write_text(render(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.stdout.write(render(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
