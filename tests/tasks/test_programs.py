"""Tasks as they run: a real server, and `manyhands worker` as processes of its own."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from manyhands.errors import TaskTimedOut, WorkerCrashed
from manyhands.submitting import submitting_through
from programs.lab import Program, until

from . import deeds

TESTS = Path(__file__).parents[1]
WAIT_S = 60

pytestmark = pytest.mark.programs


@pytest.fixture
def server() -> Iterator[mh.Server]:
    with mh.serve("tcp://127.0.0.1:0") as serving, mh.connect(serving.url) as client, submitting_through(client):
        yield serving


def work(start: Start, server: mh.Server, *words: str, name: str = "worker") -> Program:
    """A worker that is ready."""
    env = {"PYTHONPATH": str(TESTS)}
    worker = start(name, "-m", "manyhands", "worker", server.url, "--queues", "deeds", *words, env=env)
    worker.prints("works for")
    return worker


def test_a_task_that_hangs_is_stopped_and_tried_again_and_then_fails_as_timed_out(
    start: Start, server: mh.Server, tmp_path: Path
) -> None:
    work(start, server, "--import", "tasks.deeds", "-c", "1")
    assert deeds.hang_once.options(timeout_s=0.5).submit(tmp_path).result(WAIT_S) == 2
    (tmp_path / "hung").unlink()
    with pytest.raises(TaskTimedOut, match=r"hang_once.*0\.5 s"):
        deeds.hang_once.options(timeout_s=0.5, max_attempts=1).submit(tmp_path).result(WAIT_S)
    (letter,) = server.client().dead("deeds").list()
    assert letter.reason.startswith("TaskTimedOut")
    assert deeds.add.submit(1, 2).result(WAIT_S) == 3


@pytest.mark.faults
def test_a_task_that_always_kills_its_worker_is_dead_after_three_and_says_where(start: Start, server: mh.Server) -> None:
    work(start, server, "--import", "tasks.deeds", "-c", "1")
    future = deeds.die.submit("exit")
    with pytest.raises(WorkerCrashed):
        future.result(WAIT_S)
    (letter,) = server.client().dead("deeds").list()
    assert [attempt.outcome for attempt in letter.history] == ["lost"] * 3
    assert all("worker" in attempt.consumer for attempt in letter.history)
    assert deeds.add.submit(1, 2).result(WAIT_S) == 3


def test_a_task_that_a_worker_does_not_know_waits_for_one_that_does_and_status_says_so(
    start: Start, server: mh.Server
) -> None:
    stranger = work(start, server, "--tasks-only", "-c", "1")
    future = deeds.add.submit(1, 2)
    client = server.client()
    until(lambda: client.stats("deeds()").queues[0].parked == {f"task:{deeds.add.name}": 1}, "it is parked")
    shown = start("status", "-m", "manyhands", "status", "--url", server.url, "--interval", "0.05")
    shown.ends_quietly()
    assert f"a worker that knows the task {deeds.add.name}" in shown.out
    work(start, server, "--import", "tasks.deeds", "-c", "1", name="friend")
    assert future.result(WAIT_S) == 3
    assert stranger.err == ""


def test_a_worker_imports_the_module_that_a_task_s_name_begins_with(start: Start, server: mh.Server) -> None:
    work(start, server, "-c", "1")
    assert deeds.add.submit(1, 2).result(WAIT_S) == 3


def test_a_task_submits_to_the_server_that_its_worker_works_for(start: Start, server: mh.Server) -> None:
    work(start, server, "--import", "tasks.deeds", "-c", "2")
    assert deeds.add_later.submit(1, 2).result(WAIT_S) == 4


def test_progress_reaches_who_submitted_and_who_looks(start: Start, server: mh.Server, tmp_path: Path) -> None:
    work(start, server, "--import", "tasks.deeds", "-c", "1")
    future = deeds.count.submit(3, tmp_path)
    until(lambda: future.progress == (1, 3, "one"), "the progress arrives while the task runs")
    assert not future.done()
    looking = start("status", "-m", "manyhands", "status", server.url, "--interval", "0.05")
    assert looking.ends() == 0
    assert f"runs {future.id} of queue 'deeds': 1 of 3, one" in " ".join(looking.out.split())
    as_data = start("json", "-m", "manyhands", "status", server.url, "--interval", "0.05", "--json")
    assert as_data.ends() == 0
    (told,) = [told for each in json.loads(as_data.out)["sessions"] for told in each["progress"]]
    assert (told["id"], told["queue"], told["done"], told["total"], told["note"]) == (future.id, "deeds", 1, 3, "one")
    (tmp_path / "heard").touch()
    assert future.result(WAIT_S) == future.id
    assert not any(each.progress for each in server.client().stats().sessions), "it runs no more"


@pytest.mark.parametrize("pool", ["async", "process"])
def test_coroutines_run_side_by_side_in_an_event_loop_and_by_themselves_in_processes(
    start: Start, server: mh.Server, pool: str
) -> None:
    work(start, server, "--import", "tasks.deeds", "--pool", pool, "-c", "3")
    others = 2 if pool == "async" else 0
    futures = [deeds.meet.submit(others) for _ in range(3)]
    assert min(future.result(WAIT_S) for future in futures) > others


@pytest.mark.parametrize("pool", ["process", "thread"])
def test_a_worker_finds_modules_where_it_is_started(
    start: Start, server: mh.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    text = "import manyhands as mh\n@mh.task(queue='near')\ndef here() -> str:\n    return __file__\n"
    (tmp_path / f"near_{pool}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module(f"near_{pool}")
    # -P: as a command that is installed, python does not put the current folder into sys.path by itself.
    words = ("-P", "-m", "manyhands", "worker", server.url, "--queues", "near", "--import", module.__name__, "--pool", pool)
    start("worker", *words).prints("works for")
    assert module.here.submit().result(WAIT_S) == module.__file__


def test_an_executor_runs_tasks_as_it_does_functions_those_of_the_main_program_too(start: Start, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(
        "import manyhands as mh\nfrom tasks import deeds\n@mh.task\ndef twice(n: int) -> int:\n    return 2 * n\n"
        "with mh.Executor(1) as executor:\n"
        "    print(executor.submit(twice, 4).result(), list(executor.map(deeds.add, [1, 2], [3, 4])))\n"
    )
    program = start("program", "program.py", env={"PYTHONPATH": str(TESTS)})
    program.ends_quietly()
    assert program.out == "8 [4, 6]\n"


def test_the_page_s_own_test_of_a_task_passes(tmp_path: Path) -> None:
    page = (TESTS.parent / "docs" / "tasks.md").read_text(encoding="utf-8")
    programs = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mail.py").write_text(programs[0])
    (tmp_path / "test_mail.py").write_text(programs[-1])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_asyncio_programs_submit_and_await_tasks(start: Start, server: mh.Server) -> None:
    work(start, server, "--import", "tasks.deeds", "-c", "1")

    async def program() -> None:
        async with await mh.aio.connect(server.url) as client:
            call = await client.submit(deeds.add, 1, b=2)
            assert await call == await client.result(call.id) == 3
            with pytest.raises(mh.WrongArguments, match="'a'"):
                await client.submit(deeds.add, "1", 2)
            with pytest.raises(mh.UsageError, match="no task"):
                await client.submit(pow, 2, 3)  # type: ignore[arg-type]
            refused = await client.submit(deeds.refuse, "no")
            with pytest.raises(mh.GiveUp, match="no"):
                await refused
            with pytest.raises(TimeoutError):
                await (await client.submit(deeds.add.options(delay_s=600), 1, 2)).result(timeout=0.05)

    asyncio.run(program())


def test_what_a_program_submitted_is_run_although_it_ended_at_once(start: Start, server: mh.Server, tmp_path: Path) -> None:
    (tmp_path / "hurry.py").write_text("from tasks import deeds\nfor n in range(300):\n    deeds.add.submit(n, n)\n")
    env = {"PYTHONPATH": str(TESTS), "MANYHANDS_URL": server.url}
    start("hurry", "hurry.py", env=env).ends_quietly()
    assert server.client().stats("deeds()").queues[0].ready == 300
    work(start, server, "-c", "1")
    until(lambda: server.client().stats("deeds()").queues[0].done_total == 300, "all are run")


def test_a_result_is_found_by_its_id_in_another_session(start: Start, server: mh.Server) -> None:
    work(start, server, "-c", "1")
    found = deeds.add.submit(20, 3).id
    with mh.connect(server.url) as other:
        assert other.result(found, timeout=WAIT_S) == 23
