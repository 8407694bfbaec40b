"""SQLite's errors in our words: the one place where its codes are read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manyhands.errors import EngineBusy, EngineCorrupt, EngineError, EngineUnavailable


class DiskFull(EngineUnavailable):
    """The disk has no room for this batch; nothing of it was stored."""


class DiskFailed(EngineUnavailable):
    """The disk reported an error. After a failed sync nobody knows what it holds, so the store stops until reopened."""

    retryable = False


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise SQLite's errors from this block as ours, with the path and the remedy in the sentence."""
    try:
        yield
    except FOREIGN as error:
        raise ours(path, error) from error


FOREIGN = (sqlite3.Error, UnicodeDecodeError)
"""What the sqlite3 module raises; the second when it met text, perhaps in SQLite's own message, that is none."""


def ours(path: Path, error: Exception) -> EngineError:
    """What to raise instead of one of FOREIGN."""
    if isinstance(error, UnicodeDecodeError):
        return _corrupt(path, error)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # extended codes carry the primary one in the low byte
    match code:
        case sqlite3.SQLITE_FULL:
            return DiskFull(f"The disk that holds {path} is full; nothing of this batch was stored. Free some space.")
        case sqlite3.SQLITE_IOERR:
            return DiskFailed(
                f"The disk that holds {path} failed ({error}); the store acknowledges nothing more. Check the disk, then "
                "open the store again: it is verified as it opens."
            )
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return _corrupt(path, error)
        case _ if "decode" in str(error):  # the sqlite3 module's own, without a code: a text column holds no text
            return _corrupt(path, error)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return EngineBusy(
                f"{path} is open in another program (not a manyhands server: perhaps the sqlite3 shell). Close it there."
            )
        case _:
            return EngineUnavailable(f"The store {path} cannot be used: {error}. Check its permissions and its disk.")


def _corrupt(path: Path, error: Exception) -> EngineCorrupt:
    return EngineCorrupt(
        f"{path} is damaged ({error}). Nothing was overwritten. Restore it from a backup, or save what can be saved "
        "with the sqlite3 program's .recover."
    )
