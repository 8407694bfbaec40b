"""Threads for callers: the same thread while it must be, none for who calls nothing."""

from __future__ import annotations

import threading
from typing import Any

from manyhands.managers.objects.callers import Callers
from manyhands.testing.contract.peer import eventually


class Stage:
    """Callers, and calls whose threads and ends are seen from outside."""

    def __init__(self, **more: Any) -> None:
        self.bound: set[Any] = set()
        self.callers = Callers(self.bound.__contains__, **more)
        self.threads: list[tuple[Any, int]] = []
        self.begun = threading.Event()

    def call(self, caller: Any, wait_for: threading.Event | None = None) -> threading.Event:
        done = threading.Event()

        def run() -> int:
            self.begun.set()
            if wait_for is not None:
                wait_for.wait(5)
            return threading.get_ident()

        def end(ident: int) -> None:
            self.threads.append((caller, ident))
            done.set()

        self.callers.submit(caller, run, end)
        return done


def test_calls_of_one_caller_run_one_after_another_in_their_order() -> None:
    stage = Stage()
    order: list[int] = []
    gate = threading.Event()
    stage.callers.submit("a", lambda: gate.wait(5), lambda _: order.append(0))
    ends = []
    for n in range(1, 20):
        end = threading.Event()
        stage.callers.submit("a", lambda n=n: n, lambda n, end=end: (order.append(n), end.set()))  # type: ignore[misc]
        ends.append(end)
    assert stage.callers.n_threads == 1
    gate.set()
    assert ends[-1].wait(5)
    assert order == list(range(20))


def test_callers_that_wait_do_not_keep_others_waiting() -> None:
    stage = Stage()
    gate = threading.Event()
    waiting = [stage.call(n, gate) for n in range(5)]
    assert stage.call("quick").wait(5)
    gate.set()
    assert all(end.wait(5) for end in waiting)


def test_a_thousand_callers_share_few_threads() -> None:
    stage = Stage()
    for n in range(1000):
        assert stage.call(n).wait(5)
        assert stage.callers.n_threads <= 2  # the one before may not have put itself aside yet


def test_a_caller_that_holds_something_keeps_its_thread() -> None:
    stage = Stage()
    stage.bound.add("holder")
    for n in range(10):
        assert stage.call("holder").wait(5)
        assert stage.call(n).wait(5)
    idents = {ident for caller, ident in stage.threads if caller == "holder"}
    assert len(idents) == 1
    assert not idents & {ident for caller, ident in stage.threads if caller != "holder"}


def test_threads_without_work_end_and_come_again() -> None:
    stage = Stage(idle_s=0.05)
    stage.bound.add("holder")
    assert stage.call("holder").wait(5)
    assert stage.call("other").wait(5)
    eventually(lambda: stage.callers.n_threads == 1, "only the bound one is left")
    stage.bound.clear()
    eventually(lambda: stage.callers.n_threads == 0, "that one ends too once it holds nothing")
    assert stage.call("holder").wait(5)


def test_what_follows_an_abandoned_call_does_not_wait_for_it() -> None:
    stage = Stage()
    gate = threading.Event()
    stuck = stage.call("a", gate)
    assert stage.begun.wait(5)
    behind = stage.call("a")
    stage.callers.abandon("a")
    assert behind.wait(5)
    assert stage.call("a").wait(5)
    assert not stuck.is_set()
    gate.set()
    assert stuck.wait(5)


def test_a_call_that_fails_hurts_no_other(caplog: Any) -> None:
    stage = Stage()
    stage.callers.submit("a", lambda: 1 // 0, lambda _: None)
    assert stage.call("a").wait(5)
    assert "ZeroDivisionError" in caplog.text


def test_after_stop_free_threads_end_and_nothing_is_taken() -> None:
    stage = Stage()
    assert stage.call("a").wait(5)
    stage.callers.stop()
    eventually(lambda: stage.callers.n_threads == 0, "all have ended")
    assert not stage.call("a").is_set()
    assert stage.callers.n_threads == 0
