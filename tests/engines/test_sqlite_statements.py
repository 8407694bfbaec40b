"""Rows in bulk: whatever their number, each is written once and in order."""

from __future__ import annotations

import sqlite3

import pytest

from manyhands.engines.sqlite.statements import Bulk


@pytest.mark.parametrize("n_rows", [0, 1, 2, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 79, 80, 81, 255, 256, 257, 600])
def test_every_row_is_written_once_and_in_order(n_rows: int) -> None:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.execute("CREATE TABLE pair (a INTEGER, b INTEGER)")
        said: list[str] = []
        connection.set_trace_callback(said.append)
        Bulk("INSERT INTO pair VALUES ", "(?,?)").run(connection, [k for n in range(n_rows) for k in (n, -n)])
        connection.set_trace_callback(None)
        assert list(connection.execute("SELECT a, b FROM pair ORDER BY rowid")) == [(n, -n) for n in range(n_rows)]
        assert len(said) <= 1 + n_rows // 256 + 3 + 3
        if 1 <= n_rows <= 16:
            assert len(said) == 1  # what waits for one commit is one statement
    finally:
        connection.close()
