"""Clients that still run the standard library: what changes for them when only the master moves to manyhands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from benchmarks.measure import OURS, STOCK, Row, answer, end, free_port, in_turn, median, programs_for, start

Note = Callable[[str], None]
_MASTERS = {"its own master": STOCK, "our master": OURS}
_OURS, _OWN = "our master", "its own master"


def _tutorial(master_module: str, mode: str, tasks: int, workers: int) -> dict[str, Any]:
    with programs_for(master_module) as ours, programs_for(STOCK) as stock:
        port = free_port()
        master = start(ours / "master.py", port, mode, tasks, workers)
        hands = [start(stock / "worker.py", port) for _ in range(workers)]
        try:
            return answer(master)
        finally:
            for hand in hands:
                end(hand)


def _client(master_module: str, program: str, *args: object) -> dict[str, Any]:
    with programs_for(master_module) as ours, programs_for(STOCK) as stock:
        port = free_port()
        master = start(ours / "idle_master.py", port)
        try:
            assert master.stdout is not None
            master.stdout.readline()
            return answer(start(stock / program, port, *args, master.pid))
        finally:
            end(master)


def _both(job: Callable[[str], dict[str, Any]], runs: int, note: Note, what: str) -> dict[str, list[dict[str, Any]]]:
    jobs = {name: (lambda module=module: job(module)) for name, module in _MASTERS.items()}
    return in_turn(jobs, runs, lambda text: note(f"standard-library clients, {what}: {text}"))


def _row(
    name: str,
    unit: str,
    found: dict[str, list[dict[str, Any]]],
    value: Callable[[dict[str, Any]], float],
    aim: str = "",
    *,
    is_less_better: bool = False,
) -> Row:
    of = {who: median([value(run) for run in got]) for who, got in found.items()}
    return Row(f"stock client: {name}", unit, of[_OURS], {_OWN: of[_OWN]}, aim, is_less_better, found)


def tutorial(runs: int, note: Note) -> list[Row]:
    """The tutorial's program with workers that were not changed."""
    rate = _both(lambda module: _tutorial(module, "rate", 5_000, 2), runs, note, "rate")
    latency = _both(lambda module: _tutorial(module, "latency", 1_500, 1), runs, note, "latency")
    bulk = _both(lambda module: _tutorial(module, "bulk", 150, 1), runs, note, "bulk")
    return [
        _row("tutorial program, 2 workers", "tasks/s", rate, lambda run: 5_000 / run["seconds"]),
        _row("one task, p50", "µs", latency, lambda run: run["p50"] * 1e6, is_less_better=True),
        _row("1 MB items, in + out", "MB/s", bulk, lambda run: 300 / run["seconds"]),
    ]


def connecting(runs: int, note: Note) -> list[Row]:
    """connect(), the first proxy, and a round trip."""
    found = _both(lambda module: _client(module, "prober.py", 300), runs, note, "connecting")
    return [
        _row("connect", "ms", found, lambda run: run["connect"] * 1e3, "≤ 5 ms", is_less_better=True),
        _row("first proxy", "ms", found, lambda run: run["proxy"] * 1e3, "≤ 5 ms", is_less_better=True),
        _row("put + get, p50", "ms", found, lambda run: run["p50"] * 1e3, is_less_better=True),
    ]


def crowds(runs: int, note: Note) -> list[Row]:
    """150 at the same moment, and 1,000 that stay."""
    runs = min(runs, 2)  # the standard library hangs for the whole limit
    at_once = _both(lambda module: _client(module, "crowd.py", "at-once", 150), runs, note, "150 at once")
    stay = _both(lambda module: _client(module, "crowd.py", "connected", 1_000), runs, note, "1,000 connected")
    return [
        _row("150 at once: served within 20 s", "clients", at_once, lambda run: run["served"], "150"),
        _row("150 at once: slowest", "ms", at_once, lambda run: run["slowest"] * 1e3, is_less_better=True),
        _row("1,000 connected: memory for each", "bytes", stay, lambda run: run["bytes_each"], is_less_better=True),
        _row("1,000 connected: the master's threads", "threads", stay, lambda run: run["threads"], is_less_better=True),
    ]
