"""Does what a plan says with one peer and prints what it took, as one line of JSON.

A plan is a JSON object: how many workers, and for each measure how much work; a measure that is not in it is left out.
One that fails is told as its error and does not spoil the others.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback

from benchmarks.peers import work
from benchmarks.peers.processes import Census, memory_by_role

MEASURES = {}


def measure(function):
    MEASURES[function.__name__] = function
    return function


@measure
def submit(peer, n):
    """n no-ops sent one by one and all results collected."""
    census = Census(peer)
    started = time.perf_counter()
    values = peer.submit(n)
    seconds = time.perf_counter() - started
    check(sum(values), n * (n - 1) // 2)
    return {"per_s": n / seconds, "cpu_us": census.by_role(n)}


@measure
def many(peer, n):
    """n no-ops by the interface for many calls."""
    census = Census(peer)
    started = time.perf_counter()
    total = sum(peer.map(work.noop, range(n)))
    seconds = time.perf_counter() - started
    check(total, n * (n - 1) // 2)
    return {"per_s": n / seconds, "cpu_us": census.by_role(n)}


@measure
def sleeps(peer, durations):
    """Calls that take a while: how much longer than the ideal, in which every worker is busy all the time."""
    started = time.perf_counter()
    for _ in peer.map(work.sleep, durations):
        pass
    seconds = time.perf_counter() - started
    ideal = max(max(durations), sum(durations) / peer.workers)
    return {"seconds": seconds, "ideal": ideal, "over": seconds / ideal - 1}


@measure
def mixed(peer, durations):
    return sleeps(peer, durations)


@measure
def calls(peer, n):
    """One call after the other."""
    for _ in range(min(n, 50)):
        peer.call()
    trips = []
    for _ in range(n):
        started = time.perf_counter()
        peer.call()
        trips.append(time.perf_counter() - started)
    trips.sort()
    return {"p50": trips[n // 2], "p99": trips[min(n - 1, n * 99 // 100)]}


@measure
def megabytes(peer, n):
    """n payloads of 1 MB, in and out."""
    size = 1024 * 1024
    payload = os.urandom(size // 2).hex() if peer.payload_type is str else os.urandom(size)
    return _bulk(peer, payload, n, 1.0)


@measure
def arrays(peer, n):
    """n numpy arrays of 8 MB, in and out."""
    import numpy

    return _bulk(peer, numpy.arange(1024 * 1024, dtype="float64"), n, 8.0)


def _bulk(peer, payload, n, mb):
    for value in peer.echo(payload, 2):
        check(len(value), len(payload))
    started = time.perf_counter()
    got = 0
    for value in peer.echo(payload, n):
        check(len(value), len(payload))
        got += 1
    seconds = time.perf_counter() - started
    check(got, n)
    return {"mb_per_s": 2 * n * mb / seconds}


def check(got, wanted):
    if got != wanted:
        raise AssertionError(f"wrong result: {got!r} instead of {wanted!r}")


def main(name, plan):
    peer = importlib.import_module(f"benchmarks.peers.{name}").Peer()
    if pid := os.environ.get("REDIS_PID"):
        peer.roles[int(pid)] = "valkey"
    peer.workers = plan["workers"]
    found = {}
    peer.start(peer.workers)
    try:
        peer.call()
        found["cold"] = {"seconds": time.time() - plan["started_at"], "memory": memory_by_role(peer)}
        found["configuration"] = peer.configuration
        peer.submit(min(100, plan.get("submit", 100)))  # warm
        for key, function in MEASURES.items():
            if key not in plan or (function in (many, sleeps, mixed) and not peer.has_map):
                continue
            try:
                found[key] = function(peer, plan[key])
            except Exception as error:
                found[key] = {"error": f"{type(error).__name__}: {error}"}
                traceback.print_exc()
        found["memory_after"] = memory_by_role(peer)
    finally:
        peer.stop()
    print(json.dumps(found))
    sys.stdout.flush()
