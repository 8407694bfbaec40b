"""What an operation costs while the backlog grows to ten million messages, and how much memory a message takes."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any

import manyhands as mh
from benchmarks.measure import Row, free_port, start_module
from benchmarks.peers.processes import cpu_s, memory

BODY_BYTES = 100
BATCH = 1_000
OPERATIONS = 100_000
"""Puts and gets that are timed at each size of the backlog."""


def run(largest: int, note: Callable[[str], None]) -> dict[str, Any]:
    """What a put and a get take at each size, in time and in processor time of both ends; the server's resident bytes."""
    key, port = secrets.token_urlsafe(), free_port()
    url = f"tcp://127.0.0.1:{port}"
    server = start_module("manyhands", "serve", url, env={"MANYHANDS_AUTHKEY": key})
    points = []
    try:
        with mh.connect(url, key) as client:
            queue = client.queue("backlog")
            items = [bytes(BODY_BYTES)] * BATCH
            _churn(queue, items)  # warm
            empty_rss, _ = memory(server.pid)
            size, waiting = 0, 0
            while size <= largest:
                note(f"backlog of {size:,}")
                while waiting < size:
                    queue.put_many(items[: min(BATCH, size - waiting)])
                    waiting += min(BATCH, size - waiting)
                rss, _ = memory(server.pid)
                spent_s = cpu_s(server.pid) + time.process_time()
                put_s, get_s = _churn(queue, items)
                spent_s = cpu_s(server.pid) + time.process_time() - spent_s
                points.append(
                    {
                        "backlog": size,
                        "put_us": put_s * 1e6,
                        "get_us": get_s * 1e6,
                        "cpu_us": spent_s / OPERATIONS * 1e6,
                        "rss": rss - empty_rss,
                    }
                )
                size = size * 10 if size else 1_000
    finally:
        server.kill()
        server.communicate()
    return {"points": points}


def _churn(queue: Any, items: list[bytes]) -> tuple[float, float]:
    """Seconds for one put and one get, in batches, at the backlog's present size."""
    put_s = get_s = 0.0
    for _ in range(OPERATIONS // BATCH):
        started = time.perf_counter()
        queue.put_many(items)
        between = time.perf_counter()
        left = BATCH
        while left:
            left -= len(queue.get_many(left))
        get_s += time.perf_counter() - between
        put_s += between - started
    return put_s / OPERATIONS, get_s / OPERATIONS


def ten_million(runs: int, note: Callable[[str], None], largest: int = 10_000_000) -> list[Row]:
    """Once, however many runs there are: putting that many takes a minute."""
    found = run(largest, note)
    first, last = found["points"][0], found["points"][-1]
    cost = (last["put_us"] + last["get_us"]) / (first["put_us"] + first["get_us"])
    beyond = last["rss"] / last["backlog"] - BODY_BYTES
    spent = last["cpu_us"] / first["cpu_us"] if first["cpu_us"] else 0.0
    size = f"{last['backlog']:,}"
    return [
        Row(f"put + get with {size} waiting ÷ none", "×", cost, {}, "≤ 1.5 ×", is_less_better=True, detail=found),
        Row("the same in processor time", "×", spent, {}, "≤ 1.5 ×", is_less_better=True),
        Row(f"memory of a message, {size} of {BODY_BYTES} bytes", "bytes", beyond, {}, "≤ 400", is_less_better=True),
    ]
