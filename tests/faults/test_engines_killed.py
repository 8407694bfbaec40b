"""The engine that everybody's queues live in is killed, again and again, and started on its files; so are its programs."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from nats_server import NatsCluster
from redis_server import RedisServer

from .cluster import Programs, until
from .passing import IN_HAND, Passed, pass_all, producers, workers

pytestmark = pytest.mark.faults

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
TASKS = int(os.environ.get("MANYHANDS_ENGINE_FAULT_TASKS", "100000" if IS_NIGHTLY else "900"))
KILLS = int(os.environ.get("MANYHANDS_ENGINE_FAULT_KILLS", "100" if IS_NIGHTLY else "6"))
SEED = int(os.environ.get("MANYHANDS_FAULT_SEED", "1"))
STREAM = "MANYHANDS_main"
"""Where the NATS engine keeps the queues of a URL that names no space."""


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


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsCluster]:
    folder = tmp_path / "nats"
    folder.mkdir()
    cluster = NatsCluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def mixed(rng: random.Random, *faults: Callable[[], object]) -> list[Callable[[], object]]:
    """KILLS of them, each kind as often as the others, in any order."""
    kills = [faults[n % len(faults)] for n in range(KILLS)]
    rng.shuffle(kills)
    return kills


def program_kills(programs: Programs, rng: random.Random) -> Sequence[Callable[[], None]]:
    """Kill a worker, kill a producer."""

    def kill_worker() -> None:
        programs.kill(rng.choice(workers()))

    def kill_producer() -> None:
        name = rng.choice(producers())
        if not programs.is_over(name):
            programs.kill(name)

    return kill_worker, kill_producer


def judge(passed: Passed, kills: int) -> None:
    print(passed)
    assert passed.twice == [], "two results of one task, although their ids derive from it"
    # Who was killed has run what it had in hand; so may have one that could not come back to the engine in time.
    assert passed.repeats <= IN_HAND * kills


def test_nothing_is_lost_though_valkey_and_its_programs_are_killed(programs: Programs, valkey: RedisServer) -> None:
    def kill_valkey() -> None:
        valkey.kill()
        valkey.start()

    rng = random.Random(SEED)
    kills = mixed(rng, *[kill_valkey] * 3, *program_kills(programs, rng))
    judge(pass_all(programs, valkey.url, TASKS, kills), len(kills))


def test_nothing_is_lost_though_nats_nodes_and_the_owners_of_its_queues_are_killed(
    programs: Programs, nats: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    owners = programs.folder / "owners"
    monkeypatch.setenv("MANYHANDS_TEST_OWNERS", str(owners))
    killed: list[str] = []

    def kill_owner() -> None:
        """The program that runs the rules, whichever it is; the collector may be it as well."""
        until(owners.exists, "an owner has said that it is one")
        pid = int(owners.read_text().split()[-1])
        name = next((name for name, process in programs.processes.items() if process.pid == pid), "")
        if name and not programs.is_over(name):
            programs.kill(name)

    def kill_node(name: str, at_once: Callable[[], object] = lambda: None) -> None:
        """And wait until it is back with all that it had missed: a second one away would leave no majority."""
        nats.kill(name)
        at_once()
        nats.restart(name)
        killed.append(name)
        until(nats.is_whole, "the cluster is whole again")

    def kill_the_leader() -> None:
        kill_node(nats.leader_of(STREAM))

    def kill_another() -> None:
        leader = nats.leader_of(STREAM)
        kill_node(rng.choice([node.name for node in nats.nodes if node.name != leader]))

    def kill_a_machine() -> None:
        """Of both the stream's leader and the owner: what the owner has said and the log did not take is found out."""
        kill_node(nats.leader_of(STREAM), kill_owner)

    rng = random.Random(SEED)
    kills = mixed(rng, kill_the_leader, kill_owner, kill_another, kill_a_machine, *program_kills(programs, rng))
    judge(pass_all(programs, nats.url, TASKS, kills), len(kills))
    print(f"killed nodes: {', '.join(killed)}; owners: {len(owners.read_text().split())}")
