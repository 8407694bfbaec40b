"""The contract suite on the engines of this project: the same tests on each set-up, named as in conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from manyhands.testing.contract import EngineContract, EngineFactory
from nats_server import NatsCluster, NatsServer
from redis_server import RedisCluster, RedisServer

from .factories import MemoryFactory, RemoteFactory, SpaceFactory, SqliteFactory


class TestMemory(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return MemoryFactory()


class TestSqlite(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return SqliteFactory(tmp_path)


class OnValkey(EngineContract):
    """A real server, shared by the tests of a class; each has a space of its own there."""

    server: ClassVar[RedisServer | RedisCluster]

    @staticmethod
    def make_server(folder: Path) -> RedisServer | RedisCluster:
        return RedisServer(folder)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.server = cls.make_server(tmp_path_factory.mktemp("valkey"))
        cls.server.start()
        yield
        cls.server.stop()


class TestValkey(OnValkey):
    """Three programs: what one's sessions wait for, another's bring about."""

    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return SpaceFactory(self.server, clients=3)


class OnNats(EngineContract):
    """Real servers, shared by the tests of a class; each has a space of its own there."""

    server: ClassVar[NatsServer | NatsCluster]

    @staticmethod
    def make_server(folder: Path) -> NatsServer | NatsCluster:
        return NatsServer(folder)

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def _server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        cls.server = cls.make_server(tmp_path_factory.mktemp("nats"))
        cls.server.start()
        yield
        cls.server.stop()


class TestNats(OnNats):
    """Two programs: one is the owner, the other speaks to it through NATS, and each session is at one of them."""

    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return SpaceFactory(self.server, clients=2)


if os.environ.get("MANYHANDS_CONTRACT") == "all":  # else conftest.py says that they were not run

    class TestValkeyCluster(OnValkey):
        """A minute of waiting for restarted nodes; tests/engines/test_redis_cluster.py has what is its own."""

        @staticmethod
        def make_server(folder: Path) -> RedisCluster:
            return RedisCluster(folder)

        def make_factory(self, tmp_path: Path) -> EngineFactory:
            return SpaceFactory(self.server)

    class TestNatsCluster(OnNats):
        """Three servers, three replicas."""

        @staticmethod
        def make_server(folder: Path) -> NatsServer | NatsCluster:
            return NatsCluster(folder)

        def make_factory(self, tmp_path: Path) -> EngineFactory:
            return SpaceFactory(self.server, clients=2)

    class TestRemoteValkey(OnValkey):
        """A server in front: TestValkey and TestRemoteMemory hold its two halves."""

        def make_factory(self, tmp_path: Path) -> EngineFactory:
            return RemoteFactory(SpaceFactory(self.server))


class TestRemoteMemory(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return RemoteFactory(MemoryFactory())


class TestRemoteSqlite(EngineContract):
    def make_factory(self, tmp_path: Path) -> EngineFactory:
        return RemoteFactory(SqliteFactory(tmp_path))
