"""The table of served objects: the standard library's rules for making, calling and forgetting."""

from __future__ import annotations

import gc
import queue
import threading
import weakref
from typing import Any

import pytest

from manyhands.errors import ServerUnavailable, TaskFailed, UnknownId, UnsupportedFeature, UsageError
from manyhands.managers.objects import Objects, table
from manyhands.managers.registry import Entry, check_registration


class Queues:
    """Stands in for Offers: names what it is given."""

    is_durable = False

    def __init__(self) -> None:
        self.dropped: list[str] = []

    def adopt(self, made: list[Any], typeid: str, label: str) -> tuple[str, bool]:
        made.pop()
        return label, label.startswith("own")


class Thing:
    def f(self) -> str:
        return "f()"

    def g(self) -> None:
        raise ValueError("from g")

    def h(self) -> int:
        raise AttributeError("from inside h")

    def _hidden(self) -> str:
        return "_hidden()"

    def me(self) -> Thing:
        return self


def objects(**callables: Any) -> Objects:
    entries = {name: made if isinstance(made, Entry) else check_registration(name, made) for name, made in callables.items()}
    queues = Queues()
    return Objects(lambda: entries, queues, queues.dropped.append)


def call(them: Objects, ident: str, method: str, *args: Any, caller: Any = ("s", 1), **kwds: Any) -> tuple[str, Any]:
    return them.call(caller, ident, method, args, kwds, holder="s")


# -- calling -----------------------------------------------------------------------------------------------------------


def test_a_public_method_returns_and_one_that_raises_gives_the_exception_itself() -> None:
    them = objects(thing=Thing)
    made = them.create("s", "thing")
    assert set(made.exposed) == {"f", "g", "h", "me"}
    assert call(them, made.ident, "f") == ("#RETURN", "f()")
    kind, error = call(them, made.ident, "g")
    assert (kind, type(error), str(error)) == ("#ERROR", ValueError, "from g")
    kind, error = call(them, made.ident, "h")
    assert (kind, str(error)) == ("#ERROR", "from inside h")


def test_what_is_not_exposed_is_refused_with_the_names_that_are() -> None:
    them = objects(thing=Thing, chosen=check_registration("chosen", Thing, exposed=("f", "_hidden")))
    kind, text = call(them, them.create("s", "thing").ident, "_hidden")
    assert kind == "#TRACEBACK"
    assert "'_hidden' of a Thing is not exposed; exposed are: f, g, h, me" in text
    chosen = them.create("s", "chosen").ident
    assert call(them, chosen, "_hidden") == ("#RETURN", "_hidden()")
    assert call(them, chosen, "g")[0] == "#TRACEBACK"


def test_three_methods_answer_although_they_are_not_exposed() -> None:
    them = objects(thing=check_registration("thing", lambda: kept, exposed=("append",)))
    kept = [1]
    ident = them.create("s", "thing").ident
    assert call(them, ident, "__str__") == ("#RETURN", "[1]")
    assert call(them, ident, "__repr__") == ("#RETURN", "[1]")
    assert call(them, ident, "#GETVALUE") == ("#RETURN", kept)
    assert call(them, ident, "__len__")[0] == "#TRACEBACK"


def test_a_method_named_in_method_to_typeid_gives_a_proxy_that_the_holder_refers_to() -> None:
    them = objects(
        thing=check_registration("thing", Thing, method_to_typeid={"me": "inner"}), inner=check_registration("inner", None)
    )
    made = them.create("s", "thing")
    kind, (exposed, token) = call(them, made.ident, "me")
    assert kind == "#PROXY"
    assert (token.typeid, "f" in exposed) == ("inner", True)
    them.decref(made.ident, "s")
    assert call(them, token.id, "f") == ("#RETURN", "f()")


def test_a_typeid_that_nobody_registered_is_named_in_the_traceback() -> None:
    them = objects(thing=check_registration("thing", Thing, method_to_typeid={"me": "missing"}))
    kind, text = call(them, them.create("s", "thing").ident, "me")
    assert kind == "#TRACEBACK"
    assert "'missing'" in text


# -- making ------------------------------------------------------------------------------------------------------------


