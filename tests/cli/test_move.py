"""`manyhands queue move` as a person meets it: what it says, what it ends with, and that it survives being killed."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from manyhands.cli import move as moving
from manyhands.cli.exits import Exit
from manyhands.moving import Progress
from nats_server import NatsServer
from programs.lab import Program, until
from redis_server import RedisServer

from .conftest import Command

KEY = "the key of all of them"


@pytest.fixture
def key(tmp_path: Path) -> str:
    """`@FILE` of a key that is not this user's kept one."""
    (tmp_path / "key").write_text(KEY)
    return f"@{tmp_path / 'key'}"


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'jobs.db'}"


def test_queues_are_moved_and_the_numbers_said(server: mh.Server, store: str, key: str, command: Command) -> None:
    server.queue("mail").put_many(range(3))
    server.queue("mail").put("later", delay_s=60)
    server.queue("other").put(1)
    answer = command("queue", "move", server.url, store, "--queue", "mail", "--to-authkey", key)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Moved 4 messages of 1 queues")
    assert "Still connected to the source" in answer.out
    said = command("queue", "move", server.url, store, "--to-authkey", key, "--json").json
    assert (said["moved"], said["left"]) == (1, 0)
    with mh.connect(store, KEY) as client:
        assert client.queue("mail").get_many(10) == [0, 1, 2]
        assert client.queue("other").get() == 1


def test_a_store_is_moved_without_a_server(server: mh.Server, store: str, key: str, command: Command) -> None:
    with mh.connect(store, KEY) as client:
        client.queue("mail").put("x")
    own = f"@{_kept_key()}"
    assert command("queue", "move", store, server.url, "--authkey", key, "--to-authkey", own).code == 0
    assert server.queue("mail").get(timeout=5) == "x"


def _kept_key() -> Path:
    from manyhands.settings import key_file

    return key_file()


def test_errors_are_one_sentence_with_their_codes(server: mh.Server, store: str, key: str, command: Command) -> None:
    server.queue("mail").put(1)
    for words, code, text in [
        (("memory://", server.url), Exit.USAGE, "empty in a new process"),
        ((store, server.url), Exit.USAGE, "does not exist"),
        ((server.url, server.url), Exit.USAGE, "same queues"),
        ((server.url, store, "--queue", "mial", "--to-authkey", key), Exit.NOT_FOUND, "there are: mail"),
        (("tcp://127.0.0.1:1", store, "--to-authkey", key), Exit.CANNOT_CONNECT, "127.0.0.1:1"),
        ((server.url, store), Exit.USAGE, "needs a key"),
        ((server.url, "smtp://x"), Exit.USAGE, "smtp://"),
        ((server.url, store, "--authkey", key), Exit.WRONG_KEY, "key"),
    ]:
        answer = command("queue", "move", *words)
        assert (answer.code, answer.err.count("\n")) == (code, 1), answer
        assert text in answer.err
    assert not Path(store.removeprefix("sqlite:///")).exists() or server.queue("mail").qsize() == 1


