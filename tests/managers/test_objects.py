"""Objects of the master used from a worker and from the master itself, in one process over a real socket."""

from __future__ import annotations

import gc
import multiprocessing.managers
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import manyhands.managers as ours
from manyhands.errors import ServerGone, ServerUnavailable, TaskFailed, UnknownId
from manyhands.managers import SyncManager
from manyhands.testing.contract.peer import eventually

Both = tuple[Any, Any]


class Account:
    """Something with methods, an attribute and ways to fail."""

    def __init__(self, owner: str = "") -> None:
        self.owner = owner
        self.entries: list[int] = []

    def add(self, n: int, *, times: int = 1) -> list[int]:
        self.entries += [n] * times
        return self.entries

    def fail(self) -> None:
        raise Odd("too", "odd")

    def lookup(self) -> None:
        raise LookupError("nobody")

    def unsendable(self) -> Any:
        return lambda: 1

    def end(self) -> None:
        raise SystemExit(3)

    def walk(self) -> Iterator[int]:
        yield from self.entries

    def _secret(self) -> str:
        return "secret"


class Odd(Exception):
    """Pickles, and does not load again."""

    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} {b}")


class Registered(SyncManager):
    pass


kept_account = Account("kept")
kept_dict: dict[str, Any] = {"a": 1, "nested": {"b": 2}}
Registered.register("Account", Account)
Registered.register("get_account", lambda: kept_account)
Registered.register("get_exposed", Account, exposed=("add", "_secret"))
Registered.register("walker", Account, method_to_typeid={"walk": "Iterator"})
Registered.register("get_cfg", lambda: kept_dict)
Registered.register("get_list", lambda: [3, 1, 2])
Registered.register("get_number", lambda: 42)
Registered.register("get_text", lambda: "text")


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    """(a serving master, a connected worker)"""
    with Registered(("127.0.0.1", 0), "abc") as master:
        worker = Registered(master.address, "abc")
        worker.connect()
        yield master, worker
        worker.shutdown()


@pytest.fixture(params=["master", "worker"])
def manager(both: Both, request: pytest.FixtureRequest) -> Any:
    return both[request.param == "worker"]


# -- calls -------------------------------------------------------------------------------------------------------------


def test_arguments_and_results_are_copies(manager: Any) -> None:
    account = manager.Account("me")
    first = account.add(1, times=2)
    first.append(99)
    assert account.add(3) == [1, 1, 3]
    shared = manager.list()
    mine = [1]
    shared.append(mine)
    mine.append(2)
    assert shared[0] == [1]


def test_master_and_worker_use_one_object(both: Both) -> None:
    both[0].get_account().add(1)
    both[1].get_account().add(2)
    assert kept_account.entries[-2:] == [1, 2]


def test_an_exception_is_raised_as_it_was_with_its_traceback_over_there(manager: Any, both: Both) -> None:
    with pytest.raises(LookupError, match="nobody") as caught:
        manager.Account().lookup()
    if manager is both[1]:
        assert "in lookup" in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_rebuilt_comes_as_text(both: Both) -> None:
    with pytest.raises(ours.RemoteError, match=r"(?s)in fail.*too odd"):
        both[1].Account().fail()


def test_a_result_that_cannot_be_sent_says_so(manager: Any) -> None:
    with pytest.raises(ours.RemoteError, match=r"Unserializable.*function"):
        manager.Account().unsendable()


def test_an_argument_that_cannot_be_sent_fails_here_and_the_next_call_works(manager: Any) -> None:
    account = manager.Account()
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda") as caught:
        account.add(lambda: 1)
    assert "nothing was called" in caught.value.__notes__[0]
    assert account.add(1) == [1]


def test_a_method_that_ends_its_process_ends_only_its_call(both: Both) -> None:
    account = both[1].Account()
    with pytest.raises(ours.RemoteError, match="SystemExit: 3"):
        account.end()
    assert account.add(1) == [1]


def test_only_what_is_exposed_can_be_called(manager: Any) -> None:
    account, exposed = manager.Account(), manager.get_exposed()
    assert not hasattr(account, "_secret")
    with pytest.raises(ours.RemoteError, match="not exposed"):
        account._callmethod("_secret")
    assert exposed._secret() == "secret"
    assert not hasattr(exposed, "fail")


