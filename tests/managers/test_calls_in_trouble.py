"""Calls of objects when connections break, masters vanish, programs are interrupted or killed."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.errors import ServerGone, ServerUnavailable
from manyhands.managers import SyncManager, gate, link
from manyhands.managers.objects.session_calls import SessionCalls
from manyhands.testing.contract.peer import eventually
from manyhands.testing.proxy import CuttingProxy

KEY = "abc"


class Counter:
    """Counts how often it was called, and waits on request."""

    def __init__(self) -> None:
        self.n = 0
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.is_inside = threading.Event()

    def count(self, size: int = 0) -> tuple[int, bytes]:
        self.n += 1
        self.is_inside.set()
        assert self.may_go_on.wait(20)
        return self.n, bytes(size)


class Shared(SyncManager):
    pass


counter = Counter()
locks = [threading.Lock(), threading.RLock()]
Shared.register("get_counter", lambda: counter, exposed=("count",))
Shared.register("get_lock", lambda n: locks[n], exposed=("acquire", "release"))


@pytest.fixture
def place() -> Iterator[tuple[Any, Any, CuttingProxy]]:
    """(master, worker behind a proxy that cuts, the proxy)"""
    counter.__init__()  # type: ignore[misc]
    locks[:] = [threading.Lock(), threading.RLock()]
    with Shared(("127.0.0.1", 0), KEY) as master, CuttingProxy(master.address) as proxy:
        worker = Shared(proxy.address, KEY)
        worker.connect()
        yield master, worker, proxy
        worker.shutdown()


def started(function: Any, *args: Any) -> tuple[threading.Thread, list[Any]]:
    """The call in a thread of its own, and the list that what it returned or raised comes into."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(function(*args))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, found


