"""The contract suite on the engines of this project: the same tests on four set-ups, named as in conftest.py."""

from __future__ import annotations

from pathlib import Path

from manyhands.testing.contract import EngineContract, EngineFactory

from .factories import MemoryFactory, RemoteFactory, SqliteFactory


class TestMemory(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return MemoryFactory()


class TestSqlite(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return SqliteFactory(tmp_path)


class TestRemoteMemory(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return RemoteFactory(MemoryFactory())


class TestRemoteSqlite(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return RemoteFactory(SqliteFactory(tmp_path))
