"""`except Queue.Empty` after `import queue`: supplied where it would be a NameError, and nowhere else."""

from __future__ import annotations

import logging
import queue
import sys
from typing import Any

import pytest

from manyhands.managers.forgotten_import import supply_the_forgotten_name

from .conftest import Pair


def get() -> None:
    """Fails as a proxy's get does."""
    supply_the_forgotten_name(sys._getframe(1))
    raise queue.Empty


def run(program: str, **names: Any) -> dict[str, Any]:
    namespace = {"get": get, "__name__": "program", **names}
    exec(compile(program, "program.py", "exec"), namespace)
    return namespace


TUTORIAL = """
import queue
try:
    get()
    handled = False
except Queue.Empty:
    handled = True
"""

IN_A_FUNCTION = """
import queue
def fetch():
    return get()
def work():
    try:
        return fetch()
    except Queue.Empty:
        return "handled"
said = work()
"""


def test_the_tutorials_worker_handles_the_empty_queue() -> None:
    assert run(TUTORIAL)["handled"]


def test_the_name_is_supplied_to_an_outer_function_too() -> None:
    assert run(IN_A_FUNCTION)["said"] == "handled"


def test_it_is_said_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "manyhands"):
        names = run(TUTORIAL)
        exec(compile(TUTORIAL, "program.py", "exec"), names)
    assert [(record.levelname, "program.py:4" in record.getMessage()) for record in caplog.records] == [("INFO", True)]


def test_a_program_that_catches_queue_empty_gets_no_name() -> None:
    assert "Queue" not in run(TUTORIAL.replace("Queue.Empty", "queue.Empty"))


def test_a_name_the_program_defined_is_left_alone() -> None:
    mine = type("Mine", (), {"Empty": queue.Empty})
    assert run(TUTORIAL, Queue=mine)["Queue"] is mine


def test_a_local_of_that_name_is_left_alone() -> None:
    names = run(IN_A_FUNCTION.replace("def work():", "def work():\n    import queue as Queue"))
    assert names["said"] == "handled"
    assert "Queue" not in names


def test_a_closure_of_that_name_is_left_alone() -> None:
    names = run(
        """
import queue
def make():
    Queue = queue
    def work():
        try:
            get()
        except Queue.Empty:
            return "handled"
    return work
said = make()()
"""
    )
    assert names["said"] == "handled"
    assert "Queue" not in names


@pytest.mark.parametrize("use", ["queue.Queue.Empty", "Queue.Other", "len(Queue)"])
def test_other_uses_of_such_a_name_are_none_of_ours(use: str) -> None:
    program = f"""
import queue
try:
    get()
except queue.Empty:
    pass
never = False
never and {use}
"""
    assert "Queue" not in run(program)


def test_it_is_found_in_a_program_with_very_many_names() -> None:
    many = "\n".join(f"name_{n} = {n}" for n in range(400))
    assert run(many + TUTORIAL)["handled"]


def test_the_proxy_of_a_queue_that_stays_an_object_helps_too(pair: Pair) -> None:
    kept: queue.PriorityQueue[int] = queue.PriorityQueue()
    for manager in pair(get_tasks=lambda: kept):
        tasks = manager.get_tasks()  # type: ignore[attr-defined]
        assert run(TUTORIAL, get=lambda tasks=tasks: tasks.get(timeout=0.01))["handled"]
