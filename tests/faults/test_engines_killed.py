"""The Valkey that everybody's queues live in is killed, again and again, and started on its files; so are its programs."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from redis_server import RedisServer

from .cluster import Programs
from .passing import IN_HAND, pass_all, producers, workers

pytestmark = pytest.mark.faults

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
TASKS = int(os.environ.get("MANYHANDS_ENGINE_FAULT_TASKS", "100000" if IS_NIGHTLY else "3000"))
KILLS = int(os.environ.get("MANYHANDS_ENGINE_FAULT_KILLS", "100" if IS_NIGHTLY else "5"))
SEED = int(os.environ.get("MANYHANDS_FAULT_SEED", "1"))


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    programs = Programs(tmp_path)
    try:
        yield programs
    finally:
        programs.close()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RedisServer]:
    folder = tmp_path / "valkey"
    folder.mkdir()
    # It rewrites its file while it is killed, too, and reads less back each time.
    server = RedisServer(folder, settings=("--auto-aof-rewrite-min-size", "8mb"))
    server.start()
    yield server
    server.stop()


def mixed(programs: Programs, rng: random.Random, kill_engine: Callable[[], object]) -> list[Callable[[], object]]:
    """Of every five kills three are the engine's, one is a worker, one a producer."""

    def kill_worker() -> None:
        programs.kill(rng.choice(workers()))

    def kill_producer() -> None:
        name = rng.choice(producers())
        if not programs.is_over(name):
            programs.kill(name)

    kills = [(kill_engine, kill_worker, kill_engine, kill_producer, kill_engine)[n % 5] for n in range(KILLS)]
    rng.shuffle(kills)
    return kills


def test_nothing_is_lost_though_valkey_and_its_programs_are_killed(programs: Programs, valkey: RedisServer) -> None:
    def kill_valkey() -> None:
        valkey.kill()
        valkey.start()

    kills = mixed(programs, random.Random(SEED), kill_valkey)
    passed = pass_all(programs, valkey.url, TASKS, kills)
    print(passed)
    assert passed.twice == [], "a result came twice although its id derives from its task's"
    # A worker that was killed has run what it had in hand; so may have one that could not come back in time to Valkey.
    assert passed.repeats <= IN_HAND * len(kills)
