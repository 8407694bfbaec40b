"""Named places where a test may kill the process or make it misbehave; nothing in production.

`crashpoint("put.after_commit")` does nothing unless the environment says `MANYHANDS_CRASH=put.after_commit:3`, which ends
the process with `os._exit` the third time that place is passed. `is_planted("name")` is true only when
`MANYHANDS_PLANT=name` is set: the suites use it to show that they go red for each bug they guard against.
"""

from __future__ import annotations

import os

_CRASH, _, _COUNT = os.environ.get("MANYHANDS_CRASH", "").partition(":")
_PLANTED = frozenset(filter(None, os.environ.get("MANYHANDS_PLANT", "").split(",")))
_left = int(_COUNT or 1)


def crashpoint(name: str) -> None:
    """End this process here, at once and without clean-up, if the environment asks for it."""
    global _left
    if name != _CRASH:
        return
    _left -= 1
    if _left <= 0:
        os._exit(137)


def is_planted(bug: str) -> bool:
    """Whether a test asked this process to carry the named bug."""
    return bug in _PLANTED
