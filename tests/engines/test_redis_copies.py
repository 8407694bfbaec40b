"""`replicas=N`: nothing is told before as many replicas have it, and what is told survives the master's death."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from manyhands import events
from manyhands.cli import serve
from manyhands.engines.redis import RedisEngine, copies
from manyhands.engines.redis.where import parse
from manyhands.errors import EngineUnavailable, UsageError
from manyhands.model import Message
from manyhands.testing.contract.peer import Peer, eventually
from redis_server import RedisServer

if not hasattr(signal, "SIGSTOP"):  # nor is there a valkey-server
    pytest.skip("a replica cannot be stopped here", allow_module_level=True)

PATIENCE_S = 30.0


class Pair:
    """A master and its replica, and programs at the master."""

    def __init__(self, folder: Path, *settings: str) -> None:
        (folder / "master").mkdir()
        (folder / "replica").mkdir()
        self.master = RedisServer(folder / "master", settings=("--repl-diskless-sync-delay", "0"))
        self.replica = RedisServer(folder / "replica", settings=("--replicaof", f"127.0.0.1 {self.master.port}", *settings))
        self.engines: list[RedisEngine] = []

    def start(self) -> None:
        self.master.start()
        self.replica.start()
        eventually(lambda: "master_link_status:up" in self.replica.command("INFO", "replication"), "the replica follows")

    def peer(self, replicas: int = 1) -> Peer:
        """A session in a program of its own."""
        self.engines.append(RedisEngine(f"{self.master.url}?replicas={replicas}", connect_timeout_s=PATIENCE_S))
        return Peer(self.engines[-1])

    def freeze(self, how: int) -> None:
        assert self.replica.process is not None
        self.replica.process.send_signal(how)

    def promote(self) -> Peer:
        """The master is dead: the replica takes its place."""
        self.replica.command("REPLICAOF", "NO", "ONE")
        self.engines.append(RedisEngine(self.replica.url))
        return Peer(self.engines[-1])

    def stop(self) -> None:
        for engine in self.engines:
            engine.close()
        self.replica.stop()
        self.master.stop()


@pytest.fixture
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Pair]]:
    pairs: list[Pair] = []

    def make(*settings: str) -> Pair:
        pairs.append(Pair(tmp_path_factory.mktemp("pair"), *settings))
        pairs[-1].start()
        return pairs[-1]

    yield make
    for pair in pairs:
        if pair.replica.process is not None and hasattr(signal, "SIGCONT"):
            pair.freeze(signal.SIGCONT)
        pair.stop()


@pytest.mark.faults
def test_nothing_acknowledged_is_lost_when_the_master_is_killed_and_the_replica_promoted(make: Callable[..., Pair]) -> None:
    pair = make()
    producer, told, is_warm = pair.peer(), [], threading.Event()
    is_over = threading.Event()

    def produce() -> None:
        for n in range(1_000_000):
            put = producer.start(producer.put_request("q", Message(f"m{n}", str(n).encode())))
            while not put.is_answered:
                if is_over.wait(0.0002):
                    return
            told.append(str(n).encode())
            if len(told) == 200:
                is_warm.set()

    thread = threading.Thread(target=produce)
    thread.start()
    try:
        assert is_warm.wait(PATIENCE_S)
        pair.master.kill()
    finally:
        is_over.set()
        thread.join()
    found = {delivery.message.body for delivery in pair.promote().lease("q", 1_000_000)}
    assert set(told) - found == set()
    assert len(found) - len(told) <= 1, "what was on its way may be there; nothing else"


@pytest.mark.faults
@pytest.mark.parametrize("replicas", [0, 1])
def test_only_with_replicas_asked_for_is_a_put_that_the_master_alone_had_never_acknowledged(
    make: Callable[..., Pair], replicas: int, caplog: pytest.LogCaptureFixture
) -> None:
    pair = make()
    pair.peer(1).put_bodies("q", b"before")
    producer = pair.peer(replicas)
    pair.freeze(signal.SIGSTOP)
    put = producer.start(producer.put_request("q", Message("after", b"after")))
    if replicas:
        eventually(lambda: "too few replicas" in caplog.text, "it is said that nothing is acknowledged")
        assert not put.is_answered
    else:
        put.expect(events.Done)
    for server in (pair.master, pair.replica):  # what its kernel had received dies with it, as with a whole machine
        server.kill()
    pair.replica.start_alone()
    assert [each.message.body for each in pair.promote().lease("q", 10)] == [b"before"]


@pytest.mark.faults
def test_what_waits_for_replicas_is_told_when_they_are_back_and_done_once(
    make: Callable[..., Pair], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "manyhands.engines.redis.writer")
    pair = make()
    peer, other = pair.peer(), pair.peer(0)
    peer.declare("narrow", 1)
    peer.put_bodies("narrow", b"in the way")
    put = peer.start(peer.put_request("narrow", Message("next", b"next"), wait_s=events.FOREVER))
    peer.ping()
    pair.freeze(signal.SIGSTOP)
    # Another program, which waits for nobody, makes room: what that brings about for this one is news.
    assert other.take("narrow").message.body == b"in the way"
    eventually(lambda: "too few replicas" in caplog.text, "it is said that nothing is acknowledged")
    later = peer.start(peer.put_request("wide", Message("later", b"later")))
    assert not put.is_answered
    assert not later.is_answered
    pair.freeze(signal.SIGCONT)
    put.expect(events.Done, PATIENCE_S)
    later.expect(events.Done, PATIENCE_S)
    assert "again" in caplog.text
    assert [peer.size(name).ready for name in ("narrow", "wide")] == [1, 1]


def test_too_few_replicas_are_refused_in_a_sentence(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:
        with pytest.raises(EngineUnavailable, match=r"replicas=2 asks for 2 replicas, and 0 confirmed .* ask for fewer\.$"):
            RedisEngine(f"{server.url}?replicas=2", connect_timeout_s=0.1)
    finally:
        server.stop()


@pytest.mark.parametrize("number", ["-1", "many", "", "10"])
def test_a_number_of_replicas_that_is_none_is_refused(number: str) -> None:
    with pytest.raises(UsageError, match="replicas="):
        parse(f"redis://localhost?replicas={number}")


def test_replicas_that_write_to_disk_are_waited_for_until_they_have(make: Callable[..., Pair]) -> None:
    durability = make().peer().port.attached.durability
    assert durability.level == "replicated"
    assert "1 replica have it on disk before it is acknowledged (WAITAOF)" in durability.text
    assert durability.weaker == ""


def test_weaker_than_asked_is_logged_and_shown(
    make: Callable[..., Pair],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(copies, "_PROBE_S", 0.2)
    durability = make("--appendonly", "no").peer().port.attached.durability
    assert durability.level == "replicated"
    assert "1 replica has it in memory before it is acknowledged (WAIT)" in durability.text
    assert "in memory only" in durability.weaker
    assert "in memory only" in caplog.text
    serve.announce("tcp://127.0.0.1:5959", "redis://", durability, "argument", as_json=False)
    assert "weaker" in capsys.readouterr().out
