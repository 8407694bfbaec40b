"""Everybody is killed, again and again, and the network is cut: nothing is lost, nothing invented, no result comes twice."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .cluster import Cluster
from .passing import IN_HAND, pass_all, producers, workers

pytestmark = pytest.mark.faults

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
TASKS = int(os.environ.get("MANYHANDS_FAULT_TASKS", "1000000" if IS_NIGHTLY else "20000"))
KILLS = int(os.environ.get("MANYHANDS_FAULT_KILLS", "1000" if IS_NIGHTLY else "50"))
SEED = int(os.environ.get("MANYHANDS_FAULT_SEED", "1"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path)
    try:
        yield cluster
    finally:
        cluster.close()


def choose_faults(cluster: Cluster, rng: random.Random) -> list[Callable[[], None]]:
    """Of every 50 kills 34 are workers, 8 producers, 8 the server; beside them 20 cuts."""

    def kill_worker() -> None:
        cluster.kill(rng.choice(workers()))

    def kill_producer() -> None:
        name = rng.choice(producers())
        if not cluster.is_over(name):
            cluster.kill(name)

    def kill_server() -> None:
        cluster.kill("server")

    def cut_at_byte() -> None:
        cluster.proxy.cut_after(rng.randrange(5000), rng.choice(("up", "down")))

    n = KILLS // 50 or 1
    faults = [kill_worker] * 34 * n + [kill_producer] * 8 * n + [kill_server] * 8 * n
    faults += [cluster.proxy.drop_all] * 10 * n + [cut_at_byte] * 10 * n
    rng.shuffle(faults)
    return faults


def test_nothing_is_lost_though_everybody_is_killed(cluster: Cluster) -> None:
    faults = choose_faults(cluster, random.Random(SEED))
    passed = pass_all(cluster, cluster.proxy.url, TASKS, faults, direct_url=cluster.direct_url)
    print(passed)
    assert passed.twice == [], "a result came twice although its producer derived its id"
    assert passed.repeats <= IN_HAND * len(faults)
