"""The tutorial's worker: takes a task, puts its result, until it is handed None. argv: port."""

import sys
import time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register("get_task_queue")
QueueManager.register("get_result_queue")


def connected(port):
    """Connect as soon as the master is there (the standard library gives up at the first refusal)."""
    deadline = time.monotonic() + 20
    while True:
        manager = QueueManager(address=("127.0.0.1", port), authkey=b"benchmark")
        try:
            manager.connect()
        except ConnectionRefusedError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return manager


def main():
    manager = connected(int(sys.argv[1]))
    task, result = manager.get_task_queue(), manager.get_result_queue()
    result.put("ready")
    while True:
        n = task.get(timeout=60)
        if n is None:
            break
        result.put(n)
    result.put("bye")


if __name__ == "__main__":
    main()
