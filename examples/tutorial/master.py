"""The master: keeps two queues, puts ten numbers into one and reads their squares from the other.

    python master.py                 # then, in one or more other terminals: python worker.py

It is the program of the well-known tutorial; `from multiprocessing.managers import BaseManager` was the only line to change.
An address to listen on can be given as host:port (port 0: any free one); the key comes from MANYHANDS_AUTHKEY.
"""

import os
import queue
import random
import sys

from manyhands.managers import BaseManager

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5959").rpartition(":")
authkey = os.environ.get("MANYHANDS_AUTHKEY", "a key for the tutorial only")

task_queue: queue.Queue[int] = queue.Queue()
result_queue: queue.Queue[str] = queue.Queue()


class QueueManager(BaseManager):
    """Both queues live here, in the master; workers reach them by these names."""


QueueManager.register("get_task_queue", callable=lambda: task_queue)
QueueManager.register("get_result_queue", callable=lambda: result_queue)

manager = QueueManager(address=(host, int(port)), authkey=authkey)
manager.start()
print("Workers can connect to {}:{}".format(*manager.address), flush=True)

tasks = manager.get_task_queue()
results = manager.get_result_queue()
for _ in range(10):
    number = random.randint(0, 10_000)
    print(f"Put task {number}...", flush=True)
    tasks.put(number)

print("Try get results...", flush=True)
for _ in range(10):
    print(f"Result: {results.get(timeout=60)}", flush=True)

tasks.shutdown()  # tells every worker at once that nothing more will come
manager.shutdown()
print("master exit.", flush=True)
