"""What is measured: each function does one job by us and by its peers in turn and returns the table's rows."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import backlog, durable_floor, engines, hostile, real_jobs, side_by_side, stock_clients
from benchmarks.measure import OURS, PROGRAMS, STOCK, Row, answer, end, free_port, in_turn, median, programs_for, start

Note = Callable[[str], None]


def _tutorial(module: str, mode: str, tasks: int, workers: int) -> dict[str, Any]:
    with programs_for(module) as folder:
        port = free_port()
        master = start(folder / "master.py", port, mode, tasks, workers)
        hands = [start(folder / "worker.py", port) for _ in range(workers)]
        try:
            return answer(master)
        finally:
            for hand in hands:
                end(hand)


def _both(mode: str, tasks: int, workers: int, runs: int, note: Note) -> dict[str, list[dict[str, Any]]]:
    return in_turn(
        {
            STOCK: lambda: _tutorial(STOCK, mode, tasks, workers),
            OURS: lambda: _tutorial(OURS, mode, tasks, workers),
        },
        runs,
        lambda text: note(f"tutorial {mode}: {text}"),
    )


def _bare(mode: str, n: int) -> dict[str, Any]:
    return answer(start(PROGRAMS / "bare.py", mode, n))


def tutorial_rate(runs: int, note: Note) -> list[Row]:
    tasks = 20_000
    found = _both("rate", tasks, 2, runs, note)
    rate = {name: median([tasks / run["seconds"] for run in got]) for name, got in found.items()}
    return [
        Row("tutorial program, 2 workers", "tasks/s", rate[OURS], {STOCK: rate[STOCK]}, "≥ 10 ×, aim 50,000/s", detail=found)
    ]


def tutorial_latency(runs: int, note: Note) -> list[Row]:
    found = _both("latency", 3_000, 1, runs, note)
    pings = [_bare("pingpong", 5_000) for _ in range(runs)]
    p50 = {name: median([run["p50"] for run in got]) * 1e6 for name, got in found.items()}
    p99 = {name: median([run["p99"] for run in got]) * 1e6 for name, got in found.items()}
    ping = {"raw TCP ping-pong": median([run["p50"] for run in pings]) * 1e6}
    ping99 = {"raw TCP ping-pong": median([run["p99"] for run in pings]) * 1e6}
    return [
        Row("one task, p50", "µs", p50[OURS], {STOCK: p50[STOCK], **ping}, "≤ half", is_less_better=True, detail=found),
        Row("one task, p99", "µs", p99[OURS], {STOCK: p99[STOCK], **ping99}, "", is_less_better=True),
    ]


def tutorial_bulk(runs: int, note: Note) -> list[Row]:
    tasks = 300
    found = _both("bulk", tasks, 1, runs, note)
    relays = [_bare("relay", tasks) for _ in range(runs)]
    rate = {name: median([2 * tasks / run["seconds"] for run in got]) for name, got in found.items()}
    relay = {"bare relay": median([run["mb_per_s"] for run in relays])}
    return [Row("1 MB items, in + out", "MB/s", rate[OURS], {STOCK: rate[STOCK], **relay}, "≥ 1,000 MB/s", detail=found)]


def busy_master(runs: int, note: Note) -> list[Row]:
    """A client's put + get while the master's main thread computes; and what a connection and a first proxy cost."""

    def probe(module: str, program: str) -> dict[str, Any]:
        with programs_for(module) as folder:
            port = free_port()
            master = start(folder / program, port, 8)
            try:
                assert master.stdout is not None
                master.stdout.readline()
                return answer(start(folder / "prober.py", port, 1_000))
            finally:
                end(master)

    found = in_turn(
        {STOCK: lambda: probe(STOCK, "busy_master.py"), OURS: lambda: probe(OURS, "busy_master.py")},
        runs,
        lambda text: note(f"busy master: {text}"),
    )

    def row(name: str, key: str, aim: str) -> Row:
        ms = {who: median([run[key] for run in got]) * 1e3 for who, got in found.items()}
        return Row(name, "ms", ms[OURS], {STOCK: ms[STOCK]}, aim, is_less_better=True)

    return [
        row("busy master: put + get p50", "p50", "≤ 1 ms each"),
        row("busy master: connect", "connect", ""),
        row("busy master: first proxy", "proxy", ""),
    ]


def connecting(runs: int, note: Note) -> list[Row]:
    """connect() and the first proxy against a master that only serves."""

    def probe(module: str) -> dict[str, Any]:
        with programs_for(module) as folder:
            port = free_port()
            master = start(folder / "idle_master.py", port)
            try:
                assert master.stdout is not None
                master.stdout.readline()
                return answer(start(folder / "prober.py", port, 200))
            finally:
                end(master)

    found = in_turn({STOCK: lambda: probe(STOCK), OURS: lambda: probe(OURS)}, runs, lambda text: note(f"connecting: {text}"))
    rows = []
    for name, key in (("connect", "connect"), ("first proxy", "proxy"), ("put + get from a client, p50", "p50")):
        ms = {who: median([run[key] for run in got]) * 1e3 for who, got in found.items()}
        aim = "≤ 5 ms" if key != "p50" else ""
        rows.append(Row(name, "ms", ms[OURS], {STOCK: ms[STOCK]}, aim, is_less_better=True))
    return rows


def durable(runs: int, note: Note) -> list[Row]:
    """Puts that are on the disk before they return: many at once, and one at a time from 8 producers."""
    import manyhands as mh

    def put_many() -> dict[str, Any]:
        with (
            tempfile.TemporaryDirectory() as folder,
            mh.serve("tcp://127.0.0.1:0", authkey="benchmark", store=f"sqlite:///{folder}/jobs.db") as server,
            mh.connect(server.url, authkey="benchmark") as client,
        ):
            queue, items = client.queue("bench"), [bytes(100)] * 1_000
            started = time.perf_counter()
            for _ in range(50):
                queue.put_many(items)
            return {"rate": 50_000 / (time.perf_counter() - started)}

    def producers() -> dict[str, Any]:
        with (
            tempfile.TemporaryDirectory() as folder,
            mh.serve("tcp://127.0.0.1:0", authkey="benchmark", store=f"sqlite:///{folder}/jobs.db") as server,
        ):
            return {"rate": durable_floor.drive(server.url, "benchmark")}

    found = in_turn(
        {"put_many": put_many, "8 producers": producers, "floor": lambda: {"rate": durable_floor.run()}},
        runs,
        lambda text: note(f"durable put: {text}"),
    )
    rate = {name: median([run["rate"] for run in got]) for name, got in found.items()}
    floor = {"socket + fdatasync loop": rate["floor"]}
    return [
        Row("durable put_many", "items/s", rate["put_many"], {}, "≥ 100,000/s", detail=found),
        Row("durable put, 8 blocking producers", "items/s", rate["8 producers"], floor, "≥ 50 % of the bare loop"),
    ]


def importing(runs: int, note: Note) -> list[Row]:
    def seconds(module: str) -> dict[str, Any]:
        bare = _wall("pass")
        return {"seconds": _wall(f"import {module}") - bare}

    found = in_turn(
        {STOCK: lambda: seconds(STOCK), "manyhands": lambda: seconds("manyhands"), OURS: lambda: seconds(OURS)}, runs, note
    )
    ms = {name: median([run["seconds"] for run in got]) * 1e3 for name, got in found.items()}
    return [
        Row("import manyhands", "ms", ms["manyhands"], {STOCK: ms[STOCK]}, "≤ 100 ms", is_less_better=True),
        Row("import manyhands.managers", "ms", ms[OURS], {STOCK: ms[STOCK]}, "", is_less_better=True),
    ]


def _wall(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started


def under_attack(runs: int, note: Note) -> list[Row]:
    note("2,000 idle connections")
    got = hostile.run()
    return [
        Row(
            "honest p99 beside 2,000 idle connections",
            "ms",
            got["p99_s"] * 1e3,
            {},
            "< 100 ms",
            is_less_better=True,
            detail=got,
        ),
    ]


ROWS: dict[str, Callable[[int, Note], list[Row]]] = {
    "calls": side_by_side.calls,
    "engines": engines.at_stores,
    "workers": side_by_side.growing,
    "grid": real_jobs.grid,
    "backlog": backlog.ten_million,
    "rate": tutorial_rate,
    "latency": tutorial_latency,
    "bulk": tutorial_bulk,
    "busy": busy_master,
    "connect": connecting,
    "durable": durable,
    "import": importing,
    "hostile": under_attack,
    "stock": stock_clients.tutorial,
    "stock-connect": stock_clients.connecting,
    "stock-crowds": stock_clients.crowds,
}
