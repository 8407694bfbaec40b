"""Everybody is killed, again and again, and the network is cut: nothing is lost, nothing invented, no result comes twice."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyhands as mh

from .cluster import Cluster, until
from .programs import KEY

pytestmark = pytest.mark.faults

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
TASKS = int(os.environ.get("MANYHANDS_FAULT_TASKS", "1000000" if IS_NIGHTLY else "20000"))
KILLS = int(os.environ.get("MANYHANDS_FAULT_KILLS", "1000" if IS_NIGHTLY else "50"))
SEED = int(os.environ.get("MANYHANDS_FAULT_SEED", "1"))
PRODUCERS, WORKERS = 2, 3
IN_HAND = 20
"""How many tasks of no length a process may have run and not yet settled: a few milliseconds of them."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


def choose_faults(rng: random.Random) -> list[str]:
    """Of every 50 kills 34 are workers, 8 producers, 8 the server; beside them 20 cuts."""
    n = KILLS // 50 or 1
    faults = ["worker"] * 34 * n + ["producer"] * 8 * n + ["server"] * 8 * n + ["cut"] * 10 * n + ["cut_at_byte"] * 10 * n
    rng.shuffle(faults)
    return faults


def make_fault(cluster: Cluster, rng: random.Random, fault: str) -> None:
    if fault == "worker":
        cluster.kill(f"worker{rng.randrange(WORKERS)}")
    elif fault == "producer":
        name = f"p{rng.randrange(PRODUCERS)}"
        if cluster.processes[name].poll() is None:
            cluster.kill(name)
    elif fault == "server":
        cluster.kill("server")
    elif fault == "cut":
        cluster.proxy.drop_all()
    else:
        cluster.proxy.cut_after(rng.randrange(5000), rng.choice(("up", "down")))


def test_nothing_is_lost_though_everybody_is_killed(cluster: Cluster) -> None:
    rng = random.Random(SEED)
    each = TASKS // PRODUCERS
    for n in range(PRODUCERS):
        cluster.run(f"p{n}", "producer", cluster.proxy.url, f"p{n}", str(each), str(cluster.journal(f"p{n}")))
    for n in range(WORKERS):
        cluster.run(f"worker{n}", "worker", cluster.proxy.url, str(cluster.journal(f"worker{n}")))
    faults = choose_faults(rng)
    next_at = [TASKS * (n + 1) // (len(faults) + 1) for n in range(len(faults))]
    results: Counter[tuple[str, int]] = Counter()
    with mh.connect(cluster.direct_url, KEY) as client:
        collected = client.queue("results")
        while len(results) < TASKS:
            name, number, square = collected.get(timeout=60.0)
            assert square == number * number
            results[name, number] += 1
            if next_at and len(results) >= next_at[0]:
                next_at.pop(0)
                make_fault(cluster, rng, faults.pop())
        assert not faults, "the tasks were over before the faults"
        producers = [cluster.processes[f"p{n}"] for n in range(PRODUCERS)]
        until(lambda: all(process.poll() is not None for process in producers), "the producers end")
        assert [process.returncode for process in producers] == [0] * PRODUCERS, cluster.errors()
        tasks = client.queue("tasks")
        until(lambda: tasks.qsize() == 0, "nothing is left")
        assert not client.dead("tasks").list()
        tasks.shutdown()
        workers = [cluster.processes[f"worker{n}"] for n in range(WORKERS)]
        until(lambda: all(process.poll() is not None for process in workers), "the workers end")

    wanted = {(f"p{n}", number) for n in range(PRODUCERS) for number in range(each)}
    assert results.keys() == wanted, "lost or invented"
    twice = [task for task, n in results.items() if n > 1]
    runs = Counter(line for n in range(WORKERS) for line in cluster.lines(f"worker{n}"))
    repeats = sum(runs.values()) - len(runs)
    print(f"{TASKS} tasks, {sum(runs.values())} runs, {repeats} repeats, {len(twice)} results twice")
    assert twice == [], "a result came twice although its producer derived its id"
    assert repeats <= IN_HAND * (KILLS + 20 * (KILLS // 50 or 1))
    assert cluster.errors() == ""
