"""The file's format: its tables, how a new one is made, and what is looked at before an old one is trusted.

A file is recognised by two numbers in SQLite's own header: `application_id` (is it ours?) and `user_version` (do we know
the format?). Both are read with plain file reads before SQLite may touch the file, so that a foreign, newer or damaged file
is refused with not one byte of it changed. A new store is made under another name and moved into place when it is whole:
at its own name there is never a half-made one, and so never a reason to start over an existing file.

Why these tables: docs/adr/0015.
"""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from manyhands.errors import EngineCorrupt, EngineUnavailable, UsageError

APPLICATION_ID = 0x4D4E5948  # "MNYH"
FORMAT = 2
_UPGRADABLE = 1

_MAGIC = b"SQLite format 3\x00"
_USER_VERSION_AT, _APPLICATION_ID_AT, _HEADER_BYTES = 60, 68, 100

# What format 2 has beyond format 1: calls, which part ways, wait for a need, and end in streams.
ADDED = """
ALTER TABLE state ADD COLUMN need TEXT NOT NULL DEFAULT '';
ALTER TABLE state ADD COLUMN first INTEGER NOT NULL DEFAULT 0;
ALTER TABLE state ADD COLUMN last INTEGER NOT NULL DEFAULT 0;
CREATE TABLE ended (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, queue TEXT NOT NULL, value BLOB, until REAL NOT NULL, stream TEXT NOT NULL,
    first INTEGER NOT NULL, n INTEGER NOT NULL, code TEXT NOT NULL, text TEXT NOT NULL
);
CREATE INDEX ended_stream ON ended (stream, number) WHERE stream <> '';
"""
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE queue (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, maxsize INTEGER NOT NULL DEFAULT 0,
    unfinished INTEGER NOT NULL DEFAULT 0, put_total INTEGER NOT NULL DEFAULT 0, done_total INTEGER NOT NULL DEFAULT 0,
    redelivered_total INTEGER NOT NULL DEFAULT 0, dead_total INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE message (n INTEGER PRIMARY KEY, queue INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE state (
    n INTEGER PRIMARY KEY, deliveries INTEGER NOT NULL DEFAULT 0, is_suspect INTEGER NOT NULL DEFAULT 0,
    due_at REAL NOT NULL DEFAULT 0, token INTEGER NOT NULL DEFAULT 0, session TEXT NOT NULL DEFAULT '',
    history BLOB, died_at REAL NOT NULL DEFAULT 0, reason TEXT NOT NULL DEFAULT ''
);
CREATE TABLE produced (n INTEGER NOT NULL, put_id TEXT NOT NULL, PRIMARY KEY (n, put_id)) WITHOUT ROWID;
CREATE TABLE watermark (
    session TEXT NOT NULL, stream TEXT NOT NULL, seq INTEGER NOT NULL, holes BLOB, PRIMARY KEY (session, stream)
) WITHOUT ROWID;
CREATE TABLE session (id TEXT PRIMARY KEY, name TEXT NOT NULL, ended_at REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE result (id TEXT PRIMARY KEY, queue TEXT NOT NULL, value BLOB NOT NULL, until REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE remembered (id TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('boots', 0), ('next_n', 1);
"""


def is_new(path: Path) -> bool:
    """Whether there is no store yet: no file, or an empty one (as `touch` and tempfile leave).

    Raises:
        EngineCorrupt: there is nothing at path, but a write-ahead log with content lies beside it.
    """
    try:
        if path.stat().st_size > 0:
            return False
        was = "is empty"
    except FileNotFoundError:
        was = "is gone"
    log = Path(f"{path}-wal")
    if log.exists() and log.stat().st_size > 0:
        raise EngineCorrupt(
            f"{path} {was}, but its write-ahead log {log.name} still holds messages. Nothing was changed. Put the store's "
            f"file back beside it, or move {log.name} away to begin with an empty store."
        )
    return True


def create(path: Path) -> None:
    """Make an empty store at path, whole or not at all.

    Raises:
        EngineUnavailable: the folder does not exist, is not writable or is full.
    """
    unfinished = Path(f"{path}.new")
    try:
        for leftover in (unfinished, Path(f"{unfinished}-wal"), Path(f"{unfinished}-shm"), Path(f"{unfinished}-journal")):
            leftover.unlink(missing_ok=True)
        connection = sqlite3.connect(unfinished, isolation_level=None)
        try:
            connection.execute("PRAGMA page_size=4096")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA journal_mode=WAL")
            connection.executescript(
                f"BEGIN; {TABLES} {ADDED} PRAGMA application_id={APPLICATION_ID}; PRAGMA user_version={FORMAT}; COMMIT;"
            )
        finally:
            connection.close()  # the last connection: copies the log into the file, syncs it and deletes the log
        os.replace(unfinished, path)
        _sync_folder(path.parent)
    except (OSError, sqlite3.Error) as error:
        raise EngineUnavailable(
            f"Cannot create the store {path}: {error}. Check that the folder exists, can be written to and has space."
        ) from error


def _sync_folder(folder: Path) -> None:
    # Makes the new name itself durable. Windows has no such call: there the file system's own journal does it.
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_header(path: Path) -> None:
    """Refuse what is not a store of this format, without SQLite's help and without changing anything.

    Raises:
        UsageError: a foreign SQLite file, or one written by a newer manyhands.
        EngineCorrupt: not an SQLite file (any more).
        EngineUnavailable: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_BYTES)
    except OSError as error:
        raise EngineUnavailable(f"Cannot read the store {path}: {error}. Check its path and permissions.") from error
    if len(header) < _HEADER_BYTES or not header.startswith(_MAGIC):
        raise EngineCorrupt(
            f"{path} does not begin as an SQLite file does: it is another kind of file, or it was damaged. "
            "Nothing was changed. Name another path, or restore the file from a backup."
        )
    application_id = int.from_bytes(header[_APPLICATION_ID_AT : _APPLICATION_ID_AT + 4], "big")
    version = int.from_bytes(header[_USER_VERSION_AT : _USER_VERSION_AT + 4], "big")
    if application_id != APPLICATION_ID:
        raise UsageError(
            f"{path} is an SQLite database of another program (application id {application_id:#x}, ours is "
            f"{APPLICATION_ID:#x}). Nothing was changed. Name a path of its own for the store."
        )
    if version not in (FORMAT, _UPGRADABLE):
        raise UsageError(
            f"{path} has format {version} and this manyhands knows format {FORMAT}. Nothing was changed. "
            "Open it with the version that wrote it, or a newer one."
        )


def upgrade(connection: sqlite3.Connection) -> None:
    """Give a file of the format before this one what it lacks, whole or not at all; one of this format stays as it is."""
    if connection.execute("PRAGMA user_version").fetchone()[0] == FORMAT:
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in filter(str.strip, ADDED.split(";")):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={FORMAT}")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
