"""The standard library's clients at our master, over real sockets in one process."""

from __future__ import annotations

import datetime
import gc
import logging
import pickle
import queue
import struct
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
from multiprocessing.managers import RemoteError, Token
from pathlib import Path
from typing import Any

import pytest

from manyhands.managers import BaseManager

from .conftest import KEY, WAIT_S, Office


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.005)


# -- round trips ------------------------------------------------------------------------------------------------------


def test_queues_work_through_the_standard_librarys_proxies(office: Office) -> None:
    worker = office.stock()
    task, small = worker.task(), worker.small()
    for item in (1, "two", [3], {"four": 4.0}, None, b"raw", datetime.date(2026, 11, 24)):
        task.put(item)
        assert task.get() == item
    with pytest.raises(queue.Empty):
        task.get_nowait()
    with pytest.raises(queue.Empty):
        task.get(timeout=0.01)
    small.put(1)
    small.put_nowait(2)
    assert (small.qsize(), small.full(), small.empty(), task.empty()) == (2, True, False, True)
    with pytest.raises(queue.Full):
        small.put_nowait(3)
    with pytest.raises(queue.Full):
        small.put(3, timeout=0.01)
    assert [small.get(), small.get(True, 5)] == [1, 2]
    small.task_done()
    small.task_done()
    small.join()
    with pytest.raises(ValueError, match="too many times"):
        small.task_done()


def test_join_waits_until_everything_is_done(office: Office) -> None:
    peer, other = office.thread(), office.thread()
    peer.call("put", 1)
    other.begin("join")
    assert not other.connection.poll(0.05)
    assert peer.call("get") == 1
    peer.call("task_done")
    assert other.answer() == ("#RETURN", None)


def test_items_go_from_standard_library_to_our_own_programs_and_back(office: Office) -> None:
    class Ours(BaseManager):
        pass

    Ours.register("task")
    ours = Ours(office.address, authkey=KEY)
    ours.connect()
    stock, own, master = office.stock().task(), ours.task(), office.manager.task()  # type: ignore[attr-defined]
    big = bytes(range(256)) * 12_000
    moment = datetime.datetime(2026, 11, 24)
    for item in (1, [None, "x"], moment, big):
        stock.put(item)
        assert own.get() == item
        own.put(item)
        assert stock.get() == item
        master.put(item)
        assert stock.get() == item
        stock.put(item=item)
        assert office.task.get() == item  # the program's own queue object
    ours.shutdown()


def test_errors_in_the_arguments_are_the_ones_that_a_queue_raises(office: Office) -> None:
    task = office.stock().task()
    with pytest.raises(ValueError, match="non-negative"):
        task.get(timeout=-1)
    with pytest.raises(TypeError, match="item"):
        task.put()
    with pytest.raises(TypeError, match="unexpected keyword"):
        task.put(1, priority=3)
    with pytest.raises(TypeError, match="2 arguments but 3"):
        task.get(True, 1, 2)


def test_a_timeout_of_another_numeric_type_is_understood(office: Office) -> None:
    from decimal import Decimal

    with pytest.raises(queue.Empty):
        office.stock().task().get(True, Decimal("0.01"))


def test_an_item_over_the_engines_limit_is_an_error_at_the_peer_and_the_connection_goes_on(office: Office) -> None:
    gateway_limit = office.manager._master._engine.limits.max_body_bytes  # type: ignore[union-attr]
    peer = office.thread()
    peer.connection._send(struct.pack("!i", gateway_limit + 10_000_000))  # type: ignore[attr-defined]
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.answer()  # refused from its header
    assert office.thread().call("qsize") == 0


def test_a_queue_that_is_shut_down_ends_the_standard_librarys_gets(office: Office) -> None:
    peer = office.thread()
    peer.begin("get")
    office.task.shutdown()  # type: ignore[attr-defined]
    kind, error = peer.answer()
    assert kind == "#ERROR"
    assert isinstance(error, getattr(queue, "ShutDown", queue.Empty))
    kind, error = peer.begin("put", 1) or peer.answer()
    assert isinstance(error, getattr(queue, "ShutDown", queue.Full))


