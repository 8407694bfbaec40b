"""What the commands show of calls and tasks: by name and arguments, without importing or unpickling anything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date
from typing import Any

import pytest

import manyhands as mh
from manyhands.auth import Keyring
from manyhands.cli.exits import Exit
from manyhands.cli.status import parked
from manyhands.client import Client
from manyhands.codec import Codec
from manyhands.events import Lease, Settle
from manyhands.model import CALLS, Kind, Message, QueueStats, SettleKind, Settlement
from manyhands.tasks import Task, TaskOptions, shown

from .conftest import Command


@dataclass
class Letter:
    to: str
    day: date


def send(letter: Letter, copies: int, flags=()):  # type: ignore[no-untyped-def]
    pass


SEND = Task(send, TaskOptions(queue="mail", tags=("billing",)), "mail:send")


def put(client: Client, task: Task[..., Any], message_id: str, *args: Any) -> None:
    """Send it as a submit does, to nobody's stream."""
    codec = Codec([(key.id, key.body) for key in Keyring(client.key)])
    session = client.open()
    message = task.make_message(codec, message_id, args, {}, now=time.time())
    with session.lock:
        call = session.state.put(session.state.queue(task.calls_queue), [message], 0.0)
    session.ask(call, 0.0)


@pytest.fixture
def dead_task(server: mh.Server) -> str:
    """The id of a task of queue 'mail' that was rejected."""
    with server.client() as client:
        put(client, SEND, "m1", Letter("ada@example.org", date(2026, 1, 2)), 2, (1, {2}))
        (delivery,) = client.ask(Lease, SEND.calls_queue).deliveries
        gone = Settlement(delivery.token, SettleKind.REJECT, reason="GiveUp: no such address")
        client.ask(Settle, 1, 1, [gone])
    return "m1"


def test_dead_letters_of_a_queue_are_those_of_its_items_and_of_its_calls(
    dead_task: str, dead_id: str, server: mh.Server, command: Command
) -> None:
    listed = command("dead", "list", "mail", "--json").json
    assert {(each["id"], each["kind"], each["queue"]) for each in listed} == {
        (dead_task, "task", "mail"),
        (dead_id, "item", "mail"),
    }
    assert "mail:send(letter={'to': 'ada@example.org'" in command("dead", "list").out
    assert [letter.message.id for letter in server.client().dead("mail").list(limit=1)] == [dead_id], "the newest first"


def test_dead_show_tells_the_task_its_arguments_and_every_attempt(dead_task: str, command: Command) -> None:
    document = command("dead", "show", dead_task, "--json").json
    assert document["call"] == "mail:send"
    assert document["arguments"] == {
        "letter": {"to": "ada@example.org", "day": "2026-01-02"},
        "copies": 2,
        "flags": [1, [2]],
    }
    assert document["tags"] == ["billing"]
    ((attempt),) = document["history"]
    assert (attempt["outcome"], attempt["reason"]) == ("reject", "GiveUp: no such address")
    assert attempt["consumer"]
    text = command("dead", "show", dead_task).out
    for part in ("mail:send", "copies", "(1, {2})", "billing", "GiveUp: no such address"):
        assert part in text, text


def test_dead_tasks_are_retried_and_dropped_by_their_queue_s_name(
    dead_task: str, server: mh.Server, command: Command
) -> None:
    assert command("dead", "retry", "mail", dead_task, "--json").json == {"queue": "mail", "retried": 1}
    assert command("queue", "peek", "mail", "--json").json[0]["call"] == "mail:send"
    assert command("dead", "retry", "mail", "nobody").code == Exit.NOT_FOUND
    with server.client() as client:
        (delivery,) = client.ask(Lease, SEND.calls_queue).deliveries
        client.ask(Settle, 1, 1, [Settlement(delivery.token, SettleKind.REJECT)])
        assert client.dead("mail").drop() == 1
        assert client.dead().retry() == client.dead("mail").drop() == 0


def test_dead_letters_of_other_queues_stay(dead_task: str, server: mh.Server) -> None:
    client = server.client()
    assert client.dead("mai").drop() == client.dead("mail2").retry() == 0
    assert [letter.message.id for letter in client.dead().list()] == [dead_task]


def test_looking_after_dead_letters_makes_no_queue(dead_id: str, server: mh.Server, command: Command) -> None:
    command("dead", "list", "mail")
    assert server.client().dead("mail").retry() == 1
    assert server.client().dead().drop() == 0
    assert [each["name"] for each in command("queue", "list", "--json").json] == ["mail"]


def test_a_queue_s_items_and_calls_are_shown_and_purged_as_one_queue(server: mh.Server, command: Command) -> None:
    server.queue("mail").put("an item")
    with server.client() as client:
        put(client, SEND, "m1", Letter("a", date(2026, 1, 2)), 1)
    rows = command("status", "--json", "--interval", "0.05").json["queues"]
    assert [(each["name"], each["of"], each["ready"]) for each in rows] == [("mail", "items", 1), ("mail", "calls", 1)]
    assert "()" not in command("status", "--interval", "0.05").out + command("queue", "list").out
    assert [each["kind"] for each in command("queue", "peek", "mail", "--json").json] == ["item", "task"]
    assert [each["kind"] for each in command("queue", "peek", "mail", "-n", "1", "--json").json] == ["item"]
    assert "mail:send(" in command("queue", "peek", "mail").out
    assert command("queue", "purge", "mail", "--yes", "--json").json == {"queue": "mail", "dropped": 2}


def test_status_says_which_worker_parked_messages_wait_for() -> None:
    stats = QueueStats("mail" + CALLS, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    assert parked(stats) == []
    told = parked(
        QueueStats(*[getattr(stats, name) for name in stats.__struct_fields__[:-1]], {"python:3.12": 1, "task:app:send": 3})
    )
    assert told == [
        "1 message of queue 'mail' waits for a worker on Python 3.12, whose code they carry",
        "3 messages of queue 'mail' wait for a worker that knows the task app:send: "
        "manyhands worker --queues mail --import app",
    ]


@pytest.mark.parametrize("kind", [Kind.CALL, Kind.TASK, 7])
@pytest.mark.parametrize("body", [b"", b"\xff" * 40, b"\x93\x01", b"\x91" * 5000])
def test_garbage_that_says_it_is_a_call_is_shown_as_bytes(kind: int, body: bytes) -> None:
    assert shown(Message("x", body, kind=kind)) is None
