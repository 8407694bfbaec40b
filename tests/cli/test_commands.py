"""What each command shows and does, with its exit code; and that what it is given in error gets a sentence."""

from __future__ import annotations

import io
import socket
import sys
from pathlib import Path

import pytest
import typer

import manyhands as mh
from cli.conftest import Command
from manyhands.cli import output
from manyhands.cli.exits import Exit


def test_queue_list_shows_every_queue_with_its_numbers(server: mh.Server, command: Command) -> None:
    tasks = server.queue("tasks", maxsize=50)
    tasks.put_many(range(3))
    tasks.put(9, delay_s=60)
    tasks.get()
    shown = command("queue", "list", "--json").json
    assert [(q["name"], q["ready"], q["leased"], q["delayed"], q["maxsize"]) for q in shown] == [("tasks", 2, 1, 1, 50)]
    text = command("queue", "list").out
    assert text.splitlines()[1].split() == ["tasks", "items", "2", "1", "1", "0", "50"]


def test_queue_list_of_a_new_server_says_why_it_is_empty(command: Command) -> None:
    assert "No queues yet" in command("queue", "list").out


def test_peek_shows_messages_and_leaves_them(server: mh.Server, command: Command) -> None:
    tasks = server.queue("tasks")
    tasks.put_many(["first", "second"])
    shown = command("queue", "peek", "tasks", "--json").json
    assert ["first" in each["preview"] for each in shown] == [True, False]
    assert command("queue", "peek", "tasks", "--limit", "1").out.count("\n") == 2
    assert tasks.qsize() == 2


class Bomb:
    """Tells on whoever unpickles it."""

    def __reduce__(self) -> tuple[object, ...]:
        return (pytest.fail, ("a body was unpickled",))


def test_peek_never_unpickles_a_body(server: mh.Server, command: Command) -> None:
    server.queue("tasks").put(Bomb())
    assert command("queue", "peek", "tasks").code == 0
    assert command("queue", "peek", "tasks", "--json").code == 0


def test_a_queue_name_cannot_write_to_the_terminal(server: mh.Server, command: Command) -> None:
    server.queue("evil\x1b[2J[red]").put(1)
    text = command("queue", "list").out
    assert "\x1b" not in text
    assert r"evil\x1b[2J[red]" in text


def test_looking_at_a_queue_that_is_not_there_does_not_make_it(server: mh.Server, command: Command) -> None:
    server.queue("tasks").put(1)
    answer = command("queue", "peek", "task")
    assert answer.code == Exit.NOT_FOUND
    assert "no queue 'task' here; there are: tasks" in answer.err
    assert [q["name"] for q in command("queue", "list", "--json").json] == ["tasks"]


def test_purge_drops_what_waits_and_spares_what_is_leased(server: mh.Server, command: Command) -> None:
    tasks = server.queue("tasks")
    tasks.put_many(range(5))
    tasks.get()
    assert command("queue", "purge", "tasks", "--yes", "--json").json == {"queue": "tasks", "dropped": 4}
    assert command("queue", "list", "--json").json[0]["leased"] == 1


def test_purge_without_a_terminal_needs_yes(server: mh.Server, command: Command) -> None:
    server.queue("tasks").put_many(range(5))
    answer = command("queue", "purge", "tasks")
    assert answer.code == Exit.USAGE
    assert "add --yes" in answer.err
    assert server.queue("tasks").qsize() == 5


def says_no(question: str, *, abort: bool) -> None:
    raise typer.Abort