def test_a_method_may_give_a_proxy_of_what_stays_there(manager: Any) -> None:
    account = manager.walker()
    account.add(5, times=3)
    assert list(account.walk()) == [5, 5, 5]


def test_a_callable_that_raises_is_both_libraries_error(manager: Any) -> None:
    with pytest.raises(ours.RemoteError, match="'Pool' raised ValueError") as caught:
        manager.Pool(-1)
    assert isinstance(caught.value, TaskFailed)


def test_str_repr_and_a_deep_copy_are_the_standard_librarys(manager: Any) -> None:
    import copy

    shared = manager.list([1, 2])
    assert str(shared) == "[1, 2]"
    assert repr(shared).startswith("<ListProxy object, typeid 'list'")
    assert copy.deepcopy(shared) == shared._getvalue() == [1, 2]


# -- values that are no proxies' ----------------------------------------------------------------------------------------


def test_a_served_dict_or_list_can_be_used_as_one(manager: Any) -> None:
    cfg, numbers = manager.get_cfg(), manager.get_list()
    assert (cfg["a"], len(cfg), "a" in cfg, sorted(cfg), cfg.copy()) == (1, 2, True, ["a", "nested"], kept_dict)
    numbers.sort()
    numbers += [4]
    assert (list(numbers), numbers[1:3], len(numbers)) == ([1, 2, 3, 4], [2, 3], 4)
    assert isinstance(cfg, ours.DictProxy)


def test_a_served_number_or_text_has_its_operators(manager: Any) -> None:
    number, text = manager.get_number(), manager.get_text()
    assert (number + 1, 1 + number, number * 2, int(number), number == 42) == (43, 43, 84, 42, True)
    assert (text + "s", text[0], len(text), text.upper(), number._getvalue()) == ("texts", "t", 4, "TEXT", 42)


# -- proxy classes -------------------------------------------------------------------------------------------------------


class TheirProxy(multiprocessing.managers.BaseProxy):
    _exposed_ = ("add",)

    def add_two(self, n: int) -> Any:
        return self._callmethod("add", (n,), {"times": 2})


class OurProxy(ours.BaseProxy):
    _exposed_ = ("add",)

    def add_two(self, n: int) -> Any:
        return self._callmethod("add", (n,), {"times": 2})


class TheirNamespace(multiprocessing.managers.NamespaceProxy):
    _exposed_ = ("__getattribute__", "__setattr__", "__delattr__", "add")

    def add(self, n: int) -> Any:
        return object.__getattribute__(self, "_callmethod")("add", (n,))


class OldStyle(multiprocessing.managers.BaseProxy):
    """Calls its base class by name."""

    def __init__(self, *args: Any, **kwds: Any) -> None:
        multiprocessing.managers.BaseProxy.__init__(self, *args, **kwds)

    def add_two(self, n: int) -> Any:
        return self._callmethod("add", (n,), {"times": 2})


def a_function(*args: Any, **kwds: Any) -> Any:
    return OurProxy(*args, **{**kwds, "exposed": None})


@pytest.mark.parametrize("kind", [TheirProxy, OurProxy, OldStyle, a_function])
def test_proxy_classes_of_either_library_work(both: Both, kind: Any) -> None:
    Registered.register("with_proxy", Account, kind)
    for manager in both:
        proxy = manager.with_proxy()
        assert proxy.add_two(1) == [1, 1]
        assert isinstance(proxy, multiprocessing.managers.BaseProxy)
        assert isinstance(proxy, ours.BaseProxy)
        if isinstance(kind, type):
            assert isinstance(proxy, kind)


def test_a_namespace_proxy_of_the_programs_own_works(both: Both) -> None:
    Registered.register("with_namespace", Account, TheirNamespace)
    for manager in both:
        proxy = manager.with_namespace("me")
        proxy.colour = "red"
        assert (proxy.owner, proxy.colour, proxy.add(1)) == ("me", "red", [1])
        del proxy.colour
        with pytest.raises(AttributeError, match="colour"):
            _ = proxy.colour


