"""python -m benchmarks.peers NAME PLAN: see driver.py. Run by the peer's own interpreter."""

import json
import sys

from benchmarks.peers.driver import main

if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
