"""What a Redis itself takes to wake a program: `published.py PORT N` publishes to another process, with redis-py alone."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import redis

PAUSE_S = 0.005


def worker(port: int, n: int) -> None:
    with redis.Redis(port=port) as client, client.pubsub(ignore_subscribe_messages=False) as news:
        news.subscribe("wake")
        while news.get_message(timeout=10)["type"] != "subscribe":
            pass
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        trips = []
        while len(trips) < n:
            message = news.get_message(timeout=10)
            trips.append(time.perf_counter() - float(message["data"]))
    trips.sort()
    print(json.dumps({"p50": trips[n // 2], "p99": trips[n * 99 // 100]}))


def main(port: int, n: int) -> None:
    command = [sys.executable, __file__, "worker", str(port), str(n)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process, redis.Redis(port=port) as client:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(n):
            time.sleep(PAUSE_S)
            client.publish("wake", repr(time.perf_counter()))
        out, _ = process.communicate(timeout=60)
    print(out.decode(), end="")


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        worker(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main(int(sys.argv[1]), int(sys.argv[2]))
