"""Tasks on the real in-memory engine inside a test, by the helper that users have, bytes and leases included."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import as_completed
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import manyhands as mh
from manyhands.errors import RemoteTraceback, TaskTimedOut
from manyhands.model import SettleKind
from manyhands.tasks import REGISTRY, Registry
from manyhands.testing.clock import ManualClock
from manyhands.testing.tasks import TaskRunner, task_runner

__all__ = ["task_runner"]


@dataclass
class Order:
    number: int
    day: datetime


script: list[Any] = []
"""What the next attempts do: raise an exception, or return."""


@mh.task(queue="orders", max_attempts=3, retry_on=OSError, backoff_s=60)
def act(order: Order) -> Order:
    done = script.pop(0) if script else None
    if isinstance(done, BaseException):
        raise done
    return order


@mh.task
async def sleepless(n: int) -> int:
    return n + mh.current().attempt


@mh.task(queue="steps")
def steps(n: int) -> str:
    now = mh.current()
    for done in range(n):
        now.progress(done, n, "on it")
    return f"{now.id} {now.deadline}"


@mh.task
def both(n: int) -> int:
    return 2 * sleepless.submit(n).result()


@mh.task(timeout_s=1e-9)
def slow() -> None:
    pass


@pytest.fixture(autouse=True)
def no_script() -> Iterator[None]:
    script.clear()
    yield
    assert not script, "an attempt that was expected did not come"


ORDER = Order(7, datetime(2026, 1, 2, tzinfo=UTC))


def outcomes(runner: TaskRunner) -> list[tuple[int, SettleKind]]:
    return [(ran.attempt, ran.outcome) for ran in runner.attempts]


def test_a_result_comes_back_as_what_its_hint_says(task_runner: TaskRunner) -> None:
    future = act.submit(ORDER)
    assert not future.done()
    assert future.result() == ORDER
    assert outcomes(task_runner) == [(1, SettleKind.ACK)]
    assert task_runner.client.result(future.id) == ORDER


def test_a_failure_is_retried_with_backoff_without_anybody_waiting_for_it(task_runner: TaskRunner) -> None:
    script[:] = [OSError("down"), mh.TryAgain(delay_s=3600), None]
    started = task_runner.clock.utc()
    assert act.submit(ORDER).result() == ORDER
    assert outcomes(task_runner) == [(1, SettleKind.NACK), (2, SettleKind.NACK), (3, SettleKind.ACK)]
    first, second, _ = task_runner.attempts
    assert (first.task, first.reason) == (act.name, "OSError: down")
    assert 0 <= first.delay_s < 60
    assert second.delay_s == 3600
    assert task_runner.clock.utc() - started >= 3600


def test_the_last_failure_is_raised_and_every_attempt_is_kept(task_runner: TaskRunner) -> None:
    script[:] = [OSError(n) for n in (1, 2, 3)]
    future = act.submit(ORDER)
    with pytest.raises(OSError, match="3") as caught:
        future.result()
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    (letter,) = task_runner.dead("orders")
    assert [attempt.reason for attempt in letter.history] == ["OSError: 1", "OSError: 2", "OSError: 3"]
    assert {attempt.consumer for attempt in letter.history} == {"task runner"}
    told = task_runner.client.dead("orders").call(future.id)
    assert told is not None
    assert told.arguments == {"order": {"number": 7, "day": ORDER.day}}


def test_giving_up_ends_it_and_a_retried_dead_letter_begins_anew(task_runner: TaskRunner) -> None:
    script[:] = [mh.GiveUp("no such order")]
    future = act.submit(ORDER)
    with pytest.raises(mh.GiveUp, match="no such order"):
        future.result()
    assert outcomes(task_runner) == [(1, SettleKind.REJECT)]
    assert task_runner.client.dead("orders").retry(future.id) == 1
    assert task_runner.run() == 1
    assert outcomes(task_runner)[-1] == (1, SettleKind.ACK)
    assert task_runner.client.result(future.id) == ORDER
    assert not task_runner.dead()


def test_delays_pass_and_expiry_holds(task_runner: TaskRunner) -> None:
    late = act.options(eta=datetime.now(UTC) + timedelta(days=2)).submit(ORDER)
    never = act.options(expires_s=30, priority=-1).submit(ORDER)
    task_runner.skip(60)
    assert late.result() == ORDER
    assert len(task_runner.attempts) == 1
    with pytest.raises(mh.UnknownId):
        never.result()


def test_who_submits_what_expires_on_its_way_hears_so(task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    client = task_runner.client
    monkeypatch.setattr(client, "_clock", ManualClock(wall=task_runner.clock.utc() - 60))  # a submitter whose clock is slow
    for task in (act.options(expires_s=30), act.options(expires_s=30, dedupe_key="k")):
        future = task.submit(ORDER)
        with pytest.raises(mh.UnknownId):
            future.result(10)
    assert task_runner.run() == 0


def test_a_dead_letter_whose_time_is_over_runs_all_the_same_when_it_is_retried(task_runner: TaskRunner) -> None:
    script[:] = [mh.GiveUp("no")]
    future = act.options(expires_s=30).submit(ORDER)
    task_runner.run()
    task_runner.skip(60)
    assert task_runner.client.dead("orders").retry() == 1
    assert task_runner.run() == 1
    assert task_runner.client.result(future.id) == ORDER


def test_delays_count_from_the_moved_time(task_runner: TaskRunner) -> None:
    task_runner.skip(7200)
    act.options(delay_s=60).submit(ORDER)
    assert not task_runner.run_one()
    task_runner.skip(61)
    assert task_runner.run_one()


def test_run_runs_everything(task_runner: TaskRunner) -> None:
    script[:] = [OSError("once")]
    futures = [act.submit(ORDER), sleepless.submit(4), steps.options(delay_s=9).submit(2)]
    assert task_runner.run() == 4
    assert [future.done() for future in as_completed(futures, timeout=20)] == [True] * 3
    assert {stats.unfinished for stats in task_runner.client.stats().queues} == {0}, "join of calls has an end"


def test_coroutines_tasks_of_tasks_and_progress(task_runner: TaskRunner) -> None:
    assert both.submit(4).result() == 10
    future = steps.submit(2)
    assert future.result() == f"{future.id} None"
    assert task_runner.progress == [(future.id, 0, 2, "on it"), (future.id, 1, 2, "on it")]
    assert future.progress == (1, 2, "on it")


def test_an_attempt_over_its_limit_ends_as_one_that_was_stopped(task_runner: TaskRunner) -> None:
    with pytest.raises(TaskTimedOut, match="slow"):
        slow.submit().result()


def test_calls_with_one_dedupe_key_are_one_and_all_who_submit_get_its_result(task_runner: TaskRunner) -> None:
    once = act.options(dedupe_key=lambda order: f"order {order.number}")
    first, again = once.submit(ORDER), once.submit(ORDER)
    assert first.id == again.id != once.submit(Order(8, ORDER.day)).id
    assert again.result() == first.result() == ORDER
    after = once.submit(ORDER)
    assert after.result() == ORDER
    assert [ran.id for ran in task_runner.attempts].count(first.id) == 1


def test_an_error_of_a_deduped_task_reaches_who_waits(task_runner: TaskRunner) -> None:
    script[:] = [mh.GiveUp("no")]
    with pytest.raises(mh.GiveUp):
        act.options(dedupe_key="k").submit(ORDER).result()


def test_an_unknown_task_is_parked_until_a_worker_offers_it() -> None:
    with TaskRunner(Registry()) as runner:
        future = steps.submit(1)
        assert runner.run() == 1
        (ran,) = runner.attempts
        if ran.outcome == SettleKind.ACK:
            pytest.fail("an empty registry must not know it")
        assert (ran.outcome, ran.reason) == (SettleKind.PARK, f"task:{steps.name}")
        assert runner.client.stats("steps()").queues[0].parked == {f"task:{steps.name}": 1}
        runner.registry.add(REGISTRY.find(steps.name))
        runner.offer()
        assert future.result().startswith(future.id)


def test_what_is_wrong_with_a_call_is_said_at_submit(task_runner: TaskRunner) -> None:
    with pytest.raises(mh.WrongArguments, match="'order'"):
        act.submit("7")  # type: ignore[arg-type]
    assert task_runner.run() == 0


def test_a_result_can_be_waited_for_in_another_thread(task_runner: TaskRunner) -> None:
    found: list[Order] = []
    thread = threading.Thread(target=lambda: found.append(act.submit(ORDER).result()))
    thread.start()
    thread.join(20)
    assert found == [ORDER]


def test_outside_of_the_runner_submit_goes_elsewhere_again(task_runner: TaskRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MANYHANDS_URL", "redis://nowhere")
    task_runner.__exit__(None, None, None)
    with pytest.raises(mh.UsageError):
        act.submit(ORDER)
