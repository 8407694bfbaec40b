"""Run seeds of the simulation; a seed that breaks a promise is printed with the way to repeat it."""

from __future__ import annotations

import argparse
import sys
import time

from manyhands.testing.simulation.checker import Violation
from manyhands.testing.simulation.world import World


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m manyhands.testing.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after the other (default 1)")
    parser.add_argument("--steps", type=int, default=1_000_000, help="end a run after so many events (default 1000000)")
    parser.add_argument("--trace", action="store_true", help="print the last events of the last run")
    options = parser.parse_args()
    began = time.perf_counter()
    steps = 0
    for seed in range(options.seed, options.seed + options.seeds):
        world = World(seed)
        try:
            report = world.run(options.steps)
        except Violation as violation:
            sys.stdout.write(f"{world.schedule.trace()}\n\nseed {seed}: {violation}\n")
            sys.stdout.write(f"repeat: python -m manyhands.testing.simulation --seed {seed}\n")
            return 1
        steps += report.steps
        if options.seeds == 1:
            sys.stdout.write(f"{world.schedule.trace()}\n" if options.trace else "")
            sys.stdout.write(f"{report}\n")
    elapsed_s = time.perf_counter() - began
    sys.stdout.write(f"{options.seeds} seeds, {steps:,} events in {elapsed_s:.1f} s: every promise held\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
