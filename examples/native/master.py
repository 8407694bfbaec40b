"""The tutorial's master in manyhands' own words: no manager class, no names to register.

    python master.py                 # then, in one or more other terminals: python worker.py

An address can be given as a URL, for example tcp://127.0.0.1:0 for any free port. The key comes from MANYHANDS_AUTHKEY; on
one machine none is needed.
"""

import random
import sys

import manyhands as mh

with mh.serve(*sys.argv[1:2]) as server:
    print(f"Workers can connect to {server.url}", flush=True)
    tasks, results = server.queue("tasks"), server.queue("results")

    numbers = [random.randint(0, 10_000) for _ in range(10)]
    tasks.put_many(numbers)
    print(f"Put {len(numbers)} tasks", flush=True)

    for _ in numbers:
        print(f"Result: {results.get(timeout=60)}", flush=True)
    tasks.shutdown()  # every worker's loop ends
print("master exit.", flush=True)