@pytest.mark.faults
@pytest.mark.parametrize("when", ["while it runs", "with its answer"])
def test_a_call_that_is_sent_again_is_not_made_again(
    place: tuple[Any, Any, CuttingProxy], when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker, proxy = place
    shared = worker.get_counter()
    arrived: list[int] = []
    plain = SessionCalls.invoke

    def noted(calls: SessionCalls, rid: int, thread: int) -> Any:
        arrived.append(rid)
        return plain(calls, rid, thread)

    monkeypatch.setattr(SessionCalls, "invoke", noted)
    counter.may_go_on.clear()
    thread, found = started(shared.count)
    assert counter.is_inside.wait(5)
    if when == "while it runs":
        proxy.drop_all()
        eventually(lambda: len(arrived) == 2, "it is sent again")
    else:
        proxy.cut_after(5, "down")
    counter.may_go_on.set()
    thread.join(10)
    assert found == [(1, b"")]
    assert (len(arrived), len(set(arrived))) == (2, 1)
    assert shared.count() == (2, b"")


@pytest.mark.faults
def test_a_resend_whose_answer_is_gone_is_told_that_nobody_knows(place: tuple[Any, Any, CuttingProxy]) -> None:
    _, worker, proxy = place
    shared = worker.get_counter()
    counter.may_go_on.clear()
    thread, found = started(shared.count, 2 * 1024 * 1024)
    assert counter.is_inside.wait(5)
    proxy.cut_after(1000, "down")
    counter.may_go_on.set()
    thread.join(10)
    assert isinstance(found[0], ServerUnavailable)
    assert "whether it was done is not known" in str(found[0])
    assert counter.n == 1
    assert shared.count() == (2, b"")


@pytest.mark.faults
def test_references_survive_a_broken_connection(place: tuple[Any, Any, CuttingProxy]) -> None:
    _, worker, proxy = place
    mine = worker.list([1])
    for _ in range(3):
        proxy.drop_all()
        mine.append(2)
    assert list(mine) == [1, 2, 2, 2]


@pytest.mark.faults
def test_a_lock_is_lost_with_a_connection_that_is_away_for_too_long_and_its_holder_learns_it(
    place: tuple[Any, Any, CuttingProxy],
) -> None:
    _, worker, proxy = place
    lock = worker.get_lock(0)
    assert lock.acquire()
    proxy.is_refusing = True
    proxy.drop_all()
    eventually(lambda: locks[0].acquire(False), "it is released", 10)
    proxy.is_refusing = False
    with pytest.raises(RuntimeError, match="away for too long"):
        lock.release()
    assert locks[0].locked()


@pytest.mark.faults
def test_a_call_gives_up_when_its_master_is_gone_for_too_long(
    place: tuple[Any, Any, CuttingProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, worker, proxy = place
    monkeypatch.setattr(link, "GIVE_UP_S", 0.5)
    monkeypatch.setattr(link, "_LOOK_S", 0.1)
    event = worker.Event()
    thread, found = started(event.wait)
    time.sleep(0.3)  # a call that waits while there is a connection is not given up
    assert not found
    proxy.is_refusing = True
    proxy.drop_all()
    thread.join(10)
    assert isinstance(found[0], ServerUnavailable)
    assert "was not reached for" in str(found[0])
    proxy.is_refusing = False
    monkeypatch.undo()
    assert event.is_set() is False  # the next one connects again


def test_a_proxy_of_an_earlier_run_of_the_master_is_told_so(place: tuple[Any, Any, CuttingProxy]) -> None:
    master, worker, proxy = place
    mine = worker.list([1])
    with Shared(("127.0.0.1", 0), KEY) as later:
        proxy.retarget(later.address)
        proxy.drop_all()
        with pytest.raises(ServerUnavailable, match="started anew"):
            mine.append(2)
        assert list(worker.list([5])) == [5]
    assert master is not later


def test_an_interrupted_call_neither_disturbs_the_next_nor_keeps_what_it_gets(place: tuple[Any, Any, CuttingProxy]) -> None:
    _, worker, _ = place
    lock = worker.get_lock(0)
    locks[0].acquire()
    main = threading.main_thread().ident
    assert main is not None
    if not hasattr(signal, "pthread_kill"):
        pytest.skip("this platform cannot interrupt a thread from another")

    def interrupt() -> None:
        eventually(lambda: bool(place[0]._master._callers.n_threads), "the call runs")
        signal.pthread_kill(main, signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        lock.acquire()
    thread.join(5)
    shared = worker.get_counter()
    assert shared.count() == (1, b"")  # by another thread of the master's: the first still waits for the lock
    locks[0].release()
    eventually(lambda: lock.acquire(False), "what the interrupted call got in the end was given back")
    lock.release()


# -- processes that die -------------------------------------------------------------------------------------------------

HOLDER = """
import sys
from manyhands.managers import SyncManager
class Shared(SyncManager): pass
Shared.register("get_lock", exposed=("acquire", "release"))
manager = Shared(({host!r}, {port}), {key!r})
manager.connect()
lock = manager.get_lock({n})
assert lock.acquire()
print("holds", flush=True)
sys.stdin.readline()
{end}
"""


@contextlib.contextmanager
def holder(master: Any, n: int, end: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has acquired a lock, and ends so when it is told to."""
    host, port = master.address
    program = HOLDER.format(host=host, port=port, key=KEY, n=n, end=end)
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holds\n"
        yield process
        process.kill()


def is_free(n: int) -> bool:
    got: list[bool] = []

    def look() -> None:
        got.append(locks[n].acquire(False))
        if got[0]:
            locks[n].release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return got[0]


@pytest.mark.programs
@pytest.mark.parametrize("n", [0, 1], ids=["Lock", "RLock"])
def test_a_lock_of_a_killed_process_is_released(place: tuple[Any, Any, CuttingProxy], n: int) -> None:
    with holder(place[0], n, "") as process:
        assert not is_free(n)
        process.kill()
        process.wait()
        began = time.monotonic()
        eventually(lambda: is_free(n), "the lock is released", 10)
        assert time.monotonic() - began < 5


@pytest.mark.programs
@pytest.mark.parametrize(
    ("n", "end", "is_released"), [(0, "raise ValueError", True), (0, "sys.exit(1)", True), (0, "", False), (1, "", True)]
)
def test_how_a_process_ends_decides_what_becomes_of_its_locks(
    place: tuple[Any, Any, CuttingProxy], n: int, end: str, is_released: bool
) -> None:
    with holder(place[0], n, end) as process:
        process.communicate("end\n", 20)
        if is_released:
            eventually(lambda: is_free(n), "the lock is released")
        else:
            eventually(lambda: len(place[0]._master._gate._peers) == 0, "the master knows that it has ended")
            assert not is_free(n)


@pytest.mark.programs
def test_what_a_killed_process_referred_to_goes_when_it_does_not_come_back(
    place: tuple[Any, Any, CuttingProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "COMES_BACK_WITHIN_S", 1.2)
    with holder(place[0], 0, "") as process:
        before = place[0]._number_of_objects()
        process.kill()
        eventually(lambda: place[0]._number_of_objects() == before - 1, "it is gone", 10)


def test_a_call_after_leaving_says_so(place: tuple[Any, Any, CuttingProxy]) -> None:
    _, worker, _ = place
    mine = worker.list([1])
    worker.shutdown()
    with pytest.raises((ServerUnavailable, ServerGone), match="closed"):
        mine.append(2)