def test_the_same_object_is_served_once_and_a_new_one_for_each_call_is_not() -> None:
    kept = Thing()
    them = objects(shared=lambda: kept, fresh=Thing)
    assert them.create("s", "shared").ident == them.create("t", "shared").ident
    assert them.create("s", "fresh").ident != them.create("s", "fresh").ident


def test_a_plain_queue_goes_to_the_engine_and_other_queues_do_not() -> None:
    them = objects(tasks=queue.Queue)
    made = them.create("s", "tasks")
    assert (made.queue, made.ident, made.served) == ("tasks", "q:tasks", None)
    assert set(made.exposed) >= {"put", "get", "task_done", "join"}


def test_plain_values_show_their_operators_and_containers_the_proxy_that_fits() -> None:
    them = objects(number=lambda: 42, cfg=lambda: {"a": 1}, chosen=check_registration("chosen", dict, exposed=("keys",)))
    number, cfg = them.create("s", "number"), them.create("s", "cfg")
    assert call(them, number.ident, "__add__", 1) == ("#RETURN", 43)
    assert (number.shape, cfg.shape, them.create("s", "chosen").shape) == ("", "dict", "")


def test_what_a_callable_raises_is_said_with_its_place() -> None:
    def broken() -> None:
        raise LookupError("no such tenant")

    with pytest.raises(TaskFailed, match=r"'broken' raised LookupError: no such tenant \(in broken"):
        objects(broken=broken).create("s", "broken")
    with pytest.raises(UsageError, match="offers no 'missing'; it offers: broken"):
        objects(broken=broken).create("s", "missing")


def test_a_durable_store_has_no_place_for_an_object() -> None:
    them = objects(cfg=dict)
    them._queues.is_durable = True  # type: ignore[misc]
    with pytest.raises(UnsupportedFeature, match=r"'cfg' returns a dict.*memory://"):
        them.create("s", "cfg")


# -- references --------------------------------------------------------------------------------------------------------


def test_an_object_goes_with_its_last_reference() -> None:
    them = objects(fresh=Thing)
    made = them.create("s", "fresh")
    them.incref(made.ident, "t")
    assert made.served is not None
    original = weakref.ref(made.served.obj)
    ident = made.ident
    del made
    them.decref(ident, "s")
    gc.collect()
    assert original() is not None
    them.holder_ended("t")
    gc.collect()
    assert original() is None
    assert them.number_of_objects() == 0
    with pytest.raises(UnknownId, match="last proxy"):
        them.find(ident)
    assert "last proxy" in call(them, ident, "f")[1]


def test_what_was_handed_on_lingers_until_the_receiver_has_its_own_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    them = objects(fresh=Thing)
    ident = them.create("s", "fresh").ident
    them.decref(ident, "s", lingers=True)
    assert (them.number_of_objects(), call(them, ident, "f")) == (0, ("#RETURN", "f()"))
    monkeypatch.setattr(table, "LINGER_S", -1.0)
    them.incref(ident, "t")
    them.decref(ident, "t", lingers=True)
    them._lingering.rotate()
    them.sweep()
    assert call(them, ident, "f") == ("#RETURN", "f()")  # the first lingering is not over
    them._lingering.clear()
    with pytest.raises(UnknownId):
        them.find(ident)


def test_a_queue_of_the_callers_own_is_dropped_with_its_last_reference() -> None:
    dropped: list[str] = []
    them = Objects(lambda: {"own": check_registration("own", queue.Queue)}, Queues(), dropped.append)
    made = them.create("s", "own")
    ident = made.ident
    del made
    them.incref(ident, "t")
    them.decref(ident, "s")
    gc.collect()
    assert dropped == []
    them.decref(ident, "t")
    gc.collect()
    assert dropped == ["own"]


def test_a_proxy_of_an_earlier_run_is_told_so() -> None:
    earlier, later = objects(fresh=Thing), objects(fresh=Thing)
    with pytest.raises(ServerUnavailable, match="started anew"):
        later.find(earlier.create("s", "fresh").ident)


