"""The statements that write, each for many rows at once.

The sqlite3 module gives the interpreter lock away at every statement and must wait to get it back, so what counts beside
busy threads is the number of statements, not of rows: a thousand single-row inserts beside one computing thread wrote
550 rows/s, the same rows in statements of 256 wrote 16,000; alone it is 355,000 against 725,000.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any


class Bulk:
    """One statement for many rows: of its own for each number of rows up to 16, of few sizes beyond.

    Up to 16 rows are what a commit carries when that many clients wait for it, and each statement less is time for all.
    """

    def __init__(self, head: str, one: str, tail: str = "", *, separator: str = ",") -> None:
        self.width = one.count("?")
        texts = {k: head + separator.join([one] * k) + tail for k in (256, 64, *range(1, 17))}
        self._exact = {k * self.width: texts[k] for k in range(1, 17)}
        self._sizes = [(k, texts[k]) for k in (256, 64, 16)]

    def run(self, connection: sqlite3.Connection, flat: Sequence[Any]) -> None:
        """Execute for all rows; flat holds their values one after the other."""
        sql = self._exact.get(len(flat))
        if sql is not None:
            connection.execute(sql, flat)
            return
        width, start, end = self.width, 0, len(flat)
        for k, sql in self._sizes:
            step = k * width
            while end - start >= step:
                connection.execute(sql, flat[start : start + step])
                start += step
        if start < end:
            connection.execute(self._exact[end - start], flat[start:])


STORE = Bulk("INSERT INTO message VALUES ", "(?,?,?)")
STORE_LARGE = "INSERT INTO message VALUES (?,?,?)"
FREE = Bulk(
    "INSERT INTO state (n, deliveries, is_suspect, due_at, history, need) VALUES ",
    "(?,?,?,?,?,?)",
    " ON CONFLICT (n) DO UPDATE SET deliveries=excluded.deliveries, is_suspect=excluded.is_suspect,"
    " due_at=excluded.due_at, history=excluded.history, need=excluded.need, token=0, session=''",
)
LEASE = Bulk(
    "INSERT INTO state (n, deliveries, token, session) VALUES ",
    "(?,?,?,?)",
    " ON CONFLICT (n) DO UPDATE SET deliveries=excluded.deliveries, token=excluded.token,"
    " session=excluded.session, due_at=0, need=''",
)
CUT = Bulk(
    "INSERT INTO state (n, first, last) VALUES ",
    "(?,?,?)",
    " ON CONFLICT (n) DO UPDATE SET first=excluded.first, last=excluded.last",
)
BURY = Bulk(
    "INSERT INTO state (n, died_at, reason, history) VALUES ",
    "(?,?,?,?)",
    " ON CONFLICT (n) DO UPDATE SET died_at=excluded.died_at, reason=excluded.reason, history=excluded.history,"
    " token=0, session=''",
)
PRODUCE = Bulk("INSERT OR IGNORE INTO produced VALUES ", "(?,?)")
REMOVE = [Bulk(f"DELETE FROM {table} WHERE n IN (", "?", ")") for table in ("message", "state")]
UNPRODUCE = Bulk("DELETE FROM produced WHERE n IN (", "?", ")")
COUNT = (
    "UPDATE queue SET unfinished=?, put_total=?, done_total=?, redelivered_total=?, dead_total=? WHERE id=?"  # one a queue
)
MARK = Bulk("INSERT OR REPLACE INTO watermark VALUES ", "(?,?,?,?)")
SEE = Bulk("INSERT OR REPLACE INTO session VALUES ", "(?,?,?)")
DROP_RESULT = Bulk("DELETE FROM result WHERE id IN (", "?", ")")
KEEP_RESULT = "INSERT OR IGNORE INTO result VALUES (?,?,?,?)"
FORGET = Bulk("DELETE FROM remembered WHERE id IN (", "?", ")")
REMEMBER = Bulk("INSERT OR REPLACE INTO remembered VALUES ", "(?,?)")
END = Bulk("INSERT OR IGNORE INTO ended VALUES ", "(?,?,?,?,?,?,?,?,?,?)")
END_LARGE = "INSERT OR IGNORE INTO ended VALUES (?,?,?,?,?,?,?,?,?,?)"
DROP_ENDED = Bulk("DELETE FROM ended WHERE number IN (", "?", ")")
ACK = (
    "DELETE FROM ended WHERE stream=? AND stream<>'' AND number<=? AND until=0",
    "UPDATE ended SET stream='' WHERE stream=? AND stream<>'' AND number<=?",
)