def test_the_xmlrpclib_serializer_works(office: Office) -> None:
    task = office.stock("xmlrpclib").task()
    task.put({"a": [1, "zwei", None]})
    task.put(5)
    assert task.get() == {"a": [1, "zwei", None]}
    assert (task.qsize(), office.task.get()) == (1, 5)
    office.task.put([1.5])
    assert task.get(timeout=5) == [1.5]
    with pytest.raises(RemoteError, match="Empty"):  # XML-RPC has no exceptions, there as here
        task.get(timeout=0.01)
    office.task.put(1j)
    with pytest.raises(RemoteError, match="cannot be written as XML"):
        task.get(timeout=5)
    assert office.task.get(timeout=5) == 1j  # not lost: it went back


# -- requests of the manager ------------------------------------------------------------------------------------------


def test_what_is_not_offered_is_said_with_what_is(office: Office) -> None:
    worker = office.stock()
    with pytest.raises(RemoteError, match="offers no 'missing'; it offers: broken, own, result, small, task"):
        worker.missing()
    with pytest.raises(RemoteError, match="ZeroDivisionError"):
        worker.broken()


@pytest.mark.parametrize("method", ["shutdown", "debug_info", "number_of_objects", "serve_client"])
def test_what_a_peer_may_not_ask_is_refused_with_a_sentence(office: Office, method: str) -> None:
    with pytest.raises(RemoteError, match=f"'{method}' .*\\."):
        office.control(method)
    assert office.thread().call("qsize") == 0


def test_a_proxy_can_be_made_from_its_token_alone(office: Office) -> None:
    assert "put" in office.control("get_methods", Token("task", office.address, "q:task"))
    with pytest.raises(RemoteError, match="serves nothing under '7f'"):
        office.control("get_methods", Token("task", office.address, "7f"))


def test_an_unknown_method_or_id_is_an_answer_and_no_end(office: Office) -> None:
    peer = office.thread()
    with pytest.raises(RemoteError, match="'clear' is no method of a queue"):
        peer.call("clear")
    with pytest.raises(RemoteError, match="serves nothing under '7f'"):
        peer.ask("7f", "get")
    assert "task" in peer.call("__repr__")
    assert peer.call("qsize") == 0


def test_a_queue_made_for_one_call_lives_as_long_as_its_proxies(office: Office) -> None:
    worker = office.stock()
    own = worker.own(1)
    name = own._id.removeprefix("q:")
    own.put(1)
    assert own.get() == 1
    del own
    gc.collect()
    until(lambda: office.status(name).is_shut_down, "the queue goes with its last proxy")


# -- leases -----------------------------------------------------------------------------------------------------------


def test_a_killed_consumer_loses_nothing(office: Office) -> None:
    first, second = office.thread(), office.thread()
    office.task.put("work")
    assert first.call("get") == "work"
    first.is_killed()
    assert second.call("get", True, WAIT_S) == "work"


