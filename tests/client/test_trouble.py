"""What a client does with forged and foreign messages, a silent server, a goodbye, a cut."""

from __future__ import annotations

import logging
import os
import queue as stdlib_queue
import threading
import time

import pytest

from manyhands.client import Client, exits, taking
from manyhands.client import session as session_module
from manyhands.codec import PICKLE
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import ServerGone, ServerUnavailable, SessionTaken, ShutDown, UndecodableBody
from manyhands.events import Attach
from manyhands.model import Message

from .conftest import Place, die, numbers, session_of, until


def put_raw(client: Client, body: bytes, *, is_forged: bool) -> None:
    session = session_of(client)
    message_id = session.new_id()
    seal = session.codec.seal("elsewhere" if is_forged else "q", message_id, PICKLE, body)
    with session.lock:
        call = session.state.put(session.state.queue("q"), [Message(message_id, body, seal)], -1.0)
    session.ask(call)


def test_a_forged_message_is_never_decoded_goes_to_the_dead_letters_and_the_next_is_returned(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    put_raw(other, b"cos\nabort\n(tR.", is_forged=True)
    other.queue("q").put("honest")
    with caplog.at_level(logging.ERROR, "manyhands.client"):
        assert client.queue("q").get(timeout=5) == "honest"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    until(lambda: numbers(other).dead == 1)
    (letter,) = other.dead("q").list()
    assert "its signature does not fit" in letter.reason


@pytest.mark.parametrize("how", ["get", "receive", "get_many"])
def test_an_item_whose_class_is_missing_here_goes_back_and_ends_as_a_dead_letter(
    client: Client, other: Client, how: str
) -> None:
    put_raw(other, b"cno_such_module\nThing\n.", is_forged=False)
    queue = client.queue("q")
    for _ in range(3):
        with pytest.raises(UndecodableBody, match="no_such_module"):  # noqa: PT012 - one of three calls
            if how == "get":
                queue.get(timeout=5)
            elif how == "get_many":
                queue.get_many(2, timeout=5)
            else:
                with queue.receive(timeout=5):
                    pass
    until(lambda: numbers(other).dead == 1)
    (letter,) = other.dead("q").list()
    assert "no_such_module" in letter.reason


def test_a_get_after_the_servers_goodbye_waits_its_timeout_and_raises_server_gone(remote_place: Place) -> None:
    client = remote_place.client()
    queue = client.queue("q")
    queue.put(1)
    assert remote_place.server is not None
    remote_place.server.stop()
    until(lambda: session_of(client).state.is_closing)
    started = time.monotonic()
    with pytest.raises(ServerGone) as caught:
        queue.get(timeout=0.2)
    assert time.monotonic() - started >= 0.2
    assert isinstance(caught.value, stdlib_queue.Empty)
    assert isinstance(caught.value, EOFError)


def test_a_gets_timeout_is_exact_once_the_server_is_known_to_be_gone(
    remote_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking, "GRACE_S", 60.0)  # what it adds for a server that may still answer
    client, other = remote_place.client(), remote_place.client()
    ended: list[type[BaseException]] = []

    def wait() -> None:
        for _ in range(2):  # one that the goodbye interrupts, and one that begins after it
            try:
                client.queue("q").get(timeout=0.3)
            except ServerGone as error:
                ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    assert remote_place.server is not None
    remote_place.server.stop()
    thread.join(10)
    assert ended == [ServerGone] * 2


def test_a_get_without_a_timeout_gives_up_some_time_after_the_goodbye(
    remote_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "GONE_S", 0.3)
    client, other = remote_place.client(), remote_place.client()
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            client.queue("q").get()
        except ServerGone as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    assert remote_place.server is not None
    remote_place.server.stop()
    thread.join(5)
    assert ended == [ServerGone]


def test_an_iteration_ends_quietly_some_time_after_the_goodbye(remote_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "GONE_S", 0.3)
    client, other = remote_place.client(), remote_place.client()
    seen: list[object] = []

    def work() -> None:
        seen.extend(client.queue("q"))
        seen.append("over")

    thread = threading.Thread(target=work)
    thread.start()
    other.queue("q").put(1)
    until(lambda: numbers(other).waiting == 1 and numbers(other).put_total == 1)
    assert remote_place.server is not None
    remote_place.server.stop()
    thread.join(5)
    assert seen == [1, "over"]


def test_a_get_in_the_engines_own_process_ends_at_once_when_it_is_closed(memory_place: Place) -> None:
    client, other = memory_place.client(), memory_place.client()
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            client.queue("q").get()
        except ServerGone as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    memory_place.engine.close(closing_reason="the end")
    thread.join(5)
    assert ended == [ServerGone]


def test_a_closed_client_says_so(client: Client) -> None:
    queue = client.queue("q")
    queue.put(1)
    client.close()
    client.close()
    for use in (queue.get, queue.qsize, lambda: queue.put(1)):
        with pytest.raises(ServerUnavailable, match="connect again"):
            use()


def test_a_daemon_thread_that_asks_just_as_its_program_ends_is_held_and_raises_nothing(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, plain_closed, raised = session_of(client), exits.closed, list[Exception]()

    def ask() -> None:
        try:
            client.queue("q").get()
        except ServerUnavailable as error:
            raised.append(error)

    def closed(ending: exits.Ending) -> None:
        plain_closed(ending)
        thread.start()
        thread.join(0.2)

    thread = threading.Thread(target=ask, daemon=True)
    monkeypatch.setattr(session_module, "GONE_S", 0.01)
    monkeypatch.setattr(exits, "closed", closed)
    client.end(exits.NORMAL, is_exit=True)
    assert thread.is_alive()
    assert not raised
    session.is_exiting = False
    thread.join(5)
    assert len(raised) == 1


def test_a_close_ends_the_wait_of_another_thread(client: Client, other: Client) -> None:
    ended: list[type[BaseException]] = []

    def wait() -> None:
        try:
            client.queue("q").get()
        except ServerUnavailable as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    client.close()
    thread.join(5)
    assert ended == [ServerUnavailable]
    other.queue("q").put(1)
    assert other.queue("q").get(timeout=5) == 1


def test_what_was_left_to_gather_leaves_when_the_next_task_turns_out_long(remote_place: Place) -> None:
    client, other = remote_place.client(), remote_place.client()
    other.queue("q").put_many(range(200))
    queue, results = client.queue("q"), client.queue("r")
    for _ in range(100):
        results.put(queue.get())
    assert session_of(client).state.queue("q").pace.is_short
    # No call of this client from here: another thread must send the rest.
    until(lambda: other.stats("r").queues[0].put_total == 100)
    until(lambda: other.stats("q").queues[0].done_total == 99)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="told apart by the port's own state")
def test_a_dead_clients_waiting_get_takes_nothing_with_it(place: Place) -> None:
    ghost, other = place.client(), place.client()

    def wait() -> None:
        try:
            ghost.queue("q").get(timeout=20)
        except (ServerUnavailable, stdlib_queue.Empty, ShutDown):
            return

    thread = threading.Thread(target=wait)
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    die(ghost)
    until(lambda: numbers(other).waiting == 0)
    other.queue("q").put("for the living")
    assert other.queue("q").get(timeout=5) == "for the living"
    ghost.close()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.faults
def test_a_cut_connection_repeats_nothing_and_loses_nothing(remote_place: Place) -> None:
    client, other = remote_place.client(), remote_place.client()
    other.queue("q").put_many(range(30))
    queue, results = client.queue("q"), client.queue("r")
    for i in range(30):
        item = queue.get(timeout=10)
        if i % 7 == 3:
            port = session_of(client).port
            port._link.transport.interrupt()  # type: ignore[attr-defined]
            port._link.transport.shut_down()  # type: ignore[attr-defined]
        results.put(item)
    client.close()
    assert [other.queue("r").get(timeout=5) for _ in range(30)] == list(range(30))
    assert numbers(other).done_total == 30
    assert numbers(other, "r").put_total == 30


def test_a_get_ends_with_an_error_when_another_program_took_the_session_for_itself(remote_place: Place) -> None:
    client = remote_place.client()
    thief = RemoteEngine(remote_place.url, remote_place.keyring)
    try:
        thief.attach(Attach(session_of(client).id), lambda _: None)
        for _ in range(2):  # every later call says the same
            with pytest.raises(SessionTaken, match="Another program uses this program's session"):
                client.queue("q").get(timeout=20)
    finally:
        thief.close()
