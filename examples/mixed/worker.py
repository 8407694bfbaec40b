"""A worker that still runs the standard library, beside workers that run manyhands: same master, same port, same key.

    python ../tutorial/master.py                   # manyhands
    python ../tutorial/worker.py 127.0.0.1:5959    # manyhands
    python worker.py 127.0.0.1:5959                # this one: any CPython from 3.8 on, with nothing installed

If it is killed in the middle of a task, another worker gets that task: the master sees its connection end.
"""

import os
import queue
import sys
import time
from multiprocessing.managers import BaseManager

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5959").rpartition(":")
authkey = os.environ.get("MANYHANDS_AUTHKEY", "a key for the tutorial only").encode()
# Python 3.13 has a name for a queue that was shut down; earlier versions find it empty.
OVER = (queue.Empty, getattr(queue, "ShutDown", queue.Empty))


class QueueManager(BaseManager):
    pass


QueueManager.register("get_task_queue")
QueueManager.register("get_result_queue")


def main():
    manager = QueueManager(address=(host, int(port)), authkey=authkey)
    manager.connect()
    tasks, results = manager.get_task_queue(), manager.get_result_queue()
    while True:
        try:
            number = tasks.get(timeout=60)
        except OVER:
            break
        print(f"run task {number} * {number}...", flush=True)
        time.sleep(0.5)  # stands for real work
        results.put(f"{number} * {number} = {number * number}")
    print("worker exit.", flush=True)


if __name__ == "__main__":
    main()
