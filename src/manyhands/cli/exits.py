"""Exit codes, which scripts may rely on, and the one place that turns an error into a sentence and a code."""

from __future__ import annotations

import sys
from enum import IntEnum

from manyhands import errors


class Exit(IntEnum):
    """What the process ends with; also printed by `manyhands --help`."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CANNOT_CONNECT = 3
    WRONG_KEY = 4
    NOT_FOUND = 5
    IN_USE = 6


MEANINGS = {
    Exit.OK: "done",
    Exit.FAILED: "it failed, or you answered no",
    Exit.USAGE: "the command cannot work as it was written",
    Exit.CANNOT_CONNECT: "no server answers there, or the store does not",
    Exit.WRONG_KEY: "the server has another key",
    Exit.NOT_FOUND: "there is no such queue or dead letter",
    Exit.IN_USE: "the address or the store's file belongs to another process",
}

# The first class that fits decides, so the narrow ones come first.
_CODES: tuple[tuple[type[Exception], Exit], ...] = (
    (errors.AuthenticationFailed, Exit.WRONG_KEY),
    (errors.AddressInUse, Exit.IN_USE),
    (errors.EngineBusy, Exit.IN_USE),
    (errors.UnknownId, Exit.NOT_FOUND),
    (errors.ServerUnavailable, Exit.CANNOT_CONNECT),
    (errors.ServerGone, Exit.CANNOT_CONNECT),
    (errors.EngineUnavailable, Exit.CANNOT_CONNECT),
    (errors.UsageError, Exit.USAGE),
)


def report(error: errors.ManyhandsError) -> Exit:
    """Say on stderr what went wrong and what to do; the code to end with."""
    sys.stderr.write(f"manyhands: {error}\n")
    return next((code for kind, code in _CODES if isinstance(error, kind)), Exit.FAILED)
