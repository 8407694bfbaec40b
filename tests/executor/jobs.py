"""Functions that a worker's child imports by name."""

from __future__ import annotations

import multiprocessing
import os
import time
from typing import Any

_settings: list[Any] = []


def pid_after(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def setting() -> list[Any]:
    return _settings


def set_up(value: Any) -> None:
    _settings.append((value, os.getpid()))


def fail_to_set_up() -> None:
    raise OSError("no licence")


def process_name() -> str:
    return multiprocessing.current_process().name


def die() -> None:
    os._exit(9)


def die_or(n: int, deadly: int) -> int:
    if n == deadly:
        os._exit(9)
    return n


def appear(path: str, seconds: float = 0.0) -> str:
    """Make a file when it begins, and another when it ends."""
    with open(f"{path}.begun", "w"):
        pass
    time.sleep(seconds)
    with open(f"{path}.ended", "w"):
        pass
    return path
