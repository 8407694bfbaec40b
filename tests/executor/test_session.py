"""The call session: every call's outcome reaches its future, whoever reads it and however calls were packed."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import operator
import threading
import time
from typing import Any

import pytest

from executor.conftest import Stage
from manyhands.client.calling.cancelling import cancel_all
from manyhands.errors import PayloadTooLarge, ServerUnavailable
from manyhands.model import Delivery, Limits

DEADLINE_S = 20.0


class Gate:
    """Holds a hand before its next message until it is opened."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self, delivery: Delivery) -> None:
        self.reached.set()
        assert self.open.wait(DEADLINE_S)


def test_a_call_is_sent_at_once_and_its_result_comes_to_who_waits(stage: Stage) -> None:
    stage.hand()
    future = stage.submit(operator.mul, 6, 7)
    assert future.result(DEADLINE_S) == 42
    assert future.done()
    assert not future.cancel()


def test_only_a_lone_call_is_waited_for_in_a_hurry(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    hurried: list[bool] = []

    class Reading:
        def read_answer(self, rid: int, timeout_s: float | None, *, is_hurried: bool) -> None:
            hurried.append(is_hurried)
            gate.open.set()

    monkeypatch.setattr(stage.session, "_reading", Reading())
    stage.hand(gate=gate)
    assert stage.submit(abs, -1).result(DEADLINE_S) == 1
    gate.open.clear()
    first, second = stage.submit(abs, -2), stage.submit(abs, -3)
    assert first.result(DEADLINE_S) == 2
    assert hurried == [True, False]
    assert second.result(DEADLINE_S) == 3


def test_a_burst_of_short_calls_shares_messages_and_none_is_lost(stage: Stage) -> None:
    hand = stage.hand()
    assert stage.submit(abs, 0).result(DEADLINE_S) == 0
    futures = [stage.submit(abs, -n) for n in range(5000)]
    assert [future.result(DEADLINE_S) for future in futures] == list(range(5000))
    assert len(hand.sizes) < 1500
    assert sum(hand.sizes) == 5001


def test_calls_that_are_slow_or_unknown_share_no_message(stage: Stage) -> None:
    hand = stage.hand(lasting_s=0.5)
    futures = [stage.submit(abs, -n) for n in range(50)]
    assert [future.result(DEADLINE_S) for future in futures] == list(range(50))
    assert hand.sizes == [1] * 50


def test_what_was_left_to_gather_is_sent_though_nobody_waits_and_no_result_comes(stage: Stage) -> None:
    gate = Gate()
    stage.hand(gate=gate)
    held = stage.submit(abs, -1)
    assert gate.reached.wait(DEADLINE_S)
    stage.hand()
    seen = threading.Event()
    stage.submit(abs, -2).add_done_callback(lambda _: seen.set())
    assert seen.wait(DEADLINE_S), "the second call was never sent"
    assert not held.done()
    gate.open.set()


def test_wait_as_completed_callbacks_and_asyncio_know_our_futures(stage: Stage) -> None:
    stage.hand()
    futures = [stage.submit(abs, -n) for n in range(300)]
    called: list[int] = []
    futures[7].add_done_callback(lambda done: called.append(done.result()))
    done, pending = concurrent.futures.wait(futures, DEADLINE_S)
    assert not pending
    assert len(done) == 300
    assert called == [7]
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures, DEADLINE_S)) == list(range(300))
    more = [stage.submit(abs, -n) for n in range(300)]
    assert sum(f.result() for f in concurrent.futures.as_completed(more, DEADLINE_S)) == sum(range(300))

    async def gathered() -> list[int]:
        return await asyncio.gather(*(asyncio.wrap_future(stage.submit(abs, -n)) for n in range(100)))

    assert asyncio.run(gathered()) == list(range(100))


def test_a_callback_that_raises_loses_no_other_result(stage: Stage) -> None:
    gate = Gate()
    stage.hand(gate=gate)
    futures = [stage.submit(abs, -n) for n in range(20)]

    def interrupted(_: Any) -> None:
        raise KeyboardInterrupt

    futures[3].add_done_callback(interrupted)
    gate.open.set()
    results: list[int] = []
    for future in futures:
        while True:
            try:
                results.append(future.result(DEADLINE_S))
                break
            except KeyboardInterrupt:  # it hit this thread while it handed out results
                continue
    assert results == list(range(20))
    stage.session.wait_until_idle()


