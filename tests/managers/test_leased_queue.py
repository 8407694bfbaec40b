"""Queues with an order or rules of their own stay objects in the master; a consumer elsewhere takes under a lease."""

from __future__ import annotations

import heapq
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from manyhands.errors import ShutDown
from manyhands.managers.objects import heap
from manyhands.managers.objects.leased_queue import LeasedQueue
from manyhands.managers.objects.queue_kinds import is_leased_queue, is_plain_queue
from programs.lab import until

ONE, OTHER, THIRD = ("session", 1), ("session", 2), ("another session", 1)
STOCK = "a stock connection"
MASTER = ("", 7)
DEADLINE_S = 10


class Leased:
    """A leased queue, with each caller's calls in a thread."""

    def __init__(self, original: Any, *items: Any) -> None:
        for item in items:
            original.put(item)
        self.original = original
        self.leased = LeasedQueue(original)

    def call(self, caller: Any, method: str, *args: Any, **kwds: Any) -> Any:
        return self.leased.call(caller, method, args, kwds)

    def begin(self, caller: Any, method: str, *args: Any, **kwds: Any) -> Future[Any]:
        """Begin a call in a thread of its own."""
        future: Future[Any] = Future()

        def run() -> None:
            try:
                future.set_result(self.leased.call(caller, method, args, kwds))
            except Exception as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def waiting_get(self, caller: Any, **kwds: Any) -> Future[Any]:
        """Begin a get, and return when it waits."""
        before = self.waiters()
        future = self.begin(caller, "get", **kwds)
        until(lambda: self.waiters() > before or future.done(), "the get waits")
        return future

    def waiters(self) -> int:
        own = getattr(self.original, "not_empty", None) or self.leased._way._changed  # type: ignore[union-attr]
        return len(own._waiters)

    def lost(self, caller: Any) -> None:
        self.leased.caller_ended(caller, is_lost=True)

    def goodbye(self, caller: Any) -> None:
        self.leased.caller_ended(caller, is_lost=False)

    def rest(self) -> list[Any]:
        """What the queue still has, in its order, as the master itself sees it."""
        taken = []
        while True:
            try:
                taken.append(self.original.get(block=False))
            except queue.Empty:
                return taken


class Unique(queue.Queue[Any]):
    """Never holds the same item twice: the recipe with a set."""

    def _init(self, maxsize: int) -> None:
        self.queue = set()  # type: ignore[assignment]

    def _put(self, item: Any) -> None:
        self.queue.add(item)  # type: ignore[attr-defined]

    def _get(self) -> Any:
        item = min(self.queue)
        self.queue.remove(item)
        return item


class Packing(queue.PriorityQueue[Any]):
    """put packs, get unpacks: the recipe for items without an order."""

    count = 0

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        Packing.count += 1
        super().put((item["priority"], Packing.count, item), block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        return super().get(block, timeout)[2]


class Elsewhere(queue.Queue[Any]):
    """Its get has nothing to do with queue.Queue's."""

    def __init__(self) -> None:
        super().__init__()
        self.items: list[Any] = []

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self.mutex:
            self.items.append(item)
            self.unfinished_tasks += 1

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        try:
            return self.items.pop(0)
        except IndexError:
            raise queue.Empty from None

    def qsize(self) -> int:
        return len(self.items)


KINDS: list[Callable[[], Any]] = [queue.PriorityQueue, queue.LifoQueue, queue.SimpleQueue, Unique]


# -- which queues these are --------------------------------------------------------------------------------------------


class OnlyNamed(queue.Queue[Any]):
    """Changes nothing that can be noticed from elsewhere."""

    def __init__(self, maxsize: int = 0) -> None:
        super().__init__(maxsize)
        self.name = "tasks"


class MoreMethods(queue.Queue[Any]):
    def put_url(self, url: str) -> None:
        self.put(("url", url))


class OwnQsize(queue.Queue[Any]):
    def _qsize(self) -> int:
        return len(self.queue)


def test_a_subclass_that_overrides_nothing_is_a_plain_queue() -> None:
    assert is_plain_queue(queue.Queue())
    assert is_plain_queue(OnlyNamed())


@pytest.mark.parametrize("kind", [*KINDS, Packing, Elsewhere, MoreMethods, OwnQsize])
def test_a_queue_with_an_order_or_rules_of_its_own_is_not(kind: Callable[[], Any]) -> None:
    assert not is_plain_queue(kind())
    assert is_leased_queue(kind())


def test_what_is_no_queue_is_neither() -> None:
    assert not is_plain_queue({})
    assert not is_leased_queue({})


# -- their own order and rules -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "order"),
    [(queue.PriorityQueue, [1, 2, 3]), (queue.LifoQueue, [2, 1, 3]), (queue.SimpleQueue, [3, 1, 2]), (Unique, [1, 2, 3])],
)
def test_each_kind_keeps_its_own_order(kind: Callable[[], Any], order: list[int]) -> None:
    tasks = Leased(kind(), 3)
    tasks.call(ONE, "put", 1)
    tasks.original.put(2)
    assert [tasks.call(caller, "get") for caller in (ONE, MASTER, THIRD)] == order


