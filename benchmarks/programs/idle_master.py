"""A master that only serves, until it is killed. argv: port."""

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
    print("serving", flush=True)
    time.sleep(600)


if __name__ == "__main__":
    main()
