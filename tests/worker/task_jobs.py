"""Tasks that children in tests know when they import this module."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from manyhands.errors import GiveUp
from manyhands.tasks import REGISTRY, Task, TaskOptions, current


def registered(function: Callable[..., Any], **options: Any) -> Task[..., Any]:
    task = Task(function, TaskOptions(queue="mail", **options))
    REGISTRY.add(task)
    return task


def _add(a: int, b: int) -> int:
    return a + b


def _flaky(path: str) -> int:
    """Fail twice, and say which attempt it is that did not."""
    with Path(path).open("a") as file:
        file.write("x")
    if current().attempt < 3:
        raise OSError("not yet")
    return current().attempt


def _give_up() -> None:
    raise GiveUp("never")


async def _later(x: int) -> int:
    return x + 1


def _long(path: str) -> None:
    current().progress(1, 3, "on it")
    Path(path).touch()
    time.sleep(30)


add = registered(_add)
flaky = registered(_flaky, max_attempts=5, backoff_s=0.01, retry_on=(OSError,))
give_up = registered(_give_up)
later = registered(_later)
long = registered(_long, timeout_s=0.3)