def test_a_message_too_large_for_the_target_is_told_and_fails(
    server: mh.Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = Progress(moved=1, too_large=2)
    monkeypatch.setattr("manyhands.moving.Mover.run", lambda self, show: done)
    other = mh.serve("tcp://127.0.0.1:0")
    with other:
        answer = command("queue", "move", server.url, other.url)
    assert answer.code == Exit.USAGE
    assert "2 messages are over max_body_bytes" in answer.err


def test_what_stays_or_happened_is_said_in_a_sentence_each() -> None:
    said = moving.said(
        Progress(moved=5, dead=2, left=1, staying=3, dead_staying=7, refused=4, overtaken=6, queues=2, users=tuple("abcdef"))
    )
    assert len(said) == 8
    assert [text for text in said if "2 dead letters" in text or "may run twice" in text]
    assert said[-1] == "Still connected to the source: a, b, c, d, e …."


def test_progress_without_a_terminal_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    show = moving.lines("A → B", lambda: now)
    show(Progress(moved=10, left=90))
    assert capsys.readouterr().err == ""
    now = 10.0
    show(Progress(moved=50, left=50))
    show(Progress(moved=51, left=49))
    assert capsys.readouterr().err == "A → B: 50 moved, 50 left, 5/s\n"
    now = 20.0
    show(Progress(moved=100, users=("x",), is_idle=True))
    assert "nothing left, 1 other programs are still connected there" in capsys.readouterr().err


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with moving.shower("A → B", as_json=False) as show:
        show(Progress(moved=50, left=50))
    assert "50/100" in capsys.readouterr().out


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[RedisServer]:
    (tmp_path / "valkey").mkdir()
    server = RedisServer(tmp_path / "valkey", fsync="everysec")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def mover(start: Start, valkey: RedisServer) -> Callable[..., Program]:
    """Starts a move to the Valkey."""

    def mover(source: str, *words: str) -> Program:
        command = ("queue", "move", source, valkey.url, "--json", *words)
        return start(f"move{next(_numbers)}", "-m", "manyhands", *command, env={"MANYHANDS_AUTHKEY": KEY})

    return mover


_numbers = iter(range(1000))


@pytest.mark.programs
@pytest.mark.faults
def test_a_move_under_load_that_is_killed_and_started_again_loses_and_doubles_nothing(
    start: Start, valkey: RedisServer, mover: Callable[..., Program]
) -> None:
    """Producers put at the source all the while; kill -9 comes twice in the middle; the last run takes the rest."""
    serve = start(
        "serve", "-m", "manyhands", "serve", "tcp://127.0.0.1:0", "--store", "sqlite:///jobs.db",
        env={"MANYHANDS_AUTHKEY": KEY},
    )  # fmt: skip
    serve.prints("Ctrl-C")
    url = serve.out.split()[3]
    n_each, producers_n, killed_n = 3000, 2, 2
    with mh.connect(url, KEY) as source, mh.connect(valkey.url, KEY) as target:
        source.queue("work").put_many(("before", n) for n in range(n_each))

        def produce(name: int) -> None:
            with mh.connect(url, KEY) as client:
                for n in range(0, n_each, 50):
                    client.queue("work").put_many((name, n + k) for k in range(50))

        producers = [threading.Thread(target=produce, args=(name,)) for name in range(producers_n)]
        for producer in producers:
            producer.start()

        def arrived() -> int:
            return sum(stats.put_total for stats in target.stats("work").queues)

        for _ in range(killed_n):
            running, seen = mover(url, "--follow"), arrived()
            until(lambda seen=seen: arrived() > seen + 200, "some have arrived")  # type: ignore[misc]
            running.kill()
        for producer in producers:
            producer.join()
        last = mover(url)
        last.ends_quietly()
        assert '"left": 0' in last.out
        got: list[object] = []
        work = target.queue("work")
        while work.qsize():
            got += work.get_many(1000, timeout=5)
        work.task_done()
        assert source.queue("work").qsize() == 0
    want = [(name, n) for name in ("before", *range(producers_n)) for n in range(n_each)]
    assert len(got) == len(want), "none is doubled"
    assert set(got) == set(want), "none is lost"


@pytest.mark.programs
def test_from_valkey_to_nats(valkey: RedisServer, tmp_path: Path, command: Command, key: str) -> None:
    """The next step up, with the URL's other name, and one step back."""
    (tmp_path / "nats").mkdir()
    nats = NatsServer(tmp_path / "nats")
    nats.start()
    try:
        place = valkey.url.replace("redis", "valkey")
        with mh.connect(place, KEY) as source, mh.connect(nats.url, KEY) as target:
            source.queue("mail").put_many(range(2000))
            source.queue("mail").put("urgent", priority=9)
            source.queue("mail").put("later", delay_s=600)
            source.queue("dead").put("x", id="mine")
            with source.queue("dead").receive() as received:
                received.reject("no")
            said = command("queue", "move", place, nats.url, "--authkey", key, "--json").json
            assert (said["moved"], said["left"], said["overtaken"]) == (2002, 0, 0)
            assert (said["dead"], said["dead_staying"]) == (1, 0)
            (letter,) = target.dead("dead").list()
            assert (letter.message.id, letter.reason) == ("mine", "no")
            got: list[object] = []
            while len(got) < 2001:
                got += target.queue("mail").get_many(500, timeout=10)
            assert sorted(map(str, got)) == sorted([*map(str, range(2000)), "urgent"])
            (numbers,) = target.stats("mail").queues
            assert numbers.delayed == 1
            back = command("queue", "move", nats.url, place, "--queue", "dead", "--authkey", key, "--json").json
            assert back["dead"] == 1
            assert [letter.message.id for letter in source.dead().list()] == ["mine"]
    finally:
        nats.stop()


@pytest.mark.programs
@pytest.mark.skipif(sys.platform == "win32", reason="a console event would reach the tests as well")
def test_ctrl_c_ends_following_in_order_and_with_0(
    server: mh.Server, start: Start, valkey: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "to").write_text(KEY)
    words = ("queue", "move", server.url, valkey.url, "--follow", "--to-authkey", f"@{tmp_path / 'to'}")
    following = start("following", "-m", "manyhands", *words)
    server.queue("mail").put("x")
    with mh.connect(valkey.url, KEY) as target:
        assert target.queue("mail").get(timeout=20) == "x"
    until(lambda: server.queue("mail").qsize() == 0, "the source knows")
    following.process.send_signal(signal.SIGINT)
    following.ends_quietly()
    assert "Moved 1 messages" in following.out