def test_debug_info_prints_what_is_referred_to() -> None:
    them = objects(cfg=lambda: [1, 2])
    made = them.create("s", "cfg")
    them.incref(made.ident, "t")
    assert them.debug_info() == f"  {made.ident}:       refcount=2\n    [1, 2]"


# -- locks -------------------------------------------------------------------------------------------------------------

LOCKS = [threading.Lock, threading.RLock, threading.Semaphore, threading.BoundedSemaphore, threading.Condition]


@pytest.mark.parametrize("kind", LOCKS)
@pytest.mark.parametrize("method", ["acquire", "__enter__"])
def test_what_a_lost_caller_held_is_released(kind: Any, method: str) -> None:
    them = objects(lock=check_registration("lock", kind, exposed=("acquire", "release", "__enter__", "__exit__")))
    made = them.create("s", "lock")
    assert made.served is not None
    assert call(them, made.ident, method) == ("#RETURN", True)
    assert them.holdings.holds(("s", 1))
    them.caller_ended(("s", 1), is_lost=True)
    assert is_free(made.served.obj)
    assert not them.holdings.holds(("s", 1))


@pytest.mark.parametrize(("kind", "is_released"), list(zip(LOCKS, [False, True, False, False, True], strict=True)))
def test_after_an_orderly_end_only_locks_that_nobody_else_could_release_are(kind: Any, is_released: bool) -> None:
    them = objects(lock=kind)
    made = them.create("s", "lock")
    assert made.served is not None
    call(them, made.ident, "acquire")
    them.caller_ended(("s", 1), is_lost=False)
    assert is_free(made.served.obj) is is_released


def test_what_one_acquired_and_another_released_is_held_by_nobody() -> None:
    them = objects(lock=threading.Lock)
    ident = them.create("s", "lock").ident
    call(them, ident, "acquire", caller="a")
    call(them, ident, "release", caller="b")
    call(them, ident, "acquire", caller="c")
    them.caller_ended("a", is_lost=True)
    assert call(them, ident, "acquire", False, caller="d") == ("#RETURN", False)


def test_an_acquire_that_failed_or_raised_holds_nothing() -> None:
    them = objects(lock=threading.Lock)
    ident = them.create("s", "lock").ident
    call(them, ident, "acquire", caller="a")
    assert call(them, ident, "acquire", False, caller="b") == ("#RETURN", False)
    assert call(them, ident, "acquire", True, "nonsense", caller="b")[0] == "#ERROR"
    assert not them.holdings.holds("b")


def test_an_acquire_that_nobody_waits_for_any_more_gives_back_what_it_got() -> None:
    them = objects(lock=threading.Lock)
    ident = them.create("s", "lock").ident
    call(them, ident, "acquire", caller="a")
    answers: list[tuple[str, Any]] = []
    waiting = threading.Thread(target=lambda: answers.append(call(them, ident, "acquire", caller="ghost")))
    waiting.start()
    while "ghost" not in them._calls:
        waiting.join(0.001)
    them.withdraw("ghost")
    call(them, ident, "release", caller="a")
    waiting.join(5)
    assert call(them, ident, "acquire", False, caller="b") == ("#RETURN", True)
    ((kind, error),) = answers  # should it come back after all, it learns that it holds nothing
    assert (kind, type(error)) == ("#ERROR", ServerUnavailable)


def test_a_caller_that_was_taken_for_dead_cannot_release_what_another_holds_now() -> None:
    them = objects(lock=threading.Lock)
    ident = them.create("s", "lock").ident
    call(them, ident, "acquire", caller="away")
    them.caller_ended("away", is_lost=True, may_return=True)
    assert call(them, ident, "acquire", False, caller="b") == ("#RETURN", True)
    kind, error = call(them, ident, "release", caller="away")
    assert (kind, type(error)) == ("#ERROR", RuntimeError)
    assert call(them, ident, "acquire", False, caller="c") == ("#RETURN", False)
    them.caller_ended("away", is_lost=True)
    assert them.holdings._forfeited == {}


def is_free(lock: Any) -> bool:
    """Whether another thread can acquire it now."""
    got: list[bool] = []

    def look() -> None:
        got.append(lock.acquire(False))
        if got[0]:
            lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(5)
    return got == [True]
