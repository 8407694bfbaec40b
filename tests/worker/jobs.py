"""Functions that children in tests import by name."""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path
from typing import Any


def double(x: int) -> int:
    return 2 * x


def pid(*_: Any) -> int:
    return os.getpid()


def fail(text: str) -> None:
    raise KeyError(text)


def leave(code: int) -> None:
    raise SystemExit(code)


def die(code: int = 9) -> None:
    os._exit(code)


def unsendable() -> Any:
    return threading.Lock()


def big(n: int) -> bytes:
    return bytes(n)


def echo(data: Any) -> Any:
    return data


def nothing(*_: Any) -> None:
    pass


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def sleep_on(path: str, *, at_most_s: float = 20.0) -> str:
    """Say that it runs, then wait for a second file."""
    Path(path).touch()
    until = time.monotonic() + at_most_s
    while not os.path.exists(path + ".go") and time.monotonic() < until:
        time.sleep(0.002)
    return path


def hold_the_lock(path: str) -> None:
    """Run in C, without letting any other thread of this process run, for ever."""
    Path(path).touch()
    sum(iter(int, 1))  # type: ignore[arg-type]


def die_at(n: int) -> int:
    time.sleep(0.001)
    if n == 5:
        os._exit(9)
    return n


def sleep_or_pid(path: str) -> int:
    if path:
        sleep_on(path)
    return os.getpid()


def slow_pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def spin(seconds: float) -> None:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass


def sleep_on_counting(path: str) -> int:
    """How often it was begun."""
    with open(path + ".n", "a") as file:
        file.write("x")
    sleep_on(path)
    return os.path.getsize(path + ".n")


def read_input() -> str:
    return sys.stdin.read()


def log_and_sleep(path: str, seconds: float) -> float:
    with open(path, "a") as file:
        file.write("x")
    time.sleep(seconds)
    return seconds
