"""Connects and measures: the connection, the first proxy, and put + get round trips. argv: port, trips. Prints JSON."""

import json
import sys
import time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register("get_queue")


def main():
    trips = []
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"benchmark")
    t0 = time.perf_counter()
    manager.connect()
    t1 = time.perf_counter()
    q = manager.get_queue()
    q.qsize()
    t2 = time.perf_counter()
    for i in range(int(sys.argv[2])):
        t = time.perf_counter()
        q.put(i)
        q.get(timeout=20)
        trips.append(time.perf_counter() - t)
    trips.sort()
    print(
        json.dumps(
            {"connect": t1 - t0, "proxy": t2 - t1, "p50": trips[len(trips) // 2], "p99": trips[len(trips) * 99 // 100]}
        )
    )


if __name__ == "__main__":
    main()
