"""A worker of the standard library that says what it does. argv: port."""

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
    print("connected")
    while True:
        try:
            n = task.get(timeout=0.3)
        except queue.Empty:
            print("empty")
            continue
        print("begins", n)
        if n == "slow":
            time.sleep(600)
        result.put(n)


if __name__ == "__main__":
    main()
