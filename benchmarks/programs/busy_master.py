"""A master whose main thread computes without a pause, and serves all the while. argv: port, seconds."""

import queue
import sys
import time
from multiprocessing.managers import BaseManager

one_queue = queue.Queue()


class QueueManager(BaseManager):
    pass


QueueManager.register("get_queue", callable=lambda: one_queue)


def main():
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"benchmark")
    manager.start()
    manager.get_queue()
    print("serving", flush=True)
    end, x = time.monotonic() + float(sys.argv[2]), 0
    while time.monotonic() < end:
        for _ in range(10000):
            x += 1
    manager.shutdown()


if __name__ == "__main__":
    main()
