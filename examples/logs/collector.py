"""Log processing, part 3: keeps the queues and adds up what the workers counted.

    python collector.py FILES [tcp://host:port]     # FILES: how many files the producer will announce

Start it first; it is the server of the other two programs. Messages carry the path of a file on a shared folder, not the
file: a queue moves a few bytes and every worker reads for itself.
"""

import collections
import json
import sys

import manyhands as mh

expected = int(sys.argv[1])
totals: collections.Counter[str] = collections.Counter()

with mh.serve(*sys.argv[2:3]) as server:
    print(f"Listening on {server.url}", flush=True)
    counts = server.queue("counts")
    for done in range(1, expected + 1):
        found = counts.get(timeout=60)
        totals.update(found["levels"])
        print(f"{done}/{expected} {found['path']}", flush=True)
    server.queue("files").shutdown()
print(json.dumps(dict(sorted(totals.items()))), flush=True)
