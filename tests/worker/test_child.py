"""A real child process against a real server: what it runs, how it answers, and how it ends."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
from manyhands.calls.bodies import to_setup
from manyhands.errors import PayloadNotEncodable
from manyhands.events import Stats
from manyhands.model import Message
from manyhands.testing.proxy import CuttingProxy
from manyhands.worker.block import Phase
from manyhands.worker.minding import Look
from manyhands.worker.settings import DRAIN, READY, Exit
from worker import jobs
from worker.conftest import StartChild
from worker.stage import Producer, Session, until

pytestmark = pytest.mark.programs


def test_a_call_comes_back_with_its_result(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    assert producer.wait(producer.submit(jobs.double, (4,))) == [8]
    assert producer.wait(producer.submit(lambda x: x + 1, (4,))) == [5]
    assert producer.wait(producer.submit(jobs.pid, ())) == [child.process.pid]
    assert child.notices() == READY


def test_the_calls_of_a_pack_come_back_in_order(start_child: StartChild, producer: Producer) -> None:
    start_child()
    calls = [(n,) for n in range(1000)]
    assert producer.wait(producer.submit(jobs.double, *calls)) == [2 * n for n in range(1000)]
    assert sum(n for n, _ in producer.times) == 1000


def test_whatever_a_call_raises_is_its_outcome_and_the_next_one_runs(start_child: StartChild, producer: Producer) -> None:
    start_child()
    key, code, unsendable = (
        producer.wait(producer.submit(function, args))[0]
        for function, args in [(jobs.fail, ("no",)), (jobs.leave, (3,)), (jobs.unsendable, ())]
    )
    assert isinstance(key, KeyError)
    assert key.args == ("no",)
    assert "jobs.py" in str(key.__cause__)
    assert isinstance(code, SystemExit)
    assert code.code == 3
    assert isinstance(unsendable, PayloadNotEncodable)
    assert producer.wait(producer.submit(jobs.double, (1,))) == [2]


def test_large_arguments_and_results_arrive(start_child: StartChild, producer: Producer) -> None:
    start_child()
    data = bytes(range(256)) * 12_000
    assert producer.wait(producer.submit(jobs.echo, (data,))) == [data]


def parked(session: Session) -> dict[str, int]:
    return {need: n for stats in session.ask(Stats(session.rid())).queues for need, n in stats.parked.items()}


def test_a_function_for_another_python_is_parked(start_child: StartChild, producer: Producer) -> None:
    start_child()
    message_id = producer.submit(lambda: 1, (), python="3.99")
    until(lambda: parked(producer) == {"python:3.99": 1}, "the call is parked")
    producer.collect()
    assert (message_id, 0) not in producer.results


def test_calls_are_parked_by_a_child_that_runs_tasks_only(start_child: StartChild, producer: Producer) -> None:
    start_child(tasks_only=True)
    message_id = producer.submit(jobs.double, (1,))
    until(lambda: parked(producer) == {"calls": 1}, "the call is parked")
    start_child()
    assert producer.wait(message_id) == [2]


def test_a_broken_seal_is_refused_and_said(start_child: StartChild, producer: Producer) -> None:
    start_child()
    good = producer.call(jobs.double, (1,))
    bad = Message(good.id, good.body, good.seal[:-1] + b"?", good.kind, options=good.options)
    producer.put(bad)
    (error,) = producer.wait(good.id)
    assert "was refused before decoding" in str(error)
    assert producer.wait(producer.submit(jobs.double, (1,))) == [2]


def test_an_initializer_runs_once_for_each_executor(start_child: StartChild, producer: Producer, tmp_path: Path) -> None:
    start_child()
    log = tmp_path / "log"
    setup = to_setup("one executor", append_to, (str(log),))
    for _ in range(3):
        assert producer.wait(producer.submit(jobs.double, (1,), setup=setup)) == [2]
    assert log.read_text() == "x"


def append_to(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")


def test_a_child_whose_own_initializer_fails_says_so_and_is_of_no_use(start_child: StartChild) -> None:
    child = start_child(initializer=to_setup("", jobs.fail, ("not today",)).code)
    assert child.wait() == Exit.UNUSABLE
    sentence, _, where = child.block.text().partition("\n")
    assert sentence == "KeyError: 'not today'"
    assert "jobs.py" in where


def test_a_child_whose_import_fails_says_so(start_child: StartChild) -> None:
    child = start_child(imports=["there.is.no.such"])
    assert child.wait() == Exit.UNUSABLE
    assert "No module named 'there'" in child.block.text()


def test_a_child_with_the_wrong_key_says_so(start_child: StartChild) -> None:
    child = start_child(keys=[b"another"])
    assert child.wait() == Exit.UNUSABLE
    assert "authkey" in child.block.text()


def test_an_idle_child_that_is_told_to_leave_does(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    producer.wait(producer.submit(jobs.double, (1,)))
    child.tell(DRAIN)
    assert child.wait() == Exit.DRAINED
    assert child.errors == ""


def test_a_child_that_is_told_to_leave_finishes_its_call_and_gives_the_rest_back(
    start_child: StartChild, producer: Producer, tmp_path: Path
) -> None:
    child = start_child()
    path = tmp_path / "runs"
    running = producer.submit(jobs.sleep_on, (str(path),), *[(str(tmp_path / f"other{n}"),) for n in range(5)])
    until(path.exists, "the call runs")
    child.tell(DRAIN)
    (tmp_path / "runs.go").touch()
    assert child.wait() == Exit.DRAINED
    assert child.errors == ""
    for n in range(5):
        (tmp_path / f"other{n}.go").touch()
    start_child()
    assert len(producer.wait(running)) == 6


def test_a_childs_silence_counts_from_when_it_began_to_wait(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    producer.wait(producer.submit(jobs.sleep, (0.3,)))
    until(lambda: child.block.look().phase is Phase.WAITING, "it waits again")
    look = Look(child.block.look())
    now = time.monotonic()
    assert now - 0.25 < look.seen.heard_mono <= now, "and has not been silent for as long as its call took"
    assert look.silent_s(look.seen.heard_mono + 7.0) == pytest.approx(7.0)
    producer.submit(jobs.sleep, (5.0,))
    until(lambda: child.block.look().phase is Phase.RUNNING, "it runs")
    assert Look(child.block.look()).silent_s(now + 7.0) == 0.0, "who works asks for nothing"


def test_a_child_that_no_longer_hears_its_server_is_silent(start_child: StartChild, server: mh.Server) -> None:
    with CuttingProxy(server.address) as proxy:
        child = start_child(proxy.url)
        until(lambda: child.block.look().phase is Phase.WAITING, "it waits")
        proxy.is_refusing = True
        proxy.drop_all()
        heard = child.block.look().heard_mono
        until(lambda: Look(child.block.look()).silent_s(time.monotonic()) > 1.0, "its silence grows")
        assert child.block.look().heard_mono <= heard


def test_a_child_retires_after_its_number_of_calls(start_child: StartChild, producer: Producer) -> None:
    child = start_child(max_tasks=7)
    pack = producer.submit(jobs.pid, *[()] * 10)
    assert child.wait() == Exit.RETIRED
    assert child.errors == ""
    second = start_child()
    pids: list[Any] = producer.wait(pack)
    assert pids == [child.process.pid] * 7 + [second.process.pid] * 3
