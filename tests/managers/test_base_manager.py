"""BaseManager's own interface, and a sentence for each trap that cannot simply be made to work."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import queue
import socket
import sys
import threading
from typing import Any

import pytest

from manyhands.errors import (
    AddressInUse,
    AuthenticationFailed,
    ServerGone,
    UnsupportedFeature,
    UsageError,
)
from manyhands.managers import BaseManager
from manyhands.managers.responsiveness import SWITCH_INTERVAL_S, QuickSwitching

from .conftest import Pair

tasks: queue.Queue[Any] = queue.Queue()


class Manager(BaseManager):
    pass


Manager.register("get_tasks", callable=lambda: tasks)


# -- registering -------------------------------------------------------------------------------------------------------


def test_a_subclass_inherits_what_is_registered_and_keeps_its_own_to_itself() -> None:
    class Base(BaseManager):
        pass

    Base.register("get_a")

    class Child(Base):
        pass

    Child.register("get_b")
    Base.register("get_c")
    assert set(Child._registry) == {"get_a", "get_b"}
    assert set(Base._registry) == {"get_a", "get_c"}
    assert BaseManager._registry == {}
    assert callable(Child.get_a)  # type: ignore[attr-defined]
    assert not hasattr(Base, "get_b")


def test_without_create_method_there_is_none() -> None:
    class Quiet(BaseManager):
        pass

    Quiet.register("get_a", create_method=False)
    assert not hasattr(Quiet, "get_a")


def test_what_is_registered_after_start_is_offered(pair: Pair) -> None:
    master, worker = pair()
    original: queue.Queue[int] = queue.Queue()
    type(master).register("get_late", callable=lambda: original)
    type(worker).register("get_late")
    worker.get_late().put(1)
    assert master.get_late().get(timeout=5) == 1


def test_registering_the_queue_itself_says_what_to_write() -> None:
    with pytest.raises(UsageError, match=r"callable=lambda: the_queue"):
        Manager.register("get_wrong", callable=tasks)  # type: ignore[arg-type]


@pytest.mark.parametrize("typeid", ["", "get tasks", 5])
def test_a_typeid_must_be_a_name(typeid: Any) -> None:
    with pytest.raises(UsageError, match="name"):
        Manager.register(typeid)


# -- making ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("authkey", ["", b"", 123, ["abc"]])
def test_a_key_that_is_empty_or_of_another_type_is_refused(authkey: Any) -> None:
    with pytest.raises(UsageError, match="authkey"):
        Manager(("127.0.0.1", 0), authkey=authkey)


def test_without_a_key_the_processs_own_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    with Manager(("127.0.0.1", 0)) as master:
        worker = Manager(master.address, authkey=bytes(multiprocessing.current_process().authkey))
        worker.connect()
        worker.shutdown()


@pytest.mark.parametrize("address", [5000, ("127.0.0.1",), ("127.0.0.1", "5000"), ("127.0.0.1", 70000), (1, 2)])
def test_an_address_that_is_none_says_how_to_write_one(address: Any) -> None:
    with pytest.raises(UsageError, match=r"\('', 5000\)"):
        Manager(address, b"abc")


def test_other_kinds_of_address_are_refused() -> None:
    with pytest.raises(UnsupportedFeature, match="address"):
        Manager("/tmp/socket", b"abc")


def test_an_unknown_serializer_is_refused() -> None:
    with pytest.raises(UsageError, match="pickle, xmlrpclib"):
        Manager(("", 0), b"abc", "json")


# -- starting and stopping ---------------------------------------------------------------------------------------------


def test_the_address_has_the_real_port_once_it_serves() -> None:
    master = Manager(("", 0), b"abc")
    assert master.address == ("", 0)
    with master:
        host, port = master.address
        assert (host, port > 0) == ("0.0.0.0", True)
        worker = Manager(("127.0.0.1", port), "abc")
        worker.connect()
        assert worker.get_tasks().qsize() == 0
        worker.shutdown()


def test_the_initializer_runs_in_the_callers_thread_before_anybody_is_served() -> None:
    seen: list[Any] = []

    def initialize(word: str) -> None:
        seen.append((word, threading.current_thread()))

    master = Manager(("127.0.0.1", 0), b"abc")
    master.start(initialize, ("ready",))
    master.shutdown()
    assert seen == [("ready", threading.current_thread())]


def test_an_initializer_that_raises_leaves_nothing_behind() -> None:
    master = Manager(("127.0.0.1", free_port()), b"abc")
    with pytest.raises(ZeroDivisionError):
        master.start(lambda: 1 / 0)
    with socket.create_server(("127.0.0.1", master.address[1])):
        pass  # the port is free


def test_an_initializer_that_cannot_be_called_is_refused() -> None:
    with pytest.raises(TypeError, match="initializer"):
        Manager(("127.0.0.1", 0), b"abc").start(5)  # type: ignore[arg-type]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def test_starting_or_connecting_a_second_time_is_refused(pair: Pair) -> None:
    master, worker = pair()
    for manager in (master, worker):
        for again in (manager.start, manager.connect, manager.get_server):
            with pytest.raises(multiprocessing.ProcessError, match="second"):
                again()
    master.shutdown()
    with pytest.raises(multiprocessing.ProcessError, match="shutdown"):
        master.start()


def test_a_port_that_is_taken_is_said_by_whom() -> None:
    holder = str(os.getpid()) if sys.platform == "linux" else "use"
    with Manager(("127.0.0.1", 0), b"abc") as master, pytest.raises(AddressInUse, match=holder):
        Manager(master.address, b"abc").start()


def test_shutdown_is_idempotent_and_join_waits_for_it() -> None:
    master = Manager(("127.0.0.1", 0), b"abc")
    master.start()
    master.join(timeout=0.01)
    waiting = threading.Thread(target=master.join)
    waiting.start()
    master.shutdown()
    master.shutdown()
    waiting.join(5)
    assert not waiting.is_alive()


def test_shutdown_of_a_worker_leaves_the_master_serving(pair: Pair) -> None:
    master, worker = pair(get_queue=lambda: tasks)
    worker.get_queue()
    worker.shutdown()
    again = type(worker)(master.address, b"abc")
    again.connect()
    assert again.get_queue().qsize() == 0
    again.shutdown()


def test_serve_forever_serves_and_returns_after_shutdown() -> None:
    master = Manager(("127.0.0.1", 0), b"abc")
    server = master.get_server()
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    worker = Manager(server.address, b"abc")
    worker.connect()
    worker.get_tasks().put(1)
    assert worker.get_tasks().get(timeout=5) == 1
    worker.shutdown()
    master.shutdown()
    serving.join(10)
    assert not serving.is_alive()


def test_a_worker_left_alone_is_told_every_time(pair: Pair) -> None:
    master, worker = pair(get_queue=lambda: tasks)
    proxy = worker.get_queue()
    master.shutdown()
    for _ in range(3):
        with pytest.raises(ServerGone) as caught:
            proxy.get(timeout=0.05)
        assert isinstance(caught.value, queue.Empty)
        assert isinstance(caught.value, EOFError)


# -- names -------------------------------------------------------------------------------------------------------------


def test_an_unregistered_name_lists_the_registered_ones(pair: Pair) -> None:
    _, worker = pair(get_queue=lambda: tasks)
    with pytest.raises(AttributeError, match=r"'get_tasks'.*registered here: get_queue\."):
        worker.get_tasks()


def test_a_name_that_the_master_does_not_offer_lists_what_it_offers(pair: Pair) -> None:
    _, worker = pair(get_queue=lambda: tasks)
    type(worker).register("get_tusks")
    with pytest.raises(UsageError, match="'get_tusks'; it offers: get_queue") as caught:
        worker.get_tusks()
    assert caught.value.offered == ["get_queue"]


def test_a_name_registered_on_the_master_without_a_callable_is_not_offered(pair: Pair) -> None:
    master, worker = pair(get_queue=lambda: tasks)
    type(master).register("get_nothing")
    type(worker).register("get_nothing")
    for manager in (master, worker):
        with pytest.raises(UsageError, match="offers no 'get_nothing'"):
            manager.get_nothing()


def test_a_proxy_asked_for_too_early_or_too_late_says_so() -> None:
    master = Manager(("127.0.0.1", 0), b"abc")
    with pytest.raises(UsageError, match=r"start\(\).*connect\(\)"):
        master.get_tasks()
    with master:
        pass
    with pytest.raises(UsageError, match="after shutdown"):
        master.get_tasks()


def test_a_manager_cannot_be_pickled_and_says_what_to_send_instead() -> None:
    with pytest.raises(UsageError, match="proxy"):
        pickle.dumps(Manager(("127.0.0.1", 0), b"abc"))


# -- keys --------------------------------------------------------------------------------------------------------------


def test_another_key_does_not_get_in(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    master, _ = pair()
    with pytest.raises(AuthenticationFailed, match="authkey") as caught, caplog.at_level(logging.WARNING, "manyhands"):
        Manager(master.address, b"other").connect()
    assert isinstance(caught.value, multiprocessing.AuthenticationError)
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize(
    ("host", "key", "is_said"), [("", b"abc", True), ("127.0.0.1", b"abc", False), ("", b"x" * 16, False)]
)
def test_a_short_key_on_a_wide_bind_is_said_at_info(
    host: str, key: bytes, is_said: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "manyhands"), Manager((host, 0), key):
        pass
    said = [record for record in caplog.records if "authkey has only" in record.getMessage()]
    assert [record.levelname for record in said] == ["INFO"] * is_said
    assert "abc" not in caplog.text


# -- a computing master ------------------------------------------------------------------------------------------------


def test_the_switch_interval_is_lowered_while_serving_and_put_back() -> None:
    before = sys.getswitchinterval()
    with Manager(("127.0.0.1", 0), b"abc"):
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
        for _ in range(3):
            with Manager(("127.0.0.1", 0), b"abc"):
                pass
        assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    assert sys.getswitchinterval() == pytest.approx(before)


def test_the_switch_interval_is_left_alone_on_request() -> None:
    before = sys.getswitchinterval()
    with Manager(("127.0.0.1", 0), b"abc", switch_interval_s=None):
        assert sys.getswitchinterval() == before


def test_a_lower_switch_interval_of_the_programs_own_is_kept() -> None:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        quick = QuickSwitching()
        quick.begin()
        assert sys.getswitchinterval() == pytest.approx(1e-5)
        quick.end()
        quick.end()
        assert sys.getswitchinterval() == pytest.approx(1e-5)
    finally:
        sys.setswitchinterval(before)


# -- children ----------------------------------------------------------------------------------------------------------


def square(numbers: Any, squares: Any) -> None:
    squares.put(numbers.get(timeout=10) ** 2)


METHODS = multiprocessing.get_all_start_methods()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # 3.12 and later warn of a fork beside threads
@pytest.mark.parametrize("method", METHODS)
def test_proxies_go_to_a_child_as_arguments(pair: Pair, method: str) -> None:
    numbers: queue.Queue[int] = queue.Queue()
    squares: queue.Queue[int] = queue.Queue()
    master, worker = pair(get_numbers=lambda: numbers, get_squares=lambda: squares)
    context = multiprocessing.get_context(method)
    for parent in (master, worker):
        child = context.Process(target=square, args=(parent.get_numbers(), parent.get_squares()))
        child.start()
        master.get_numbers().put(7)
        assert squares.get(timeout=20) == 49
        child.join(20)
        assert child.exitcode == 0
