"""Tasks that share messages: each is still one task, with attempts, a dead letter and an id of its own."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import manyhands as mh
from conftest import Start
from manyhands.auth import Keyring
from manyhands.client.calling.pace import PackPace
from manyhands.client.calling.state import CallState
from manyhands.client.calling.tasks import TaskCalls, read_task
from manyhands.codec import PLAIN_CALLS, Codec
from manyhands.errors import GiveUp, TaskTimedOut, TryAgain, WrongArguments
from manyhands.events import Put
from manyhands.model import Delivery, Ended, Kind, Message, Options, SettleKind, Settlement, result_id
from manyhands.tasks import Registry, Task, TaskOptions, shown
from manyhands.worker.running import Runner
from manyhands.worker.task_work import TaskPackWork
from tasks.test_programs import work

from . import deeds

CODEC = Codec([(key.id, key.body) for key in Keyring("a key of these tests")])
QUEUE = "mail()"
WAIT_S = 60


# -- a pack at a worker --------------------------------------------------------------------------------------------

ran: list[int] = []


def _deed(n: int) -> int:
    ran.append(n)
    if n < 0:
        raise {-1: OSError("not yet"), -2: GiveUp("never"), -3: TryAgain(delay_s=7)}[n]
    return 10 * n


DEED = Task(_deed, TaskOptions(queue="mail", max_attempts=2, retry_on=(OSError,), timeout_s=4), "test:deed")


def pack_of(*numbers: Any, task: Task[..., Any] = DEED) -> Message:
    body = task.make_body([task.pack((n,), {}) if type(n) is int else n for n in numbers], 0.0)
    options = Options(calls=len(numbers))
    return Message("m", body, CODEC.seal(QUEUE, "m", PLAIN_CALLS, body, Kind.TASK), Kind.TASK, options=options)


def opened(message: Message, **options: Any) -> TaskPackWork:
    registry = Registry()
    registry.add(DEED)
    runner = Runner(CODEC, utc=lambda: 1000.0, unit=lambda: 0.5, registry=registry, **options)
    ran.clear()
    work = runner.open(QUEUE, Delivery(5, 1, message))
    assert isinstance(work, TaskPackWork), work
    return work


def read(result: bytes | None, first: int, n: int) -> tuple[list[Any], dict[int, BaseException], Any]:
    assert result is not None
    encoding, start = CODEC.verify_result(QUEUE, result_id("m", first, n), result, Kind.TASK)
    found = read_task(DEED, encoding, [result], start)
    return found.values, found.failed, found.times


def run(work: TaskPackWork) -> list[tuple[int, bytes]]:
    """Run it as a worker does; what it reported before its settlement."""
    work.run(0, work.n)
    work.took(3.0)
    reports = []
    while work.is_too_much:
        report = work.report()
        assert report is not None
        reports.append(report)
    return reports


def test_a_pack_that_returned_is_one_settlement_with_all_results() -> None:
    work = opened(pack_of(1, 2, 3))
    assert run(work) == []
    settlement = work.settlement()
    assert (settlement.kind, settlement.calls, settlement.is_task_done) == (SettleKind.ACK, 3, True)
    assert read(settlement.result, 0, 3) == ([10, 20, 30], {}, [(3, 3.0)])


@pytest.mark.parametrize(("number", "kind", "delay_s"), [(-1, 1, 0.5), (-3, 1, 7.0), (-2, 2, 0.0)])
def test_a_task_that_fails_leaves_its_pack_as_its_options_say_and_none_behind_it_is_begun(
    number: int, kind: int, delay_s: float
) -> None:
    work = opened(pack_of(1, 2, number, 4, 5))
    ((n, result),) = run(work)
    assert read(result, 0, n)[0] == [10, 20], "what returned is reported before"
    settlement = work.settlement()
    assert (settlement.kind, settlement.calls, settlement.delay_s) == (kind, 1, delay_s)
    assert ran == [1, 2, number]
    if kind == SettleKind.REJECT:
        assert isinstance(read(settlement.result, 2, 1)[1][0], GiveUp)
    else:
        assert settlement.result is None, "whoever waits goes on waiting"


def test_arguments_that_do_not_fit_are_one_calls_error() -> None:
    work = opened(pack_of(1, b"\x81\xa1n\xa1x", 3))
    assert len(run(work)) == 1
    settlement = work.settlement()
    assert (settlement.kind, settlement.calls) == (SettleKind.REJECT, 1)
    assert isinstance(read(settlement.result, 1, 1)[1][0], WrongArguments)


def test_a_task_of_a_pack_that_runs_too_long_ends_alone() -> None:
    settlement = opened(pack_of(1, 2, 3)).will(1)
    assert (settlement.kind, settlement.calls) == (SettleKind.NACK, 1), "a TaskTimedOut is an OSError"
    work = opened(pack_of(1, 2, 3, task=DEED.options(max_attempts=1)))
    assert isinstance(read(work.will(1).result, 1, 1)[1][0], TaskTimedOut)


def test_results_that_fit_no_message_together_are_reported_one_by_one() -> None:
    work = opened(pack_of(1, 2, 3))
    work._runner.limit_to(64 * 1024)
    work._values += [b"\xc4\x00" + bytes(50_000)] * 3
    work.size_bytes = 150_000
    work.took(1.0)
    assert [n for n, _ in run(opened(pack_of(1, 2)))] == []
    reports = []
    while work.is_too_much:
        report = work.report()
        assert report is not None
        reports.append(report[0])
    assert reports == [1, 1]
    assert work.settlement().calls == 1


def test_a_pack_that_is_none_is_refused_for_all_its_calls() -> None:
    registry = Registry()
    registry.add(DEED)
    runner = Runner(CODEC, utc=lambda: 0.0, unit=lambda: 0.5, registry=registry)
    lone = DEED.make_body([DEED.pack((1,), {})], 0.0)
    seal = CODEC.seal(QUEUE, "m", PLAIN_CALLS, lone, Kind.TASK)
    refused = runner.open(QUEUE, Delivery(5, 1, Message("m", lone, seal, Kind.TASK, options=Options(calls=3))))
    assert isinstance(refused, Settlement)
    assert refused.kind == SettleKind.REJECT
    assert len(read(refused.result, 0, 3)[1]) == 3


def test_a_call_that_left_its_pack_is_run_and_shown_with_its_own_arguments() -> None:
    pack = pack_of(1, 2, 3)
    assert str(shown(pack)) == "test:deed(…), 3 calls"
    part = Message("m.1", pack.body, pack.seal, Kind.TASK, options=Options(part=1))
    assert str(shown(part)) == "test:deed(n=2)"
    registry = Registry()
    registry.add(DEED)
    runner = Runner(CODEC, utc=lambda: 0.0, unit=lambda: 0.5, registry=registry)
    alone = runner.open(QUEUE, Delivery(5, 2, part))
    assert not isinstance(alone, Settlement)
    alone.run(0, 1)
    alone.took(0.1)
    result = alone.settlement().result
    assert result is not None
    encoding, start = CODEC.verify_result(QUEUE, "m.1", result, Kind.TASK)
    assert read_task(DEED, encoding, [result], start).values == [20]


# -- which tasks share messages ------------------------------------------------------------------------------------


class Recorder:
    """A call session of which only the state is there, and under way already."""

    def __init__(self) -> None:
        self.codec = CODEC
        self.max_body_bytes = 2**28
        ids = iter(range(1, 10**6))
        self.new_id = lambda: f"id{next(ids)}"
        self.state = CallState(CODEC, "stream", self.new_id, lambda futures: Nobody())
        self.state.n_left = 1

    def submit(self, group: Any, argument: Any) -> None:
        group.pace.calls = 100
        self.state.add(group, argument, None)

    def submit_message(self, group: Any, message: Message) -> None:
        self.state.add_message(group, message, 1, Nobody())

    def sent(self) -> list[tuple[str, int]]:
        """Of each message, in order: the task, and how many calls it has."""
        puts = [request for request in self.state.take() if isinstance(request, Put)]
        calls = [shown(message) for put in puts for message in put.messages]
        return [(call.name, call.calls) for call in calls if call is not None]


class Nobody:
    def sent(self, sent: Any, first: int) -> None: ...


def _other(n: int) -> None: ...


OTHER = Task(_other, TaskOptions(queue="mail"), "test:other")


def test_tasks_that_follow_each_other_share_a_message_and_none_overtakes_another() -> None:
    session = Recorder()
    calls = TaskCalls(session)  # type: ignore[arg-type]
    for task in (DEED, DEED, DEED, OTHER, OTHER, DEED, DEED.options(priority=3)):
        calls.submit(task, (1,), {}, 0.0)
    deed, other = "test:deed", "test:other"
    assert session.sent() == [(deed, 3), (other, 2), (deed, 1), (deed, 1)]


@pytest.mark.parametrize(
    "options",
    [
        {"dedupe_key": "k"},
        {"delay_s": 5.0},
        {"eta": 10.0**10},
        {"expires_s": 5.0},
        {"max_deliveries": 1, "max_attempts": 1},
    ],
)
def test_a_task_whose_options_speak_of_its_own_message_travels_alone(options: dict[str, Any]) -> None:
    session = Recorder()
    calls = TaskCalls(session)  # type: ignore[arg-type]
    for n in range(3):
        calls.submit(DEED.options(**options), (n,), {}, 0.0)
    assert [n for _, n in session.sent()] == [1, 1, 1]


def test_a_message_that_came_apart_counts_once() -> None:
    session = Recorder()
    calls = TaskCalls(session)  # type: ignore[arg-type]
    for n in range(3):
        calls.submit(DEED, (n,), {}, 0.0)
    session.state.take()
    ((message_id, sent),) = session.state.sent.items()
    for part in range(3):
        assert session.state.whose(Ended(f"{message_id}.{part}")) == (sent, part, f"{message_id}.{part}")
    assert sent.group.pace.n_split == 1


def test_where_tasks_fail_now_and_then_messages_stay_small_and_grow_again() -> None:
    pace = PackPace(avoids_splits=True)
    for _ in range(10):
        pace.took([(100, 1e-4)])
    assert pace.calls > 1000
    for _ in range(20):  # one call in 50
        pace.was_split()
        pace.took([(50, 5e-5)])
    assert 5 <= pace.calls <= 20
    for _ in range(200):
        pace.took([(1000, 1e-3)])
    assert pace.calls > 100


# -- all of it -----------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[mh.Server]:
    with mh.serve("tcp://127.0.0.1:0") as serving:
        yield serving


WARM_UP = 20
"""Runs by which the client learns how short they are, on a machine that is busy with other things too."""


def burst(client: mh.Client, n: int) -> tuple[list[Any], list[str]]:
    """Submit n tasks of which some fail for good and some once; outcomes and ids."""
    for _ in range(WARM_UP):
        client.submit(deeds.uneven, 1).result(WAIT_S)
    futures = [client.submit(deeds.uneven, number) for number in range(n)]
    outcomes = [future.exception(WAIT_S) or future.result() for future in futures]
    return outcomes, [future.id for future in futures]


def check(client: mh.Client, outcomes: list[Any], ids: list[str]) -> None:
    n = len(ids)
    assert len(set(ids)) == n
    assert any("." in each for each in ids), "some shared a message"
    for number, outcome in enumerate(outcomes):
        if number % 100 == 7:
            assert type(outcome) is ValueError, (number, outcome)
        else:
            assert outcome == (number, 2 if number % 100 == 50 else 1), "the attempt is its own"
    failed = {ids[number] for number in range(7, n, 100)}
    letters = client.dead("deeds").list(1000)
    assert {letter.message.id for letter in letters} == failed
    assert all(len(letter.history) == 1 for letter in letters)
    assert str(client.dead("deeds").call(ids[107])) == "tasks.deeds:uneven(n=107)"
    assert client.result(ids[301], WAIT_S) == (301, 1), "any program finds it by its id"
    with pytest.raises(ValueError, match="107"):
        client.result(ids[107], WAIT_S)


@pytest.mark.programs
def test_in_a_burst_each_task_is_tried_buried_and_found_as_if_it_were_alone(start: Start, server: mh.Server) -> None:
    worker = work(start, server, "--import", "tasks.deeds", "-c", "2")
    with mh.connect(server.url) as client:
        check(client, *burst(client, 2000))
    assert worker.err == ""


@pytest.mark.parametrize("pool", ["thread", "async"])
def test_in_pools_of_threads_no_task_of_a_pack_is_run_once_more_than_it_says(server: mh.Server, pool: str) -> None:
    deeds.ran.clear()
    worker = mh.Worker(server.url, queues=["deeds"], pool=pool, concurrency=2)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        with mh.connect(server.url) as client:
            check(client, *burst(client, 310))
    finally:
        worker.stop()
        thread.join(WAIT_S)
    assert not thread.is_alive()
    times = Counter(deeds.ran)
    assert times.pop(1) == WARM_UP + 1
    assert {number for number, n in times.items() if n != 1} == set(range(50, 310, 100))
