"""Tasks in a real child: known and unknown ones, retries, progress, limits."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from manyhands.errors import TaskTimedOut
from manyhands.events import DeadList, Outcome, Progressed, ReportDead, Result
from manyhands.model import SettleKind, Settlement
from manyhands.tasks import Task, read_outcome
from manyhands.worker.settings import LIMIT
from worker import task_jobs
from worker.conftest import StartChild
from worker.stage import QUEUE, Producer, Session, until
from worker.test_child import parked

pytestmark = pytest.mark.programs
IMPORTS = ["worker.task_jobs"]


def submit(producer: Producer, task: Task[..., Any], *args: Any) -> str:
    message_id = secrets.token_hex(8)
    message = task.make_message(producer.codec, message_id, args, {}, now=time.time(), reply_to=producer.stream)
    producer.put(message)
    return message_id


def outcome(producer: Producer, task: Task[..., Any], message_id: str) -> tuple[Any, BaseException | None]:
    """What a task came to: its value, or its error."""
    reply = producer.ask(Result(producer.rid(), message_id))
    assert isinstance(reply, Outcome)
    assert reply.value is not None
    _, start = producer.codec.verify_result(QUEUE, message_id, reply.value, 2)
    value, error, _ = read_outcome(memoryview(reply.value)[start:], task)
    return value, error


def test_a_task_comes_back_with_its_result(start_child: StartChild, producer: Producer) -> None:
    start_child(imports=IMPORTS)
    assert outcome(producer, task_jobs.add, submit(producer, task_jobs.add, 2, 3)) == (5, None)
    assert outcome(producer, task_jobs.later, submit(producer, task_jobs.later, 2)) == (3, None)


def test_a_task_is_tried_again_as_it_says(start_child: StartChild, producer: Producer, tmp_path: Path) -> None:
    start_child(imports=IMPORTS, tasks_only=True)
    path = tmp_path / "tries"
    assert outcome(producer, task_jobs.flaky, submit(producer, task_jobs.flaky, str(path))) == (3, None)
    assert path.read_text() == "xxx"


def test_a_task_that_gives_up_is_a_dead_letter_with_its_error(start_child: StartChild, producer: Producer) -> None:
    start_child(imports=IMPORTS)
    message_id = submit(producer, task_jobs.give_up)
    (letter,) = until(lambda: producer.ask(DeadList(producer.rid(), QUEUE)).letters, "the dead letter")
    assert letter.message.id == message_id
    assert "GiveUp: never" in letter.reason


def test_a_task_that_nobody_knows_is_parked_for_who_does(start_child: StartChild, producer: Producer) -> None:
    start_child(tasks_only=True)
    message_id = submit(producer, task_jobs.add, 1, 1)
    until(lambda: parked(producer) == {f"task:{task_jobs.add.name}": 1}, "the task is parked")
    start_child(imports=IMPORTS)
    assert outcome(producer, task_jobs.add, message_id) == (2, None)


def test_a_limit_is_in_the_block_with_how_the_task_ends_by_it(
    start_child: StartChild, producer: Producer, parent: Session, tmp_path: Path
) -> None:
    child = start_child(imports=IMPORTS)
    until(lambda: child.notices(), "it is ready")
    message_id = submit(producer, task_jobs.long, str(tmp_path / "runs"))
    until(lambda: child.notices() == LIMIT, "it says that a call with a limit runs")
    until((tmp_path / "runs").exists, "the task runs")
    left_s = child.block.look().deadline_mono - time.monotonic()
    assert 0.0 < left_s <= 0.3
    settlement = msgspec.msgpack.decode(child.block.will(), type=Settlement)
    assert settlement.kind == SettleKind.REJECT
    child.process.kill()
    child.wait()
    running = child.block.running()
    assert running is not None
    parent.ask(ReportDead(parent.rid(), child.session, "too long", running[0].token, -1, settlement))
    _, error = outcome(producer, task_jobs.long, message_id)
    assert isinstance(error, TaskTimedOut)


def test_a_watched_child_gives_no_notice_of_limits(start_child: StartChild, producer: Producer, tmp_path: Path) -> None:
    child = start_child(imports=IMPORTS)
    until(lambda: child.notices(), "it is ready")
    child.block.watch(True)
    submit(producer, task_jobs.long, str(tmp_path / "runs"))
    until((tmp_path / "runs").exists, "the task runs")
    assert child.notices() == b""


def test_progress_is_heard_while_the_task_runs(start_child: StartChild, producer: Producer, tmp_path: Path) -> None:
    start_child(imports=IMPORTS)
    producer.collect()
    message_id = submit(producer, task_jobs.long, str(tmp_path / "runs"))
    (heard,) = until(lambda: producer.heard(Progressed), "the progress")
    assert (heard.id, heard.done, heard.total, heard.note) == (message_id, 1.0, 3.0, "on it")
