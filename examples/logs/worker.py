"""Log processing, part 2: counts the levels in each announced file. Start one for each core of every machine.

    python worker.py [tcp://host:port]

`receive()` hands out a file and takes it back if the block raises: a worker that dies half-way through a file, or cannot
read it, leaves that file to another, and after three tries it is among the dead letters (`manyhands dead list files`).
"""

import collections
import queue
import re
import sys

import manyhands as mh

LEVEL = re.compile(r"\b(DEBUG|INFO|WARNING|ERROR|CRITICAL)\b")

with mh.connect(*sys.argv[1:2]) as client:
    files, counts = client.queue("files", maxsize=1000), client.queue("counts")
    print("ready", flush=True)
    while True:
        try:
            with files.receive(timeout=60) as delivery:
                levels: collections.Counter[str] = collections.Counter()
                with open(delivery.value, encoding="utf-8", errors="replace") as lines:
                    for line in lines:
                        levels.update(LEVEL.findall(line)[:1])
                counts.put({"path": delivery.value, "levels": dict(levels)})
                print(f"counted {delivery.value}", flush=True)
        except (mh.ShutDown, queue.Empty):
            break
print("worker exit.", flush=True)
