"""A worker that is stopped beyond its lease and then goes on: its late settlement is refused, the other result stands."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

import manyhands as mh

from .cluster import Cluster, until
from .programs import KEY

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process with a signal"),
]
LEASE_S = 1.5


def test_a_worker_frozen_beyond_its_lease_can_neither_settle_nor_put(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, lease_s=LEASE_S)
    try:
        with mh.connect(cluster.direct_url, KEY) as client:
            tasks, results = client.queue("tasks"), client.queue("results")
            tasks.put("work")
            cluster.run("frozen", "slow_worker", cluster.proxy.url, str(cluster.journal("frozen")), "0.2")
            until(lambda: cluster.lines("frozen") == ["began work"], "the worker has the task")
            frozen = cluster.processes["frozen"]
            frozen.send_signal(signal.SIGSTOP)
            with tasks.receive(timeout=LEASE_S * 10) as again:  # given out again once the lease has ended
                assert again.value == "work"
                assert again.attempt == 2
                frozen.send_signal(signal.SIGCONT)
                until(lambda: "woke" in cluster.lines("frozen"), "the worker goes on")
                until(lambda: frozen.poll() is not None, "the late worker ends")
                assert tasks.qsize() == 0, "the late worker gave back what is not its own"
                results.put("in time")
            assert results.get(timeout=10) == "in time"
            assert results.qsize() == 0, "the late worker's result was stored"
            tasks.join()  # returns: the one task was finished once, by who held it
            assert not client.dead("tasks").list()
    finally:
        cluster.close()
