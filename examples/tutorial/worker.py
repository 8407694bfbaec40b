"""A worker: takes numbers from the master's one queue and puts their squares into the other, until the master is done.

    python worker.py                 # on the master's machine
    python worker.py 10.0.0.5:5959   # on another one

Start as many as you like. If one is killed in the middle of a task, another gets that task.
"""

import os
import sys
import time

from manyhands import ServerGone, ShutDown
from manyhands.managers import BaseManager

host, _, port = (sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:5959").rpartition(":")
authkey = os.environ.get("MANYHANDS_AUTHKEY", "a key for the tutorial only")


class QueueManager(BaseManager):
    """Here the queues are only known by name; the master has them."""


QueueManager.register("get_task_queue")
QueueManager.register("get_result_queue")

print(f"Connect to server {host}...", flush=True)
manager = QueueManager(address=(host, int(port)), authkey=authkey)
manager.connect()
tasks = manager.get_task_queue()
results = manager.get_result_queue()

while True:
    try:
        number = tasks.get(timeout=60)
    except (ShutDown, ServerGone):
        break
    print(f"run task {number} * {number}...", flush=True)
    time.sleep(0.5)  # stands for real work
    results.put(f"{number} * {number} = {number * number}")

print("worker exit.", flush=True)
