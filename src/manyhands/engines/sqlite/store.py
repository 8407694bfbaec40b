"""Rows in and out of the file: one connection, used by one thread at a time, that does what it is told.

`Store.write` puts what a batch left behind (`lifecycle.rows.Rows`) on the disk in one transaction and returns when the
disk has it; `Store.load` reads everything back for a new core. Nothing here knows a queue's rules.

The file is opened in exclusive locking mode, which saves a shared-memory file and system calls in each transaction, and
keeps every other connection out: SQLite up to 3.51.2 can corrupt a log that two connections write or checkpoint at once.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from manyhands._faults import crashpoint, is_planted
from manyhands.engines.sqlite import schema
from manyhands.engines.sqlite import statements as sql
from manyhands.engines.sqlite.failing import FOREIGN, ours, translated
from manyhands.engines.sqlite.log import damaged_frame
from manyhands.engines.sqlite.reading import read
from manyhands.errors import EngineCorrupt, EngineUnavailable
from manyhands.lifecycle.changes import Snapshot
from manyhands.lifecycle.rows import Rows
from manyhands.model import Attempt

_FULL, _NORMAL = 2, 1  # what PRAGMA synchronous answers
_NEXT_N_BLOCK = 1 << 20
CHECKPOINT_PAGES = 1000  # 4 MB: what a full disk must still have room for, see reserve.py
CHECKPOINT_COMMITS = 2000
_LARGE_BYTES = 64 * 1024
_HUGE_BYTES = 1024 * 1024

_encode_message = _encode_holes = _encode_history = msgspec.msgpack.Encoder().encode


class Store:
    """An open store file. Made by `Store.open`; every method may raise what `failing.translated` makes of SQLite's errors.

    Attributes:
        epoch: how often this file was opened or reloaded, this time included.
        durability_text: what a commit means here, with the setting that was read back.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self.epoch = 0
        self.durability_text = ""
        self._db = connection
        self._is_open = True
        self._queue_ids: dict[str, int] = {}
        self._producers: set[int] = set()
        self._reserved_n = 0
        self._pages = 0.0
        self._commits = 0
        _open_stores.add(self)

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open the store at path, or make it; the caller must hold the owner lock.

        Raises:
            UsageError: it is a foreign file or of a newer format.
            EngineCorrupt: it is damaged. In both cases nothing was changed.
            EngineUnavailable: it cannot be opened, or its settings are not what durability needs.
        """
        if schema.is_new(path):
            schema.create(path)
        schema.check_header(path)
        frame = damaged_frame(Path(f"{path}-wal"))
        if frame:
            raise EngineCorrupt(
                f"The log {path.name}-wal of the store {path} is damaged at frame {frame}, and acknowledged messages lie "
                "behind it. Nothing was changed. Restore both files from a backup, or move the log away and "
                "do without its messages."
            )
        with translated(path):
            # mode=rw: never creates; the connection is used by the writer thread, and by close after that thread ended.
            connection = sqlite3.connect(
                f"{path.as_uri()}?mode=rw",
                uri=True,
                isolation_level=None,
                timeout=2.0,
                check_same_thread=False,
                cached_statements=512,
            )
        store = cls(path, connection)
        try:
            with translated(path):
                store._configure()
                store._verify()
                schema.upgrade(connection)
        except BaseException:
            store.abandon()
            raise
        return store

    def _configure(self) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")
        mode = execute("PRAGMA journal_mode=WAL").fetchone()[0]
        wanted = _NORMAL if is_planted("synchronous_normal") else _FULL
        execute(f"PRAGMA synchronous={wanted}")
        execute("PRAGMA fullfsync=ON")  # macOS: through the drive's cache too; nothing elsewhere
        execute("PRAGMA checkpoint_fullfsync=ON")
        execute("PRAGMA wal_autocheckpoint=0")  # done between batches, see checkpoint_if_due
        execute("PRAGMA secure_delete=OFF")
        execute("PRAGMA cache_size=-16384")
        synchronous = execute("PRAGMA synchronous").fetchone()[0]
        if mode != "wal" or synchronous != wanted:
            raise EngineUnavailable(
                f"{self.path} cannot be made durable: SQLite reports journal_mode={mode} and synchronous={synchronous} "
                "where wal and 2 (FULL) are needed. Keep the store on a local disk's file system."
            )
        self.durability_text = (
            f"Acknowledged means synced to the disk under {self.path.name}: it survives kill -9 of this process and power "
            f"loss (SQLite {sqlite3.sqlite_version}, journal_mode={mode}, synchronous={synchronous} FULL, as read back)."
        )

    def _verify(self) -> None:
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise EngineCorrupt(
                f"{self.path} is damaged ({found}). Nothing was changed. Restore it from a backup, or save what can be "
                "saved with the sqlite3 program's .recover."
            )

    # -- reading ------------------------------------------------------------------------------------------------------

    def load(self, wall: float, *, watermark_kept_s: float) -> Snapshot:
        """Count this opening, drop what has run out, and read everything that is left.

        Args:
            wall: UTC seconds now.
            watermark_kept_s: how long the watermarks of an ended session are kept.
        """
        try:
            with translated(self.path), self._transaction():
                self._db.execute("UPDATE meta SET value = value + 1 WHERE key = 'boots'")
                self._prune(wall, watermark_kept_s)
                meta = dict(self._db.execute("SELECT key, value FROM meta"))
                found = read(self._db, meta["next_n"])
                self._reserve_n(meta["next_n"])
        except (msgspec.MsgspecError, KeyError, TypeError, ValueError) as error:
            raise EngineCorrupt(
                f"{self.path} has a row that cannot be read ({error!r}). Nothing was changed. Restore it from a backup."
            ) from error
        self.epoch, self._queue_ids, self._producers = meta["boots"], found.queue_ids, found.producers
        return found.snapshot

    # -- writing ------------------------------------------------------------------------------------------------------

    def write(self, rows: Rows) -> None:
        """Put one batch on the disk, all or nothing; returns when the disk has it.

        Raises:
            DiskFull: nothing was stored; smaller writes may still succeed.
            DiskFailed: nobody knows what was stored; close and open again.
        """
        db = self._db
        try:
            try:
                db.execute("BEGIN IMMEDIATE")
                self._write_all(rows)
                crashpoint("commit.before")
                db.execute("COMMIT")
            except BaseException:
                self._roll_back()
                raise
        except FOREIGN as error:
            raise ours(self.path, error) from error
        self._commits += 1
        crashpoint("commit.after")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        if self._db.in_transaction:  # some errors make SQLite roll back by itself
            self._db.execute("ROLLBACK")

    def _write_all(self, rows: Rows) -> None:
        if rows.queues:
            self._set_queues(rows)
        if rows.stored:
            self._store(rows)
        if rows.freed or rows.leased or rows.buried or rows.cut:
            self._change_states(rows)
        if rows.produced:
            sql.PRODUCE.run(self._db, [value for n, ids in rows.produced.items() for id_ in ids for value in (n, id_)])
            self._producers.update(rows.produced)
        if rows.removed:
            self._remove(rows.removed)
        self._write_rest(rows)

    def _set_queues(self, rows: Rows) -> None:
        for change in rows.queues.values():
            self._db.execute("UPDATE queue SET maxsize=? WHERE id=?", (change.maxsize, self._queue_id(change.queue)))

    def _queue_id(self, name: str) -> int:
        id_ = self._queue_ids.get(name)
        if id_ is None:
            # Kept although the transaction may still fail: then the caller loads again, which reads the ids anew.
            id_ = max(self._queue_ids.values(), default=0) + 1
            self._db.execute("INSERT INTO queue (id, name) VALUES (?,?)", (id_, name))
            self._queue_ids[name] = id_
        return id_

    def _store(self, rows: Rows) -> None:
        flat: list[Any] = []
        ids: dict[str, int] = {}
        for n, change in rows.stored.items():
            id_ = ids.get(change.queue) or ids.setdefault(change.queue, self._queue_id(change.queue))
            data = _encode_message(change.message)
            if len(data) < _LARGE_BYTES:
                flat += (n, id_, data)
            else:
                self._store_large(n, id_, data)
        sql.STORE.run(self._db, flat)
        self._pages += len(flat) / 60
        if n >= self._reserved_n:
            self._reserve_n(n)

    def _store_large(self, n: int, queue_id: int, data: bytes) -> None:
        self._db.execute(sql.STORE_LARGE, (n, queue_id, data))
        self._pages += len(data) / 4096
        if len(data) >= _HUGE_BYTES:
            # A prepared statement keeps a copy of what was last bound to it; an insert that changes nothing frees it.
            self._db.execute(sql.STORE_LARGE.replace("INSERT", "INSERT OR IGNORE"), (n, queue_id, b""))

    def _reserve_n(self, n: int) -> None:
        # The number of a message is never used again, also after a restart: a high-water mark, moved once in a million.
        self._reserved_n = n + _NEXT_N_BLOCK
        self._db.execute("UPDATE meta SET value = ? WHERE key = 'next_n'", (self._reserved_n,))

    def _change_states(self, rows: Rows) -> None:
        if rows.freed:
            flat: list[Any] = []
            for freed in rows.freed.values():
                flat += (freed.n, freed.deliveries, freed.is_suspect, freed.due_at, _history(freed.history), freed.need)
            sql.FREE.run(self._db, flat)
        if rows.leased:
            flat = []
            for leased in rows.leased.values():
                flat += (leased.n, leased.deliveries, leased.token, leased.session)
            sql.LEASE.run(self._db, flat)
        if rows.buried:
            flat = []
            for buried in rows.buried.values():
                flat += (buried.n, buried.died_at, buried.reason, _history(buried.history))
            sql.BURY.run(self._db, flat)
        if rows.cut:
            sql.CUT.run(self._db, [value for cut in rows.cut.values() for value in (cut.n, cut.first, cut.end)])
        self._pages += (len(rows.freed) + len(rows.leased) + len(rows.buried)) / 20

    def _remove(self, removed: list[int]) -> None:
        for bulk in sql.REMOVE:
            bulk.run(self._db, removed)
        producers = self._producers.intersection(removed)
        if producers:
            sql.UNPRODUCE.run(self._db, list(producers))
            self._producers -= producers
        self._pages += len(removed) / 20

    def _write_rest(self, rows: Rows) -> None:
        db = self._db
        for c in rows.counted.values():
            db.execute(
                sql.COUNT,
                (c.unfinished, c.put_total, c.done_total, c.redelivered_total, c.dead_total, self._queue_id(c.queue)),
            )
        if rows.marked:
            flat: list[Any] = []
            for marked in rows.marked.values():
                flat += (marked.session, marked.stream, marked.seq, _encode_holes(marked.holes) if marked.holes else None)
            sql.MARK.run(db, flat)
        if rows.sessions:
            sql.SEE.run(db, [value for seen in rows.sessions.values() for value in (seen.session, seen.name, seen.ended_at)])
        if rows.dropped_results:
            sql.DROP_RESULT.run(db, list(rows.dropped_results))
        for kept in rows.kept_results.values():
            db.execute(sql.KEEP_RESULT, (kept.id, kept.queue, kept.value, kept.until))
            self._pages += len(kept.value or b"") / 4096
        if rows.ended or rows.acked or rows.dropped_ended:
            self._write_ended(rows)
        if rows.forgotten:
            sql.FORGET.run(db, list(rows.forgotten))
        if rows.remembered:
            sql.REMEMBER.run(db, [value for kept in rows.remembered.values() for value in (kept.id, kept.until)])
        self._pages += 3 + len(rows.marked) / 20

    def _write_ended(self, rows: Rows) -> None:
        db = self._db
        for stream, number in rows.acked.items():
            for statement in sql.ACK:
                db.execute(statement, (stream, number))
        if rows.dropped_ended:
            sql.DROP_ENDED.run(db, list(rows.dropped_ended))
        flat: list[Any] = []
        for e in rows.ended.values():
            row = (e.number, e.id, e.queue, e.value, e.until, e.stream, e.first, e.n, e.code, e.text)
            size_bytes = len(e.value or b"")
            self._pages += (size_bytes + 100) / 4096
            if size_bytes < _LARGE_BYTES:
                flat += row
            else:
                db.execute(sql.END_LARGE, row)
                if size_bytes >= _HUGE_BYTES:
                    db.execute(sql.END_LARGE, (e.number, "", "", b"", 0.0, "", 0, 0, "", ""))  # see _store_large
        sql.END.run(db, flat)

    # -- upkeep -------------------------------------------------------------------------------------------------------

    def prune(self, wall: float, *, watermark_kept_s: float) -> None:
        """Drop ended sessions whose time is over, with their watermarks, and ids remembered long enough."""
        with translated(self.path), self._transaction():
            self._prune(wall, watermark_kept_s)

    def _prune(self, wall: float, watermark_kept_s: float) -> None:
        over = "SELECT id FROM session WHERE ended_at > 0 AND ended_at < ?"
        self._db.execute(f"DELETE FROM watermark WHERE session IN ({over})", (wall - watermark_kept_s,))
        self._db.execute("DELETE FROM session WHERE ended_at > 0 AND ended_at < ?", (wall - watermark_kept_s,))
        self._db.execute("DELETE FROM remembered WHERE until < ?", (wall,))
        self._db.execute("DELETE FROM result WHERE until > 0 AND until < ?", (wall,))
        self._db.execute("DELETE FROM ended WHERE stream = '' AND until > 0 AND until < ?", (wall,))

    def checkpoint_if_due(self) -> None:
        """Copy the log into the file when it has grown enough; between batches, by the thread that writes."""
        if self._pages >= CHECKPOINT_PAGES or self._commits >= CHECKPOINT_COMMITS:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Copy the log into the file now; the next commit begins the log anew."""
        crashpoint("checkpoint.before")
        with translated(self.path):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        self._pages, self._commits = 0.0, 0

    def close(self) -> None:
        """Copy the log into the file and close it. Idempotent."""
        if not self._is_open:
            return
        self._is_open = False
        _open_stores.discard(self)
        with translated(self.path):
            self._db.close()

    def abandon(self) -> None:
        """Never touch the connection again, not even to free it; the process's end closes the file as a crash would.

        For a forked child: freed or closed there, SQLite would believe the parent's locks its own, copy the parent's log
        into the file and delete it. For a store that is damaged or whose disk failed: closing it would write to it.
        """
        if self._is_open:
            self._is_open = False
            _open_stores.discard(self)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))


def _history(history: list[Attempt]) -> bytes | None:
    return _encode_history(history) if history else None


_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


def _abandon_all() -> None:
    for store in list(_open_stores):
        store.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
