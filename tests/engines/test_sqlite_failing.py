"""When a commit fails: nothing of it is told, nobody waits for ever, and what was acknowledged before stands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from manyhands.engines.sqlite import SqliteEngine
from manyhands.engines.sqlite.failing import DiskFailed, DiskFull
from manyhands.engines.sqlite.store import Store
from manyhands.errors import EngineUnavailable, from_code
from manyhands.events import Done, Failed, Granted, Settled
from manyhands.lifecycle.rows import Rows
from manyhands.model import Settlement
from manyhands.testing.contract import Peer, eventually, message

pytestmark = pytest.mark.faults


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[SqliteEngine]:
    engine = SqliteEngine(tmp_path / "jobs.db")
    yield engine
    engine.close()


class Trouble:
    """Makes the next n commits that have anything to write fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        self.n = 0
        real = Store.write

        def write(store: Store, rows: Rows) -> None:
            if self.n:
                self.n -= 1
                raise error
            real(store, rows)

        monkeypatch.setattr(Store, "write", write)


@pytest.fixture(params=[DiskFull("full"), RuntimeError("a bug of ours")], ids=["disk full", "a bug"])
def trouble(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Trouble:
    return Trouble(monkeypatch, request.param)


def test_a_put_whose_commit_failed_is_refused_and_its_resend_is_taken(engine: SqliteEngine, trouble: Trouble) -> None:
    peer = Peer(engine)
    put = peer.put_request("mail", message(b"a letter"))

    trouble.n = 1
    assert peer.start(put).refusal() == "engine_unavailable"

    def is_taken() -> bool:  # a full disk looks for room once a second
        return isinstance(peer.start(put).answer(), Done)

    eventually(is_taken, "the resend is taken")
    assert [delivery.message.body for delivery in peer.lease("mail", 9)] == [b"a letter"]


def test_everybody_who_waits_gets_an_answer_when_another_ones_commit_fails(engine: SqliteEngine, trouble: Trouble) -> None:
    waiting, putting = Peer(engine), Peer(engine)
    lease = waiting.start_lease("other queue")
    result = waiting.start_lease("mail")
    waiting.ping()

    trouble.n = 1
    put = putting.start(putting.put_request("mail", message()))

    assert {put.refusal(), lease.refusal(), result.refusal()} == {"engine_unavailable"}
    assert waiting.lease("mail") == [], "what was not stored was not handed out"


def test_a_lease_from_before_the_failure_can_still_be_settled(engine: SqliteEngine, trouble: Trouble) -> None:
    peer, other = Peer(engine), Peer(engine)
    peer.put("mail", message())
    delivery = peer.take("mail")

    trouble.n = 1
    assert other.start(other.put_request("mail", message())).refusal() == "engine_unavailable"

    assert peer.ack(delivery)
    assert peer.size("mail").leased == 0


def test_a_settlement_whose_commit_failed_can_be_sent_again(engine: SqliteEngine, trouble: Trouble) -> None:
    peer = Peer(engine)
    peer.put("mail", message())
    delivery = peer.take("mail")
    settle = peer.settle_request(Settlement(delivery.token))

    trouble.n = 1
    assert peer.start(settle).refusal() == "engine_unavailable"

    assert peer.start(settle).expect(Settled).lost == []


def test_a_put_under_a_lease_that_failed_gives_the_lease_back(engine: SqliteEngine, trouble: Trouble) -> None:
    """The settlement that follows it may already be on its way; it must not finish what caused the lost put."""
    peer = Peer(engine)
    peer.put("tasks", message(b"task"))
    delivery = peer.take("tasks")

    trouble.n = 1
    assert peer.start(peer.put_request("results", message(), cause=delivery.token)).refusal() == "engine_unavailable"

    assert peer.settle(Settlement(delivery.token)) == [delivery.token]
    assert peer.take("tasks").message.body == b"task"


def test_tokens_of_a_core_that_was_thrown_away_are_not_used_again(engine: SqliteEngine, trouble: Trouble) -> None:
    peer, other = Peer(engine), Peer(engine)
    peer.put_bodies("mail", b"1", b"2", b"3")
    before = peer.take("mail").token

    trouble.n = 1
    other.start(other.put_request("mail", message())).refusal()

    assert peer.take("mail").token > before


def test_attaching_while_commits_fail_is_refused_and_hangs_nobody(engine: SqliteEngine, trouble: Trouble) -> None:
    trouble.n = 1
    with pytest.raises(EngineUnavailable):
        Peer(engine)

    Peer(engine).ping()


def test_a_disk_that_failed_stops_the_engine_until_it_is_opened_again(
    engine: SqliteEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer, waiting = Peer(engine), Peer(engine)
    peer.put("mail", message(b"before"))
    lease = waiting.start_lease("other queue")
    waiting.ping()

    Trouble(monkeypatch, DiskFailed("the disk failed")).n = 1
    assert peer.start(peer.put_request("mail", message(b"lost"))).refusal() == "engine_unavailable"
    assert lease.refusal() == "engine_unavailable"
    assert peer.start_lease("mail").refusal() == "engine_unavailable"
    with pytest.raises(EngineUnavailable):
        Peer(engine)
    engine.close()

    again = SqliteEngine(engine.path)
    assert [found.body for found in Peer(again).peek("mail")] == [b"before"]
    again.close()


# -- a disk that is really full --------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("A FULL DISK IS NOT PROVEN HERE: mounting a small file system needs root on Linux")
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("A FULL DISK IS NOT PROVEN HERE: this container may not mount file systems")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_refuses_puts_and_still_finishes_what_is_there(small_disk: Path) -> None:
    engine = SqliteEngine(small_disk / "jobs.db")
    peer = Peer(engine)
    n_acked, reply = 0, None
    while not isinstance(reply, Failed):
        reply = peer.start(peer.put_request("mail", *[message(bytes(1000)) for _ in range(200)])).answer()
        n_acked += 200 * isinstance(reply, Done)
    error = from_code(reply.code, reply.text)

    assert isinstance(error, EngineUnavailable)
    assert "full" in str(error)
    assert peer.start(peer.put_request("mail", message())).refusal() == "engine_unavailable"
    n_finished = 0
    for _ in range(20):
        deliveries = peer.start_lease("mail", 50, wait_s=0.0).expect(Granted).deliveries
        assert peer.settle(*[Settlement(delivery.token) for delivery in deliveries]) == []
        n_finished += len(deliveries)
    assert n_finished == 1000
    engine.close()

    reopened = SqliteEngine(small_disk / "jobs.db")
    assert Peer(reopened).size("mail").ready == n_acked - n_finished
    reopened.close()


def test_puts_are_taken_again_when_there_is_room(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(4_000_000))
    engine = SqliteEngine(small_disk / "jobs.db")
    peer = Peer(engine)
    while isinstance(peer.start(peer.put_request("mail", message(bytes(500_000)))).answer(), Done):
        pass

    ballast.unlink()

    eventually(
        lambda: isinstance(peer.start(peer.put_request("mail", message(b"again"))).answer(), Done), "puts are taken again"
    )
    engine.close()


def test_a_store_on_a_full_disk_can_be_opened(small_disk: Path) -> None:
    SqliteEngine(small_disk / "jobs.db").close()
    ballast = os.open(small_disk / "ballast", os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):  # until there is no space left
        while os.write(ballast, bytes(100_000)):
            pass
    os.close(ballast)

    engine = SqliteEngine(small_disk / "jobs.db")

    assert Peer(engine).size("mail").ready == 0
    engine.close()
