"""A parked worker and who wakes it, two processes: `sleeper.py URL KEY N` prints how long each item took to arrive."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import manyhands as mh

PAUSE_S = 0.005
"""Between two items, so that the worker is asleep again when the next one comes."""


def worker(url: str, key: str, n: int) -> None:
    client = mh.connect(url, authkey=key)
    queue, trips = client.queue("wake"), []
    client.queue("ready").put(True)
    for _ in range(n):
        sent = queue.get()
        # One clock for all processes of a machine: CLOCK_MONOTONIC, QueryPerformanceCounter, mach_absolute_time.
        trips.append(time.perf_counter() - sent)
        queue.task_done()
    trips.sort()
    print(json.dumps({"p50": trips[n // 2], "p99": trips[n * 99 // 100]}))
    client.close()


def main(url: str, key: str, n: int) -> None:
    with (
        subprocess.Popen(
            [sys.executable, __file__, "worker", url, key, str(n)],
            stdout=subprocess.PIPE,
        ) as process,
        mh.connect(url, authkey=key) as client,
    ):
        client.queue("ready").get(timeout=60)
        queue = client.queue("wake")
        for _ in range(n):
            time.sleep(PAUSE_S)
            queue.put(time.perf_counter())
        out, _ = process.communicate(timeout=60)
    print(out.decode(), end="")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
