"""The tasks of test_programs.py. Workers import this module, under this name."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import manyhands as mh


@mh.task(queue="deeds")
def add(a: int, b: int) -> int:
    return a + b


@mh.task(queue="deeds", max_attempts=2, retry_on=OSError, backoff_s=0)
def hang_once(folder: Path) -> int:
    mark = folder / "hung"
    if not mark.exists():
        mark.touch()
        time.sleep(600)
    return mh.current().attempt


@mh.task(queue="deeds")
def refuse(why: str) -> None:
    raise mh.GiveUp(why)


@mh.task(queue="deeds")
def die(how: str) -> None:
    os._exit(7)


@mh.task(queue="deeds")
def add_later(a: int, b: int) -> int:
    return add.submit(a, b).result(60) + 1


@mh.task(queue="deeds")
def count(n: int, folder: Path) -> str:
    now = mh.current()
    now.progress(1, n, "one")
    (folder / "told").touch()
    while not (folder / "heard").exists():
        time.sleep(0.01)
    return now.id


@mh.task(queue="deeds")
async def meet(others: int) -> int:
    """Returns when so many others run at the same time as this one."""
    met.append(asyncio.current_task())
    while len(met) <= others:
        await asyncio.sleep(0.01)
    return len(met)


met: list[object] = []

ran: list[int] = []


@mh.task(queue="deeds", max_attempts=3, retry_on=OSError, backoff_s=0)
def uneven(n: int) -> tuple[int, int]:
    """Fails for good for one number in a hundred, and once for another."""
    ran.append(n)
    if n % 100 == 7:
        raise ValueError(str(n))
    if n % 100 == 50 and mh.current().attempt == 1:
        raise OSError("once")
    return n, mh.current().attempt
