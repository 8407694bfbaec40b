"""What the NATS engine decides without a server: URLs, versions, streams, patience, and messages that are missing."""

from __future__ import annotations

from typing import Any

import pytest

from manyhands.engines.nats.checks import check_version, examine, replicas_for
from manyhands.engines.nats.link import FROM_PROGRAM, HEAD, Gap, Incoming, Outgoing, Unreadable
from manyhands.engines.nats.patience import ABSENT_S, LEFT_S, SILENT_S, Patience
from manyhands.engines.nats.where import parse
from manyhands.errors import UsageError
from manyhands.events import Attach, Ping, Put, Request
from manyhands.model import Message

STREAM = {"name": "MANYHANDS_main", "retention": "limits", "discard": "new", "storage": "file", "num_replicas": 3}


def test_a_url_says_where_and_which_part() -> None:
    where = parse("nats://ada:p%40ss@one,two:4333?space=mail&replicas=3&tls=true")
    assert where.hosts == [("one", 4222), ("two", 4333)]
    assert (where.username, where.password, where.space, where.replicas, where.is_tls) == ("ada", "p@ss", "mail", 3, True)
    assert where.stream == "MANYHANDS_mail"
    assert "p@ss" not in where.text
    assert "ada" not in where.text


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nats://", "needs a host"),
        ("nats://host/0", "has no path"),
        ("nats://host?db=1", "not db"),
        ("nats://host?space=a.b", "letters, digits"),
        ("nats://host?replicas=2", "majority"),
        ("nats://u:secret@host:x", "needs a host"),
    ],
)
def test_a_url_that_cannot_be_read_says_what_is_wrong(url: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        parse(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("version", ["2.9.25", "2.10.22", "", "1.0"])
def test_versions_that_lose_streams_are_refused(version: str) -> None:
    with pytest.raises(UsageError, match=r"2\.10\.23"):
        check_version(version, "nats://host")


@pytest.mark.parametrize("version", ["2.10.23", "2.11.0-RC.1", "2.15.1"])
def test_newer_versions_are_taken(version: str) -> None:
    check_version(version, "nats://host")


def test_three_servers_are_used_where_there_are_three() -> None:
    assert [replicas_for(0, 1), replicas_for(0, 2), replicas_for(0, 3), replicas_for(0, 5), replicas_for(1, 3)] == [
        1,
        1,
        3,
        3,
        1,
    ]


def test_what_an_acknowledgement_means_is_said() -> None:
    assert examine("2.15.1", STREAM, 0, "nats://host").durability.level == "replicated"
    alone = examine("2.15.1", STREAM | {"num_replicas": 1}, 0, "nats://host")
    assert alone.durability.level == "process"
    assert "every 2 minutes" in alone.durability.text
    assert alone.notes


@pytest.mark.parametrize(
    ("config", "asked", "says"),
    [
        ({"num_replicas": 1}, 3, "kept on 1"),
        ({"max_age": 10}, 0, "max_age 10"),
        ({"max_msgs": 5}, 0, "max_msgs 5"),
        ({"storage": "memory"}, 0, "storage memory"),
        ({"discard": "old"}, 0, "discard old"),
        ({"persist_mode": "async"}, 0, "persist_mode async"),
    ],
)
def test_a_stream_weaker_than_asked_or_that_loses_is_refused(config: dict[str, Any], asked: int, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        examine("2.15.1", STREAM | config, asked, "nats://host")


def test_who_finds_nobody_at_the_start_claims_at_once() -> None:
    patience = Patience()
    patience.missed(10.0, ABSENT_S, 0.9)
    assert patience.left_s(10.0) == 0.0


def test_an_owner_that_says_nothing_is_given_time_and_one_that_left_is_not() -> None:
    patience = Patience()
    patience.seen()
    patience.missed(10.0, SILENT_S, 0.0)
    assert patience.left_s(10.5) == pytest.approx(SILENT_S - 0.5)
    patience.missed(10.5, SILENT_S, 0.0)
    assert patience.left_s(10.5) == pytest.approx(SILENT_S - 0.5)
    patience.missed(10.6, LEFT_S, 0.0)
    assert patience.left_s(10.6) == 0.0
    patience.seen()
    patience.missed(20.0, ABSENT_S, 0.5)
    assert 0.3 < patience.left_s(20.0) < 0.6


def received(messages: list[bytes], incoming: Incoming[Request | Attach]) -> list[Any]:
    said: list[Any] = []
    for message in messages:
        _, number, kind = HEAD.unpack_from(message)
        said += incoming.take(number, kind, message[HEAD.size :])
    return said


def test_what_is_said_arrives_in_as_many_messages_as_it_takes() -> None:
    outgoing, incoming = Outgoing(7, 100), Incoming(FROM_PROGRAM)
    said = [(1, [Put(1, "q", 1, 0, [Message("m", b"x" * 1000)])]), (2, [Ping(5)]), (3, [])]
    messages = list(outgoing.messages(said))
    assert len(messages) > 5
    assert max(map(len, messages)) <= 100
    assert received(messages, incoming) == said


@pytest.mark.parametrize("missing", [0, 1, 2])
def test_a_message_that_is_missing_is_seen(missing: int) -> None:
    outgoing, incoming = Outgoing(7, 1000), Incoming(FROM_PROGRAM)
    messages = [message for rid in (1, 2, 3) for message in outgoing.messages([(1, [Ping(rid)])])]
    messages.append(outgoing.pulse(0))  # which shows that the last one is missing
    del messages[missing]
    with pytest.raises(Gap):
        received(messages, incoming)


def test_a_pulse_says_how_much_has_come() -> None:
    outgoing, incoming = Outgoing(7, 1000), Incoming(FROM_PROGRAM)
    received([*outgoing.messages([(1, [Ping(1)])]), outgoing.pulse(41)], incoming)
    assert (incoming.received, incoming.peer_received) == (1, 41)


def test_one_request_that_cannot_be_read_takes_no_other_with_it() -> None:
    outgoing, incoming = Outgoing(7, 1000), Incoming(FROM_PROGRAM)
    bad = Put(8, 7, 1, 0, [])  # type: ignore[arg-type]
    (said,) = received(list(outgoing.messages([(1, [bad, Ping(9)])])), incoming)
    assert type(said[1][0]) is Unreadable
    assert (said[1][0].rid, said[1][1]) == (8, Ping(9))
