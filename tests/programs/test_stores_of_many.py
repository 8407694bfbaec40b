"""Whole programs with a Redis or NATS URL for an address: the tutorial's, the command line's, a server in front of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from manyhands.engines.opening import open_engine
from manyhands.testing.contract.peer import Peer, message
from nats_server import NatsServer
from redis_server import RedisServer

from .lab import Lab, program_text
from .test_killed_workers import WORKER, results, stop
from .test_troubles import MASTER, changed

pytestmark = [pytest.mark.programs, pytest.mark.faults]
KEY = "a key of sixteen bytes and more"
SERVER = """
import pathlib, sys
sys.path.insert(0, {tests!r})
from {module} import {kind}
server = {kind}(pathlib.Path({folder!r}))
server.start()
print("at", server.url)
sys.stdin.read()
"""


STORES = {"redis": RedisServer, "nats": NatsServer}


@pytest.fixture(params=STORES)
def scheme(request: pytest.FixtureRequest) -> str:
    found = request.param
    assert isinstance(found, str)
    return found


@pytest.fixture
def store(scheme: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server of its own."""
    server = STORES[scheme](tmp_path_factory.mktemp(scheme))
    server.start()
    yield server.url
    server.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_the_tutorials_programs_run_with_their_queues_in_a_store_and_a_killed_worker_loses_nothing(
    scheme: str, tmp_path: Path
) -> None:
    with Lab(tmp_path) as lab:
        # In the lab's own network; the lab ends it with its process group.
        kind = STORES[scheme]
        text = SERVER.format(
            tests=str(Path(__file__).parents[1]), folder=str(tmp_path), module=kind.__module__, kind=kind.__name__
        )
        server = lab.start("server", text)
        server.prints(f"at {scheme}://")
        url = f'"{server.out.split()[1]}"'
        master = lab.start("master", changed(program_text(MASTER), '("127.0.0.1", 5000)', url))
        master.prints("ready")
        worker = changed(program_text(WORKER), "(server_addr, 5000)", url)
        master.say("put 1 2 3 4")
        first = lab.start("first", worker)
        first.prints("run task", 2)
        first.kill()
        lab.start("second", worker)
        master.say("collect 4 20")
        master.prints("collected", timeout_s=60)
        assert sorted(results(master)) == [1, 2, 3, 4], master.report()
        stop(master)


def test_a_server_in_front_of_a_store_and_a_program_at_the_store_itself_share_the_queues(store: str, start: Start) -> None:
    keys = {"MANYHANDS_AUTHKEY": KEY}
    front = start("serve", "-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--store", store, "--json", env=keys)
    front.prints('"url"')
    said = json.loads(front.out)
    assert ("appendfsync always" if store.startswith("redis") else "one replica: survives") in said["durability"]
    with mh.connect(said["url"], KEY) as behind, mh.connect(store, KEY) as beside:
        behind.queue("tasks").put("through the server")
        assert beside.queue("tasks").get(timeout=10) == "through the server"
        beside.queue("results").put("past the server")
        assert behind.queue("results").get(timeout=10) == "past the server"
    status = start("status", "-m", "manyhands", "status", "--url", store, "--json", env=keys)
    status.ends_quietly()
    assert {queue["name"] for queue in json.loads(status.out)["queues"]} >= {"tasks", "results"}


def test_workers_at_a_store_run_what_any_program_there_submits(store: str, start: Start) -> None:
    worker = start("worker", "-m", "manyhands", "worker", store, "--concurrency", "2", env={"MANYHANDS_AUTHKEY": KEY})
    with mh.connect(store, KEY) as client:
        assert client.submit(pow, 2, 3).result(timeout=60) == 8
    with mh.Executor(url=store, authkey=KEY) as executor:
        assert list(executor.map(abs, range(-300, 0))) == list(range(300, 0, -1))
        assert executor.submit(divmod, 7, 2).result(timeout=60) == (3, 1)
    worker.process.terminate()
    assert worker.ends() == 0 or os.name != "posix"


def test_a_forged_message_is_refused_and_parked(store: str) -> None:
    intruder = open_engine(store)
    try:
        with mh.connect(store, KEY) as client:
            queue = client.queue("mail")
            Peer(intruder).put("mail", message(b"cos\nsystem\n(S'echo mine'\ntR.", id="forged"))
            queue.put("honest")
            assert queue.get(timeout=10) == "honest"
            (letter,) = client.dead("mail").list()
            assert letter.message.id == "forged"
    finally:
        intruder.close()


def test_a_password_is_never_printed(tmp_path: Path, start: Start) -> None:
    locked = RedisServer(tmp_path, settings=("--requirepass", "hush"))
    locked.start()
    try:
        url = f"redis://:hush@127.0.0.1:{locked.port}"
        front = start(
            "serve", "-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--store", url, env={"MANYHANDS_AUTHKEY": KEY}
        )
        front.prints("Ctrl-C")
        worker = start("worker", "-m", "manyhands", "worker", url, "--concurrency", "1", env={"MANYHANDS_AUTHKEY": KEY})
        worker.prints("works for")
        assert "hush" not in front.out + front.err + worker.out + worker.err
        worker.process.terminate()
        worker.ends()
        if os.name == "posix":
            front.process.terminate()
            front.ends_quietly()
    finally:
        locked.stop()
