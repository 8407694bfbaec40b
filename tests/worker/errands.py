"""Tasks for the pools inside a process: their functions meet each other, and the test, through events of this module."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from manyhands.tasks import REGISTRY, Task, TaskOptions

meeting = threading.Barrier(3)
begun = threading.Event()
go_on = threading.Event()
arrived: list[str] = []


def registered(**options: Any) -> Callable[[Callable[..., Any]], Task[..., Any]]:
    def register(function: Callable[..., Any]) -> Task[..., Any]:
        task = Task(function, TaskOptions(**options))
        REGISTRY.add(task)
        return task

    return register


@registered()
def meet(name: str) -> str:
    """Return only when three are here."""
    meeting.wait(20)
    return name


@registered()
async def meet_in_the_loop(name: str) -> str:
    """The same without a thread for each."""
    arrived.append(name)
    while len(arrived) < 3:
        await asyncio.sleep(0.005)
    return name


@registered()
def wait_for_the_test() -> str:
    begun.set()
    assert go_on.wait(20)
    return "went on"


@registered(timeout_s=0.1)
async def sleep_for_ever() -> None:
    await asyncio.sleep(3600)


@registered()
async def wait_in_the_loop() -> None:
    begun.set()
    await asyncio.sleep(3600)


@registered(timeout_s=60.0)
def limited() -> int:
    return 5