def test_a_proxy_class_of_the_programs_own_may_stand_before_an_engines_queue(both: Both) -> None:
    class PutOnly(ours.BaseProxy):
        _exposed_ = ("put", "qsize")

        def give(self, item: Any) -> None:
            self._callmethod("put", (item,))

    kept: queue.Queue[int] = queue.Queue()
    Registered.register("give_only", lambda: kept, PutOnly)
    for manager in both:
        manager.give_only().give(1)
    assert kept.qsize() == 2


def test_made_proxy_types_of_either_library_work(both: Both) -> None:
    for make in (ours.MakeProxyType, multiprocessing.managers.MakeProxyType):  # type: ignore[attr-defined]
        kind = make("AddProxy", ("add",))
        Registered.register("with_made", Account, kind)
        for manager in both:
            assert manager.with_made().add(1) == [1]
    assert ours.MakeProxyType("AddProxy", ["add"]) is ours.MakeProxyType("AddProxy", ("add",))


def test_the_standard_proxies_are_the_standard_librarys_too(manager: Any) -> None:
    for name in ("list", "dict", "Lock", "Event", "Condition", "Namespace"):
        assert isinstance(getattr(manager, name)(), multiprocessing.managers.BaseProxy)
    assert isinstance(manager.list(), multiprocessing.managers.ListProxy)
    assert isinstance(manager.dict(), multiprocessing.managers.DictProxy)


def test_every_name_of_the_standard_librarys_module_is_here() -> None:
    theirs = multiprocessing.managers
    defined = {
        name
        for name, value in vars(theirs).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == theirs.__name__
    }
    plumbing = {"dispatch", "reduce_array", "rebuild_as_list", "RebuildProxy", "SharedMemoryServer"}
    assert set(theirs.__all__) | defined - plumbing <= set(vars(ours))


# -- references ----------------------------------------------------------------------------------------------------------


def test_an_object_lives_as_long_as_a_proxy_anywhere(both: Both) -> None:
    master, worker = both
    first, second = master.list([1]), worker.list([2])
    idents = {first._id, second._id}
    assert worker._number_of_objects() >= 2
    assert all(ident in worker._debug_info() for ident in idents)
    del first, second
    gc.collect()
    assert not any(ident in worker._debug_info() for ident in idents)


def test_a_pickled_proxy_leads_to_the_object_though_its_sender_let_go(both: Both) -> None:
    for manager in both:
        sent = pickle.dumps([manager.list([1]), manager.Account("me"), manager.get_cfg(), manager.Queue()])
        gc.collect()
        numbers, account, cfg, own_queue = pickle.loads(sent)
        own_queue.put(5)
        assert (list(numbers), account.add(1), cfg["a"], own_queue.get(timeout=5)) == ([1], [1], 1, 5)


def test_proxies_inside_objects_keep_what_they_lead_to(both: Both) -> None:
    for manager in both:
        outer = manager.list([manager.list([1]), manager.dict(a=1), manager.Queue()])
        gc.collect()
        outer[0].append(2)
        outer[1]["b"] = 2
        outer[2].put(3)
        assert (list(outer[0]), outer[1].copy(), outer[2].get(timeout=5)) == ([1, 2], {"a": 1, "b": 2}, 3)


def test_a_proxy_in_an_item_of_a_queue_works_for_its_receiver(both: Both) -> None:
    master, worker = both
    shared: Any = master.Queue()
    there = pickle.loads(pickle.dumps(shared))
    shared.put({"answer here": worker.list([1])})
    gc.collect()
    there.get(timeout=5)["answer here"].append(2)


def test_a_list_that_holds_itself_is_collected(both: Both) -> None:
    loop = both[0].list()
    loop.append(loop)
    ident = loop._id
    assert ident in both[1]._debug_info()
    del loop
    both[0]._master.objects._lingering.clear()  # what was pickled into the list stays a minute longer
    gc.collect()
    assert ident not in both[1]._debug_info()
    assert ident not in both[0]._master.objects._alive


