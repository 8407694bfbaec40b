"""The tutorial's worker in manyhands' own words.

python worker.py [tcp://host:port]
"""

import sys
import time

import manyhands as mh

with mh.connect(*sys.argv[1:2]) as client:
    results = client.queue("results")
    for number in client.queue("tasks"):  # each is acknowledged when the next is asked for; the loop ends at shutdown
        print(f"run task {number} * {number}...", flush=True)
        time.sleep(0.5)  # stands for real work
        results.put(f"{number} * {number} = {number * number}")
print("worker exit.", flush=True)