def test_purge_asks_first_and_no_means_no(server: mh.Server, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    server.queue("tasks").put_many(range(5))
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.confirm", says_no)
    assert command("queue", "purge", "tasks").code == Exit.FAILED
    assert server.queue("tasks").qsize() == 5


def test_dead_list_and_show_say_why_and_who_had_it(dead_id: str, command: Command) -> None:
    listed = command("dead", "list", "mail", "--json").json
    assert [each["id"] for each in listed] == [dead_id]
    assert len(listed[0]["history"]) == 3
    assert "the mail server said no" in listed[0]["history"][-1]["reason"]
    assert dead_id in command("dead", "list").out
    text = command("dead", "show", dead_id).out
    assert text.count("the mail server said no") >= 3
    assert command("dead", "show", dead_id, "--json").json["queue"] == "mail"


def test_ids_stand_whole_in_a_narrow_terminal(dead_id: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "PLAIN_WIDTH", 60)
    text = command("dead", "list").out
    assert dead_id in text
    assert max(map(len, text.splitlines())) <= 60


def test_one_is_not_counted_as_many(dead_id: str, server: mh.Server, command: Command) -> None:
    assert "Put 1 message back into" in command("dead", "retry", "mail", dead_id).out
    server.queue("other").put(1)
    assert "Dropped 1 message of queue 'other'." in command("queue", "purge", "other", "--yes").out


def test_status_takes_the_server_as_serve_and_worker_do(server: mh.Server, command: Command) -> None:
    assert command("status", server.url, "--json", "--interval", "0.05").json["url"] == server.url


def test_the_list_of_commands_says_what_each_does_in_whole_sentences(command: Command) -> None:
    for group in ([], ["queue"], ["dead"]):
        assert "..." not in command(*group, "--help").out.partition("Commands:")[2]


def test_dead_retry_puts_it_back(dead_id: str, server: mh.Server, command: Command) -> None:
    assert command("dead", "retry", "mail", dead_id, "--json").json == {"queue": "mail", "retried": 1}
    assert command("dead", "list", "--json").json == []
    assert server.queue("mail").get(timeout=5) == {"to": "x@example.org"}


def test_dead_drop_deletes_it(dead_id: str, server: mh.Server, command: Command) -> None:
    assert command("dead", "drop", "mail", "--all", "--yes", "--json").json == {"queue": "mail", "dropped": 1}
    assert command("dead", "list").out == "No dead letters.\n"
    assert server.queue("mail").empty()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("dead", "retry", "mail"), Exit.USAGE),
        (("dead", "drop", "mail", "--yes"), Exit.USAGE),
        (("dead", "retry", "mail", "an-id", "--all"), Exit.USAGE),
        (("dead", "retry", "mail", "an-id"), Exit.NOT_FOUND),
        (("dead", "drop", "mail", "an-id", "--yes"), Exit.NOT_FOUND),
        (("dead", "show", "an-id"), Exit.NOT_FOUND),
        (("dead", "list", "nail"), Exit.NOT_FOUND),
        (("queue", "peek", "mail", "--limit", "0"), Exit.USAGE),
        (("queue", "peek"), Exit.USAGE),
        (("nonsense",), Exit.USAGE),
        (("status", "--url", "sqlite:///jobs.db"), Exit.USAGE),
        (("status", "--url", "tls://127.0.0.1"), Exit.USAGE),
        (("status", "--authkey", "@/no/such/file"), Exit.USAGE),
        (("serve", "tcp://0.0.0.0:0"), Exit.USAGE),
        (("serve", "tcp://0.0.0.0:0", "--insecure"), Exit.USAGE),
        (("serve", "--store", "postgres://x"), Exit.USAGE),
        (("status", "--authkey", "another key"), Exit.WRONG_KEY),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value.name,
)
def test_a_command_that_cannot_work_says_so_in_a_sentence(
    dead_id: str, command: Command, words: tuple[str, ...], code: Exit
) -> None:
    answer = command(*words)
    assert answer.code == code, answer
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert answer.err.strip()


def test_nobody_there_is_exit_code_3_with_what_to_check(command: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    answer = command("status", url=f"tcp://127.0.0.1:{port}")
    assert answer.code == Exit.CANNOT_CONNECT
    assert "check" in answer.err


def test_a_port_in_use_is_exit_code_6(server: mh.Server, command: Command) -> None:
    answer = command("serve", server.url)
    assert answer.code == Exit.IN_USE
    assert str(server.address[1]) in answer.err


def test_a_key_on_the_command_line_is_warned_about_and_never_shown(command: Command) -> None:
    answer = command("status", "--authkey", "correct horse battery")
    assert "every user of this machine can see" in answer.err
    assert "correct horse" not in answer.err


def test_a_key_comes_from_a_file_or_standard_input(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "a key of at least sixteen bytes"
    (tmp_path / "key").write_text(key + "\n")
    with mh.serve("tcp://127.0.0.1:0", authkey=key) as other:
        assert command("queue", "list", "--authkey", f"@{tmp_path / 'key'}", url=other.url).code == 0
        monkeypatch.setattr(sys, "stdin", io.StringIO(key + "\n"))
        assert command("queue", "list", "--authkey", "-", url=other.url).code == 0


def test_status_warns_of_a_short_key_on_a_wide_bind_and_of_nothing_else(server: mh.Server, command: Command) -> None:
    with mh.serve("tcp://0.0.0.0:0", "short", insecure=True) as wide:
        asked = ("status", "--interval", "0.05", "--authkey", "short")
        (warned,) = command(*asked, "--json", url=wide.url).json["warnings"]
        assert "the key has fewer than 16 bytes" in warned
        assert f"warning: {warned}" in command(*asked, url=wide.url).out
    assert command("status", "--json", "--interval", "0.05").json["warnings"] == []


def test_status_shows_rates_and_who_is_connected(server: mh.Server, command: Command) -> None:
    tasks = server.queue("tasks")
    tasks.put_many(range(4))
    with mh.connect(server.url) as client:
        client.queue("tasks").get()
        shown = command("status", "--json", "--interval", "0.05").json
        text = command("status", "--interval", "0.05").out
    queue = shown["queues"][0]
    assert (queue["name"], queue["put_total"], queue["leased"] + queue["ready"]) == ("tasks", 4, 4)
    assert queue["put_per_s"] == queue["done_per_s"] == 0
    assert shown["engine"] == "memory"
    assert shown["durability"] in text
    assert len(shown["sessions"]) == 2, "the server's own client and the connected one, not the command itself"
    assert all(len(each["id"]) == 16 for each in shown["sessions"]), "the public id, not the one that resumes a session"
    assert "connected" in text


def test_status_counts_what_was_put_between_its_samples(
    server: mh.Server, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = server.queue("tasks")
    monkeypatch.setattr("manyhands.cli.status.time.sleep", lambda seconds: tasks.put_many(range(10)))
    assert command("status", "--json").json["queues"][0]["put_per_s"] > 0


def test_version_is_said(command: Command) -> None:
    assert command("--version").out == f"manyhands {mh.__version__}\n"
