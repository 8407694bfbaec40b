"""A worker of the standard library that says what it does. argv: port, how long each get waits (default: 0.3 s)."""

import queue
import sys
import time
from multiprocessing.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register("task")
QueueManager.register("result")


def main():
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.connect()
    task, result = manager.task(), manager.result()
    wait_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.3
    print("connected")
    while True:
        try:
            print("asks")
            n = task.get(timeout=wait_s)
        except queue.Empty:
            print("empty")
            continue
        print("begins", n)
        if n == "slow":
            time.sleep(600)
        result.put(n)


if __name__ == "__main__":
    main()
