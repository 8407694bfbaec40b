"""Queues in one SQLite file: durable, with one owner."""

from manyhands.engines.sqlite.engine import SqliteEngine

__all__ = ["SqliteEngine"]
