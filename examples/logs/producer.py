"""Log processing, part 1: announces every *.log file of a shared folder.

python producer.py FOLDER [tcp://host:port]
"""

import sys
from pathlib import Path

import manyhands as mh

folder = Path(sys.argv[1]).resolve()
with mh.connect(*sys.argv[2:3]) as client:
    paths = sorted(str(path) for path in folder.glob("*.log"))
    client.queue("files", maxsize=1000).put_many(paths)  # all of them or none; returns when the server has them
print(f"announced {len(paths)} files", flush=True)