def test_what_a_worker_that_left_referred_to_is_gone(both: Both) -> None:
    other = Registered(both[0].address, "abc")
    other.connect()
    mine = other.list([1])
    ident = mine._id
    other.shutdown()
    with pytest.raises(ServerUnavailable, match="closed"):
        mine.append(2)
    eventually(lambda: ident not in both[0]._debug_info(), "it is gone")
    with pytest.raises(UnknownId, match="last proxy"):
        both[0]._master.objects.find(ident)


# -- locks, and threads that wait ------------------------------------------------------------------------------------------


def test_a_lock_with_an_owner_belongs_to_the_thread_that_acquired_it(manager: Any) -> None:
    lock = manager.RLock()
    assert lock.acquire()
    assert lock.acquire()
    assert in_thread(lambda: lock.acquire(False)) is False
    assert isinstance(in_thread(lock.release, fails=True), RuntimeError)
    lock.release()
    lock.release()
    assert in_thread(lambda: lock.acquire(False)) is True


def test_a_condition_wakes_who_waits_in_a_worker_from_the_master(both: Both) -> None:
    master, worker = both
    condition = worker.Condition()
    in_master = pickle.loads(pickle.dumps(condition))
    is_waiting, woken = threading.Event(), threading.Event()

    def wait() -> None:
        with condition:
            is_waiting.set()
            assert condition.wait(10)
            woken.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert is_waiting.wait(5)
    with in_master:
        in_master.notify()
    assert woken.wait(5)
    thread.join(5)
    assert master is not worker


def test_threads_of_a_worker_wait_at_the_same_time(both: Both) -> None:
    barrier = both[1].Barrier(5)
    threads = [threading.Thread(target=barrier.wait, args=(10,)) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_gives_its_lock_back_and_one_that_ends_well_hands_it_over(both: Both) -> None:
    failing, ending = both[1].Lock(), both[1].Lock()

    def fail() -> None:
        failing.acquire()
        raise ArithmeticError

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join(5)
    assert failing.acquire(True, 5)
    in_thread(ending.acquire)
    assert not ending.acquire(False)
    ending.release()


def in_thread(function: Callable[[], Any], *, fails: bool = False) -> Any:
    """What the function returns, or raises, in another thread."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function())
        except Exception as error:
            if not fails:
                raise
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    return found[0]


# -- the end ---------------------------------------------------------------------------------------------------------------


def test_after_the_masters_shutdown_a_call_ends_with_one_sentence_also_one_that_waits() -> None:
    master = Registered(("127.0.0.1", 0), "abc")
    master.start()
    worker = Registered(master.address, "abc")
    worker.connect()
    here, there = master.list([1]), worker.Event()
    ended: list[BaseException] = []

    def wait() -> None:
        try:
            there.wait()
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: bool(master._master._callers.n_threads), "the call runs")  # type: ignore[union-attr]
    started = time.monotonic()
    master.shutdown()
    thread.join(5)
    assert time.monotonic() - started < 5
    assert isinstance(ended[0], ServerGone)
    assert "wait() was done" in str(ended[0])
    with pytest.raises(ServerGone, match="shut down"):
        here.append(2)
    with pytest.raises(ServerGone):
        there.set()
    worker.shutdown()


def test_start_and_get_server_leave_what_programs_look_at() -> None:
    manager = Registered(("127.0.0.1", 0), "abc")
    server = manager.get_server()
    assert server.address[1] > 0
    server.listener.close()
    manager.start()
    assert (manager._process.is_alive(), manager._process.exitcode) == (True, None)  # type: ignore[union-attr]
    manager.shutdown()
    manager.join(5)
    assert (manager._process.is_alive(), manager._process.exitcode) == (False, 0)  # type: ignore[union-attr]


def test_the_xml_serializer_narrows_values_as_it_always_did() -> None:
    with Registered(("127.0.0.1", 0), "abc", serializer="xmlrpclib") as master:
        worker = Registered(master.address, "abc", serializer="xmlrpclib")
        worker.connect()
        for manager in (master, worker):
            shared = manager.list([(1, 2)])
            tasks = manager.Queue()
            tasks.put((1, b"x"))
            assert (shared[0], tasks.get(timeout=5)) == ([1, 2], [1, b"x"])
            with pytest.raises(TypeError):
                tasks.put(time.sleep)
            with pytest.raises(TypeError):
                shared.append(time.sleep)
        worker.shutdown()