def test_what_a_killed_consumer_had_comes_back_at_once_and_at_the_head(stack: ExitStack, monkeypatch: Any) -> None:
    from manyhands.engines import memory
    from manyhands.model import Limits

    monkeypatch.setattr(memory, "Limits", lambda: Limits(resume_s=600.0))  # a standard-library peer cannot come back
    office = Office(stack)
    stack.callback(office.manager.shutdown)
    office.manager.task()  # type: ignore[attr-defined]
    first, second = office.thread(), office.thread()
    for item in (1, 2, 3):
        office.task.put(item)
    assert first.call("get") == 1
    first.is_killed()
    until(lambda: office.task.qsize() == 3, "it comes back")
    assert [second.call("get") for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("sign", ["get", "put", "put to a bounded queue", "task_done"])
def test_the_next_get_put_or_task_done_acknowledges(office: Office, sign: str) -> None:
    first = office.thread()
    first.call("put", "warm", name="result")  # a queue that the engine knows takes the short way
    office.task.put("done")
    office.task.put("next")
    assert first.call("get") == "done"
    if sign == "get":
        assert first.call("get") == "next"
    elif sign == "put":
        first.call("put", "squared", name="result")
    elif sign == "put to a bounded queue":
        first.call("put", "squared", name="small")
    else:
        first.call("task_done")
    first.is_killed()
    until(lambda: office.status().leased == 0, "its lease ends")
    assert office.task.get(timeout=5) == "next"
    assert office.task.qsize() == 0


def test_a_get_on_another_queue_acknowledges_nothing(office: Office) -> None:
    first = office.thread()
    office.task.put("work")
    office.small.put("setting")
    assert first.call("get") == "work"
    assert first.call("get", name="small") == "setting"
    first.is_killed()
    assert office.task.get(timeout=WAIT_S) == "work"


def test_a_put_that_waits_for_room_acknowledges_only_when_it_is_stored(office: Office) -> None:
    first = office.thread()
    office.small.put(1)
    office.small.put(2)
    office.task.put("work")
    assert first.call("get") == "work"
    first.begin("put", "result", name="small")
    until(lambda: office.status().leased == 1, "it waits")
    first.is_killed()
    assert office.task.get(timeout=WAIT_S) == "work"
    assert [office.small.get(), office.small.get()] == [1, 2]
    assert office.small.empty()  # the put that waited was withdrawn


def test_an_end_in_good_order_acknowledges(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock import hosts

    monkeypatch.setattr(hosts, "RECENT_S", WAIT_S)  # on a machine that does more than this test
    office.task.put("sentinel")
    done = threading.Event()

    def program() -> None:  # its own thread, so that its connection is the one that ends with its last proxy
        worker = office.stock()
        task = worker.task()
        assert task.get() == "sentinel"
        del task
        gc.collect()
        done.set()

    thread = threading.Thread(target=program)
    thread.start()
    assert done.wait(WAIT_S)
    thread.join()
    until(lambda: office.status().leased == 0, "it is acknowledged")
    assert office.task.qsize() == 0


def test_another_program_that_begins_meanwhile_does_not_make_a_killed_one_look_orderly(office: Office) -> None:
    first = office.thread()
    office.task.put("work")
    assert first.call("get") == "work"
    for method, *args in (("create", "task"), ("incref", "q:task"), ("decref", "q:task")):
        office.control(method, *args)
    first.is_killed()
    assert office.task.get(timeout=WAIT_S) == "work"


def test_a_connection_that_ends_within_a_call_did_not_end_in_good_order(office: Office) -> None:
    first = office.thread()
    office.task.put("work")
    assert first.call("get") == "work"
    first.begin("get", name="result")
    until(lambda: office.status("result").waiting == 1, "it waits")
    for ident in ("q:task", "q:result"):  # another program of that host ends
        office.control("decref", ident)
    first.is_killed()
    assert office.task.get(timeout=WAIT_S) == "work"


def test_a_get_that_waits_when_its_connection_ends_is_withdrawn(office: Office) -> None:
    ghost, worker = office.thread(), office.thread()
    ghost.begin("get")
    until(lambda: office.status().waiting == 1, "it waits")
    ghost.is_killed()
    until(lambda: office.status().waiting == 0, "it is withdrawn")
    office.task.put("work")
    assert worker.call("get_nowait") == "work"


def test_an_interrupted_get_does_not_answer_the_next_call(office: Office) -> None:
    peer = office.thread()
    peer.begin("get")  # Ctrl-C while it waits: the program goes on and asks something else
    until(lambda: office.status().waiting == 1, "it waits")
    assert peer.call("qsize", name="small") == 0
    office.task.put("work")
    assert peer.call("get") == "work"


def test_a_message_that_kills_every_consumer_becomes_a_dead_letter(office: Office) -> None:
    office.task.put("poison")
    for _ in range(3):
        victim = office.thread()
        assert victim.call("get", True, WAIT_S) == "poison"
        victim.is_killed()
    until(lambda: office.status().dead == 1, "it is a dead letter")
    assert office.task.qsize() == 0


def test_a_consumer_at_work_keeps_its_lease_however_long_it_is_silent(stack: ExitStack, monkeypatch: Any) -> None:
    from manyhands.engines import memory
    from manyhands.model import Limits

    monkeypatch.setattr(memory, "Limits", lambda: Limits(lease_s=0.3, heartbeat_s=0.05))
    office = Office(stack)
    stack.callback(office.manager.shutdown)
    office.manager.task()  # type: ignore[attr-defined]
    office.task.put("long")
    first = office.thread()
    assert first.call("get") == "long"
    with pytest.raises(queue.Empty):
        office.task.get(timeout=1.0)
    first.call("task_done")
    assert office.status().leased == 0


def test_a_stored_queue_is_served_and_its_leases_kept_too(tmp_path: Path, stack: ExitStack) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    office = Office(stack, store=store)
    office.manager.task()  # type: ignore[attr-defined]
    peer = office.thread()
    for item in ("one", "two"):
        peer.call("put", item)
    assert peer.call("get") == "one"
    peer.is_killed()
    assert office.thread().call("get", True, WAIT_S) == "one"
    office.manager.shutdown()
    again = Office(stack, store=store)
    stack.callback(again.manager.shutdown)
    again.manager.task()  # type: ignore[attr-defined]
    assert {again.thread().call("get", True, WAIT_S), again.thread().call("get", True, WAIT_S)} == {"one", "two"}


def test_a_forged_message_is_never_handed_to_a_peer_and_the_next_one_is(office: Office) -> None:
    from manyhands.events import Attach, Put
    from manyhands.model import Message

    class Bomb:
        def __reduce__(self) -> Any:
            return (exec, ("raise SystemExit('a forged message was opened')",))

    engine = office.manager._master._engine  # type: ignore[union-attr]
    port = engine.attach(Attach("f" * 32, "forger"), lambda replies: None)
    port.send([Put(1, "task", 0, 0, [Message("m", pickle.dumps(Bomb()), b"no seal")])])
    office.task.put("genuine")
    assert office.thread().call("get") == "genuine"
    until(lambda: office.status().dead == 1, "the forged one is a dead letter")
    port.detach()


# -- the end ----------------------------------------------------------------------------------------------------------


def test_at_the_masters_end_waiting_and_later_gets_find_nothing(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock.connection import StockConnection

    monkeypatch.setattr(StockConnection, "linger_s", 600.0)
    waiting, busy = office.thread(), office.thread()
    office.task.put("last")
    assert busy.call("get") == "last"
    waiting.begin("get")
    until(lambda: office.status().waiting == 1, "it waits")
    stopping = threading.Thread(target=office.manager.shutdown)
    stopping.start()
    kind, error = waiting.answer()
    assert (kind, type(error)) == ("#ERROR", queue.Empty)
    busy.call("put", "result", name="small")  # what it was doing is still taken
    with pytest.raises(queue.Empty):
        busy.call("get")
    waiting.connection.close()
    busy.connection.close()
    stopping.join(4.0)  # the server itself gives up after five seconds
    assert not stopping.is_alive()  # it waited for them and no longer


def test_a_master_whose_peers_stay_ends_all_the_same(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock.connection import StockConnection

    monkeypatch.setattr(StockConnection, "linger_s", 0.05)
    peer = office.thread()
    peer.call("qsize")
    office.manager.shutdown()
    with pytest.raises((EOFError, ConnectionError)):
        peer.call("qsize")


# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_wrong_key_is_an_authentication_error_there_and_one_sentence_here(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(AuthenticationError):
        office.stock(authkey=b"abd")
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 1
    assert "another authkey" in said[0]


def test_nothing_is_unpickled_and_no_thread_started_before_the_key_was_shown(office: Office) -> None:
    import socket

    before = threading.active_count()
    with socket.create_connection(office.address) as stranger:
        stranger.settimeout(WAIT_S)
        stranger.recv(256)
        body = pickle.dumps((None, "dummy", (), {}))
        stranger.sendall(struct.pack("!i", 16) + bytes(16) + struct.pack("!i", len(body)) + body)
        rest = b"".join(iter(lambda: stranger.recv(4096), b""))
    assert rest == struct.pack("!i", 9) + b"#FAILURE#"
    assert threading.active_count() <= before


@pytest.mark.parametrize(
    "frame",
    [b"\x00\x00\x00\x05hello", struct.pack("!i", -7), struct.pack("!iQ", -1, 2**62), struct.pack("!i", 0)],
    ids=["no request", "negative", "2**62", "empty"],
)
def test_a_hostile_frame_ends_its_connection_and_nothing_else(office: Office, frame: bytes) -> None:
    honest = office.thread()
    connection = Client(office.address, authkey=KEY)
    connection._send(frame)  # type: ignore[attr-defined]
    with pytest.raises((EOFError, ConnectionResetError)):
        connection.recv()
    assert honest.call("qsize") == 0


def test_a_request_that_stops_in_the_middle_is_dropped(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock import connection as module

    monkeypatch.setattr(module, "SILENCE_S", 0.1)
    peer = office.thread()
    peer.connection._send(struct.pack("!i", 100) + b"half")  # type: ignore[attr-defined]
    assert peer.connection.poll(5)
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.answer()


def test_a_peer_that_asks_nothing_after_its_handshake_is_dropped(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock import connection as module

    monkeypatch.setattr(module, "REQUEST_S", 0.1)
    connection = Client(office.address, authkey=KEY)
    assert connection.poll(WAIT_S / 2)
    with pytest.raises((EOFError, ConnectionResetError)):
        connection.recv()


def test_idle_between_two_requests_is_allowed_for_ever(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    from manyhands.managers.stock import connection as module

    monkeypatch.setattr(module, "SILENCE_S", 0.05)
    monkeypatch.setattr(module, "REQUEST_S", 0.05)
    peer = office.thread()
    peer.call("put", b"x" * 300_000)
    with pytest.raises(queue.Empty):
        office.thread().call("get", True, 0.3, name="small")  # as long as six times that silence
    assert peer.call("qsize") == 1


def test_a_plain_server_refuses_standard_library_peers_with_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    import manyhands as mh

    with mh.serve("tcp://127.0.0.1:0", authkey=KEY) as server, caplog.at_level(logging.WARNING):
        with pytest.raises(AuthenticationError):
            Client(server.address, authkey=KEY)
        until(lambda: "import manyhands.managers" in caplog.text, "the log says what to do")


# -- many at once -------------------------------------------------------------------------------------------------------


def test_everything_arrives_once_while_the_master_and_its_peers_put_and_get_at_the_same_time(office: Office) -> None:
    """The master's own thread answers waiting peers itself, beside the loop; nothing may be lost, doubled or mixed up."""
    n, n_peers = 1_500, 4
    peers = [office.thread() for _ in range(n_peers)]
    failed: list[BaseException] = []

    def work(peer: Any) -> None:
        try:
            while (item := peer.call("get", True, WAIT_S)) is not None:
                number, padding = item
                assert padding == "x" * (number % 7 * 4_000)
                peer.call("put", number, name="result")
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    results = []
    for number in range(n):
        office.task.put((number, "x" * (number % 7 * 4_000)))
        if number >= 20:  # a small window, so that the peers wait often
            results.append(office.result.get(timeout=WAIT_S))
    results += [office.result.get(timeout=WAIT_S) for _ in range(n - len(results))]
    for _ in peers:
        office.task.put(None)
    for thread in threads:
        thread.join(WAIT_S)
    assert failed == []
    assert sorted(results) == list(range(n))
    assert office.result.empty()
