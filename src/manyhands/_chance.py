"""Chance for waiting times and for the order in which machines are tried.

From the system and not from the `random` module's own generator: that one belongs to the program, which may have seeded it
so that a run can be repeated, and a background thread that draws from it changes what the program draws next. Two programs
with the same seed, or a fork and its parent, would moreover wait the same times and take the same names.
"""

from __future__ import annotations

from random import SystemRandom

CHANCE = SystemRandom()
