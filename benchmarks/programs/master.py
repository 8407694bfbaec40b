"""The tutorial's master, with a stopwatch. Run twice: as it is, and with only its import line changed.

argv: port, mode (rate | latency | bulk), tasks, workers. Prints one line of JSON.
"""

import json
import queue
import sys
import time
from multiprocessing.managers import BaseManager

task_queue = queue.Queue()
result_queue = queue.Queue()


class QueueManager(BaseManager):
    pass


QueueManager.register("get_task_queue", callable=lambda: task_queue)
QueueManager.register("get_result_queue", callable=lambda: result_queue)


def run(task, result, mode, tasks):
    """Seconds for all tasks, and the round trip of each in latency mode."""
    trips = []
    if mode == "rate":
        started = time.perf_counter()
        for i in range(tasks):
            task.put(i)
        for _ in range(tasks):
            result.get(timeout=60)
    elif mode == "latency":
        started = time.perf_counter()
        for i in range(tasks):
            t = time.perf_counter()
            task.put(i)
            result.get(timeout=60)
            trips.append(time.perf_counter() - t)
    else:
        item = bytes(1024 * 1024)
        window = 8
        started = time.perf_counter()
        for i in range(tasks + window):
            if i < tasks:
                task.put(item)
            if i >= window:
                assert len(result.get(timeout=60)) == len(item)
    return time.perf_counter() - started, trips


def main():
    port, mode, tasks, workers = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    manager = QueueManager(address=("127.0.0.1", port), authkey=b"benchmark")
    manager.start()
    task, result = manager.get_task_queue(), manager.get_result_queue()
    for _ in range(workers):  # every worker has said that it is there
        assert result.get(timeout=60) == "ready"
    run(task, result, mode, min(tasks, 200))  # warm
    seconds, trips = run(task, result, mode, tasks)
    for _ in range(workers):
        task.put(None)
    for _ in range(workers):
        result.get(timeout=60)
    trips.sort()
    print(
        json.dumps(
            {
                "seconds": seconds,
                "p50": trips[len(trips) // 2] if trips else 0.0,
                "p99": trips[len(trips) * 99 // 100] if trips else 0.0,
                "cpu": time.process_time(),
            }
        )
    )
    sys.stdout.flush()
    time.sleep(0.2)
    manager.shutdown()


if __name__ == "__main__":
    main()