def test_a_class_keeps_the_rules_of_its_put() -> None:
    tasks = Leased(Unique(), 3)
    tasks.call(ONE, "put", 3)
    assert tasks.call(ONE, "qsize") == 1


def test_a_bound_holds_and_a_put_waits_for_room() -> None:
    tasks = Leased(queue.LifoQueue(maxsize=1), 1)
    with pytest.raises(queue.Full):
        tasks.call(ONE, "put", 2, timeout=0.01)
    waiting = tasks.begin(ONE, "put", 2)
    until(lambda: len(tasks.original.not_full._waiters) == 1, "the put waits")
    assert tasks.call(OTHER, "get") == 1
    waiting.result(DEADLINE_S)
    assert tasks.original.get(block=False) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_queue_says_so_in_time(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind())
    for kwds in ({"block": False}, {"timeout": 0.01}):
        with pytest.raises(queue.Empty):
            tasks.call(ONE, "get", **kwds)
    with pytest.raises(queue.Empty):
        tasks.call(ONE, "get_nowait")
    with pytest.raises(ValueError, match="non-negative"):
        tasks.call(ONE, "get", timeout=-1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("puts_directly", [True, False])
def test_a_waiting_consumer_gets_what_is_put(kind: Callable[[], Any], puts_directly: bool) -> None:
    tasks = Leased(kind())
    waiting = [tasks.waiting_get(caller) for caller in (ONE, THIRD)]
    for item in (1, 2):
        tasks.original.put(item) if puts_directly else tasks.call(OTHER, "put", item)
    assert sorted(future.result(DEADLINE_S) for future in waiting) == [1, 2]


def test_the_masters_own_use_is_what_it_was() -> None:
    tasks = Leased(queue.PriorityQueue(maxsize=2), 2)
    tasks.original.put(1)
    assert tasks.original.full()
    assert tasks.call(MASTER, "get") == 1
    assert tasks.original.get() == 2
    assert tasks.original.empty()
    tasks.original.task_done()
    tasks.call(MASTER, "task_done")
    tasks.original.join()
    with pytest.raises(ValueError, match="too many"):
        tasks.original.task_done()


def test_restored_it_is_an_ordinary_object_again() -> None:
    tasks = Leased(queue.PriorityQueue(), 1)
    tasks.leased.restore()
    assert not {"_get", "_put", "_qsize"} & set(vars(tasks.original))
    assert tasks.rest() == [1]


# -- leases ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [queue.PriorityQueue, queue.LifoQueue, Unique, Packing])
def test_a_lost_consumers_item_goes_back_to_its_place(kind: Callable[[], Any]) -> None:
    items: list[Any] = [{"priority": n} for n in (1, 2, 3)] if kind is Packing else [1, 2, 3]
    tasks = Leased(kind(), *reversed(items))
    assert tasks.call(ONE, "get") == items[0]
    tasks.lost(ONE)
    assert tasks.rest() == items


def test_a_lost_consumers_item_goes_back_behind_the_others_of_a_simple_queue() -> None:
    tasks = Leased(queue.SimpleQueue(), 1, 2)
    assert tasks.call(ONE, "get") == 1
    tasks.lost(ONE)
    assert tasks.rest() == [2, 1]


def test_a_first_in_first_out_class_has_it_first_again() -> None:
    tasks = Leased(MoreMethods(), 1, 2, 3)
    tasks.call(ONE, "task_done")  # from here on a get ends no lease
    assert [tasks.call(ONE, "get") for _ in range(2)] == [1, 2]
    tasks.lost(ONE)
    assert tasks.rest() == [1, 2, 3]


@pytest.mark.parametrize("kind", [*KINDS, Elsewhere])
def test_the_next_get_or_a_normal_end_ends_the_lease(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind(), 1, 2, 3)
    for _ in range(2):
        tasks.call(ONE, "get")
    tasks.goodbye(ONE)
    assert tasks.call(ONE, "qsize") == 1
    tasks.call(OTHER, "get")
    with pytest.raises(queue.Empty):
        tasks.call(OTHER, "get", block=False)
    tasks.lost(OTHER)  # its last get found nothing, but it had gone on from what it had
    assert tasks.rest() == []


def test_who_counts_by_task_done_ends_leases_by_it_alone() -> None:
    tasks = Leased(queue.PriorityQueue(), 1, 2, 3, 4)
    assert [tasks.call(ONE, "get") for _ in range(2)] == [1, 2]  # 1 is done by going on
    tasks.call(ONE, "task_done")  # 2
    assert [tasks.call(ONE, "get") for _ in range(2)] == [3, 4]
    tasks.call(ONE, "task_done")  # 3
    tasks.lost(ONE)
    assert tasks.rest() == [4]


def test_task_done_ends_the_threads_oldest_lease_else_the_processs() -> None:
    tasks = Leased(queue.PriorityQueue(), 1, 2, 3)
    assert [tasks.call(caller, "get") for caller in (ONE, OTHER, THIRD)] == [1, 2, 3]
    tasks.call(OTHER, "task_done")  # its own: 2
    tasks.call(OTHER, "task_done")  # its process's: 1
    for caller in (ONE, OTHER, THIRD):
        tasks.lost(caller)
    assert tasks.rest() == [3]


def test_one_task_done_too_many_is_an_error_and_ends_nothing() -> None:
    tasks = Leased(queue.PriorityQueue())
    tasks.original.put(1)
    tasks.original.task_done()
    assert tasks.call(ONE, "get") == 1
    with pytest.raises(ValueError, match="too many"):
        tasks.call(ONE, "task_done")
    tasks.lost(ONE)
    assert tasks.rest() == [1]


def test_a_stock_consumers_put_ends_its_lease_and_a_native_ones_does_not() -> None:
    tasks = Leased(queue.LifoQueue(), 1, 2)
    tasks.call(STOCK, "get")
    tasks.call(STOCK, "put", 20)
    tasks.lost(STOCK)
    assert tasks.call(ONE, "get") == 20
    tasks.call(ONE, "put", 200)
    tasks.lost(ONE)
    assert tasks.rest() == [20, 200, 1]


def test_losing_a_consumer_counts_no_task_twice_and_none_less() -> None:
    tasks = Leased(queue.PriorityQueue(maxsize=1))
    tasks.call(ONE, "put", 1)
    tasks.call(ONE, "get")
    tasks.call(OTHER, "put", 2)
    tasks.lost(ONE)  # beyond the bound
    assert tasks.call(OTHER, "qsize") == 2
    assert tasks.original.unfinished_tasks == 2
    joined = tasks.begin(THIRD, "join")
    for _ in range(2):
        tasks.call(OTHER, "get")
        assert not joined.done()
        tasks.call(OTHER, "task_done")
    joined.result(DEADLINE_S)


@pytest.mark.parametrize("kind", [*KINDS, MoreMethods])
def test_what_goes_back_wakes_who_waits(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind(), 1)
    tasks.call(ONE, "get")
    waiting = tasks.waiting_get(THIRD)
    tasks.lost(ONE)
    assert waiting.result(DEADLINE_S) == 1


def test_what_the_master_takes_is_under_no_lease() -> None:
    tasks = Leased(queue.PriorityQueue(), 1)
    tasks.call(MASTER, "get")
    tasks.lost(MASTER)
    assert tasks.rest() == []


def test_a_class_with_a_get_of_its_own_gets_it_back_by_its_put() -> None:
    tasks = Leased(Elsewhere(), 1, 2)
    assert tasks.call(ONE, "get") == 1
    tasks.lost(ONE)
    until(lambda: tasks.original.qsize() == 2, "it is back")
    assert tasks.rest() == [2, 1]
    until(lambda: tasks.original.unfinished_tasks == 2, "it is counted once")


def test_a_method_that_takes_nothing_ends_no_lease() -> None:
    class Reporting(queue.PriorityQueue[Any]):
        def get_length(self) -> int:
            return self.qsize()

        def get_two(self) -> list[Any]:
            return [self.get(), self.get()]

        def clear(self) -> None:
            with self.mutex:
                while self._qsize():
                    self._get()

    tasks = Leased(Reporting(), 1, 2, 3)
    assert tasks.call(ONE, "get") == 1
    assert tasks.call(ONE, "get_length") == 2
    tasks.lost(ONE)
    assert tasks.call(ONE, "get_two") == [1, 2]
    tasks.lost(ONE)
    assert tasks.call(ONE, "get_two") == [1, 2]
    tasks.call(ONE, "clear")
    tasks.goodbye(ONE)
    assert tasks.rest() == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_queue_whose_proxies_come_and_go_goes_on_from_where_it_was(kind: Callable[[], Any]) -> None:
    original = kind()
    LeasedQueue(original).call(OTHER, "shutdown")
    for _ in range(2000):  # as many generations of workers
        leased = LeasedQueue(original)
    with pytest.raises(ShutDown):
        leased.call(ONE, "get")


# -- withdrawn waits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", ["withdraw", "lost", "goodbye"])
def test_a_withdrawn_get_takes_nothing(kind: Callable[[], Any], end: str) -> None:
    tasks = Leased(kind())
    waiting = tasks.waiting_get(ONE)
    tasks.leased.withdraw(ONE) if end == "withdraw" else getattr(tasks, end)(ONE)
    tasks.original.put(1)
    with pytest.raises(queue.Empty):
        waiting.result(DEADLINE_S)
    assert tasks.rest() == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wake_up_that_met_a_withdrawn_get_reaches_another(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind())
    first, second = tasks.waiting_get(ONE), tasks.waiting_get(THIRD)
    lock = getattr(tasks.original, "mutex", None) or tasks.leased._way._changed  # type: ignore[union-attr]
    put = getattr(tasks.original, "_put", tasks.original.put)
    with lock:  # the item's one wake-up goes to the first waiter, and before it can run it is withdrawn
        put(1)
        (getattr(tasks.original, "not_empty", None) or lock).notify()
        tasks.leased._way._withdraw(ONE)
    with pytest.raises(queue.Empty):
        first.result(DEADLINE_S)
    assert second.result(DEADLINE_S) == 1


def test_a_program_that_retries_every_error_is_withdrawn_all_the_same() -> None:
    class Stubborn(queue.PriorityQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            while True:
                try:
                    return super().get(block, timeout)
                except Exception:
                    continue

    tasks = Leased(Stubborn())
    waiting = tasks.waiting_get(ONE)
    tasks.lost(ONE)
    with pytest.raises(queue.Empty):
        waiting.result(DEADLINE_S)


def test_a_withdrawn_put_puts_nothing_and_a_withdrawn_join_ends() -> None:
    tasks = Leased(queue.LifoQueue(maxsize=1), 1)
    putting, joining = tasks.begin(ONE, "put", 2), tasks.begin(OTHER, "join")
    until(lambda: bool(tasks.original.not_full._waiters and tasks.original.all_tasks_done._waiters), "both wait")
    tasks.lost(ONE)
    tasks.lost(OTHER)
    with pytest.raises(queue.Full):
        putting.result(DEADLINE_S)
    joining.result(DEADLINE_S)
    assert tasks.rest() == [1]


# -- the broadcast stop ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_shutdown_lets_the_rest_be_taken_and_then_stops_everybody(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind())
    waiting = [tasks.waiting_get(caller) for caller in (ONE, THIRD)]
    tasks.original.put(1)
    until(lambda: any(future.done() for future in waiting), "one has it")
    tasks.call(OTHER, "shutdown")
    assert sorted(str(future.exception(DEADLINE_S) or future.result()) for future in waiting) == ["", "1"]
    for method, *args in (("put", 2), ("get",)):
        with pytest.raises(ShutDown):
            tasks.call(OTHER, method, *args)


@pytest.mark.parametrize("kind", KINDS)
def test_an_immediate_shutdown_drops_everything(kind: Callable[[], Any]) -> None:
    tasks = Leased(kind(), 1, 2, 3)
    tasks.call(ONE, "get")
    tasks.call(OTHER, "shutdown", immediate=True)
    with pytest.raises(ShutDown):
        tasks.call(OTHER, "get")
    tasks.lost(ONE)
    assert tasks.call(OTHER, "qsize") == 0
    if hasattr(tasks.original, "join"):
        tasks.begin(THIRD, "join").result(DEADLINE_S)


# -- what cannot be ordered (pitfall 29) -------------------------------------------------------------------------------


def test_equal_priorities_of_items_without_an_order_work_and_none_is_lost() -> None:
    tasks = Leased(queue.PriorityQueue())
    for n in range(20):
        tasks.call(ONE, "put", (n % 2, {"n": n}))
    taken = [tasks.call(caller, "get") for caller in (ONE, OTHER, THIRD)]
    for caller in (ONE, OTHER, THIRD):
        tasks.lost(caller)
    rest = tasks.rest()
    assert [priority for priority, _ in taken] == [0, 0, 0]
    assert [priority for priority, _ in rest] == [0] * 10 + [1] * 10
    assert sorted(item["n"] for _, item in rest) == list(range(20))


def test_an_item_that_the_classs_own_put_refuses_when_it_comes_back_is_handed_out_first(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Own(queue.PriorityQueue[Any]):
        def _put(self, item: Any) -> None:
            if any(item[0] == other[0] for other in self.queue):
                raise TypeError("'<' not supported between instances of 'dict' and 'dict'")
            heapq.heappush(self.queue, item)  # type: ignore[arg-type]

        def _get(self) -> Any:
            return heapq.heappop(self.queue)  # type: ignore[arg-type]

    tasks = Leased(Own(), (1, {"a": 1}))
    tasks.call(ONE, "get")
    tasks.call(OTHER, "put", (1, {"b": 1}))
    tasks.lost(ONE)
    assert tasks.call(OTHER, "qsize") == 2
    assert tasks.call(OTHER, "get") == (1, {"a": 1})
    assert "next(counter)" in caplog.text


def test_the_heap_agrees_with_heapq_where_there_is_an_order() -> None:
    numbers = [(n * 7919) % 101 for n in range(200)]
    ours: list[int] = []
    for n in numbers:
        heap.push(ours, n)
    heapq.heapify(ours)
    assert [heap.pop(ours) for _ in numbers] == sorted(numbers)


def test_a_comparison_that_fails_loses_nothing() -> None:
    class Touchy:
        def __lt__(self, other: object) -> bool:
            raise ZeroDivisionError

    one, other = Touchy(), Touchy()
    entries: list[Any] = [one]
    with pytest.raises(ZeroDivisionError):
        heap.push(entries, other)
    assert entries == [one]
    entries = [one, other, Touchy()]
    with pytest.raises(ZeroDivisionError):
        heap.pop(entries)
    assert entries[:2] == [one, other]
    assert len(entries) == 3


@pytest.mark.parametrize("kind", [queue.PriorityQueue, queue.LifoQueue, queue.SimpleQueue])
def test_a_call_that_was_withdrawn_before_it_began_waits_for_nothing_and_takes_nothing(kind: Any) -> None:
    leased = Leased(kind(), 1)
    with pytest.raises(queue.Empty):
        leased.leased.call(ONE, "get", is_wanted=lambda: False)
    assert leased.original.qsize() == 1
    assert leased.call(OTHER, "get") == 1
