"""The whole of manyhands on a virtual clock: the shipped core, wire and client state machines over a network and a disk
that misbehave as a seed says.

    python -m manyhands.testing.simulation --seed 7          # one run, repeatable to the last byte
    python -m manyhands.testing.simulation --seeds 500       # many; the first that breaks a promise is printed

Nothing is modelled but what is not ours: time, network, disk, and the programs on top. `checker` says what must hold.
"""

from manyhands.testing.simulation.checker import Checker, Violation
from manyhands.testing.simulation.world import Report, World

__all__ = ["Checker", "Report", "Violation", "World"]