def test_many_threads_wait_at_the_same_time(stage: Stage) -> None:
    stage.hand()
    wrong: list[Any] = []

    def ask(start: int) -> None:
        wrong.extend(n for n in range(start, start + 100) if stage.submit(abs, -n).result(DEADLINE_S) != n)

    threads = [threading.Thread(target=ask, args=(start,)) for start in range(0, 800, 100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()
    assert not wrong
    shared = stage.submit(abs, -1)
    results: list[int] = []
    waiting = [threading.Thread(target=lambda: results.append(shared.result(DEADLINE_S))) for _ in range(4)]
    for thread in waiting:
        thread.start()
    for thread in waiting:
        thread.join(DEADLINE_S)
    assert results == [1] * 4


def test_a_wait_that_is_over_raises_timeout_and_the_call_goes_on(stage: Stage) -> None:
    gate = Gate()
    stage.hand(gate=gate)
    future = stage.submit(abs, -1)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    with pytest.raises(TimeoutError):
        future.exception(0)
    gate.open.set()
    assert future.result(DEADLINE_S) == 1


def test_a_queued_call_is_cancelled_and_one_that_runs_is_not(stage: Stage) -> None:
    gate = Gate()
    hand = stage.hand(gate=gate)
    running, queued = stage.submit(abs, -1), stage.submit(abs, -2)
    assert gate.reached.wait(DEADLINE_S)
    assert not running.cancel()
    assert running.running()
    assert queued.cancel()
    assert queued.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        queued.result()
    assert concurrent.futures.wait([queued], 0).done == {queued}
    gate.open.set()
    assert running.result(DEADLINE_S) == 1
    assert sum(hand.sizes) == 1


def test_calls_of_a_shared_message_are_cancelled_one_by_one(stage: Stage) -> None:
    gate = Gate()
    gate.open.set()
    hand = stage.hand(gate=gate)
    for n in range(2000):  # until they share messages
        stage.submit(abs, n)
    stage.session.wait_until_idle()
    gate.open.clear()
    gate.reached.clear()
    blocker = stage.submit(operator.neg, 1)
    assert gate.reached.wait(DEADLINE_S)
    futures = [stage.submit(abs, -n) for n in range(64)]
    stage.session.flush()
    assert "." in futures[0].id
    assert cancel_all(stage.session, futures[::2]) == 32
    gate.open.set()
    assert blocker.result(DEADLINE_S) == -1
    assert [future.result(DEADLINE_S) for future in futures[1::2]] == list(range(1, 64, 2))
    assert all(future.cancelled() for future in futures[::2])
    assert sum(hand.sizes) == 2000 + 1 + 32


def test_what_is_too_large_fails_at_submit(stage: Stage) -> None:
    stage.session.max_body_bytes = Limits().max_body_bytes // 1000
    with pytest.raises(PayloadTooLarge):
        stage.submit(len, bytes(1_000_000))
    assert not stage.session.n_pending


def test_closing_the_session_or_the_engine_ends_every_wait(stage: Stage) -> None:
    future = stage.submit(abs, -1)
    threading.Timer(0.05, stage.engine.close).start()
    with pytest.raises(ServerUnavailable, match="closed"):
        future.result(DEADLINE_S)
    with pytest.raises(ServerUnavailable):
        stage.submit(abs, -1)


# -- map -----------------------------------------------------------------------------------------------------------------


def test_a_map_gives_results_in_order_and_packs_by_itself(stage: Stage) -> None:
    hand = stage.hand()
    assert list(stage.map(abs, range(0, -50_000, -1)).results()) == list(range(50_000))
    assert len(hand.sizes) < 1000
    assert sum(hand.sizes) == 50_000


def test_a_map_over_an_endless_iterable_takes_what_it_needs(stage: Stage) -> None:
    stage.hand(lasting_s=1.0)
    taken = itertools.count()
    results = stage.map(operator.neg, taken).results()
    assert [next(results) for _ in range(10)] == [-n for n in range(10)]
    results.close()  # type: ignore[attr-defined]
    assert next(taken) < 1100


def test_a_buffersize_bounds_what_is_taken(stage: Stage) -> None:
    stage.hand()
    taken = itertools.count()
    results = stage.map(operator.neg, taken, buffersize=5).results()
    assert [next(results) for _ in range(20)] == [-n for n in range(20)]
    assert next(taken) <= 26


def test_a_failure_in_a_map_comes_in_its_place_and_ends_it(stage: Stage) -> None:
    stage.hand()
    results = stage.map(lambda n: 10 // n, [5, 2, 0, 1]).results()
    assert [next(results), next(results)] == [2, 5]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_a_failure_of_the_iterable_comes_behind_the_results_before_it(stage: Stage) -> None:
    def numbers() -> Any:
        yield 1
        yield 2
        raise LookupError("no third")

    stage.hand()
    results = stage.map(operator.neg, numbers()).results()
    assert [next(results), next(results)] == [-1, -2]
    with pytest.raises(LookupError, match="no third"):
        next(results)


def test_a_map_that_takes_too_long_raises_timeout(stage: Stage) -> None:
    gate = Gate()
    stage.hand(gate=gate)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        list(stage.map(abs, range(10), timeout_s=0.05).results())
    assert time.monotonic() - started < DEADLINE_S / 2
    gate.open.set()
    stage.session.wait_until_idle()


def test_a_map_whose_results_nobody_takes_is_made_all_the_same(stage: Stage) -> None:
    hand = stage.hand()
    stage.map(abs, range(3000)).results()
    stage.session.wait_until_idle()
    assert sum(hand.sizes) == 3000


def test_a_map_given_up_halfway_cancels_the_rest(stage: Stage) -> None:
    permits = threading.Semaphore(1)  # for one message, until the map was given up

    def gate(_: Delivery) -> None:
        assert permits.acquire(timeout=DEADLINE_S)

    hand = stage.hand(gate=gate)
    results = stage.map(abs, range(200)).results()
    assert next(results) == 0
    results.close()  # type: ignore[attr-defined]
    permits.release(200)
    stage.session.wait_until_idle()
    assert sum(hand.sizes) < 200
