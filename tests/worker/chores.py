"""What the workers under test run. Imported by their children, so it imports nothing that they do not need."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any


def add(a: int, b: int) -> int:
    return a + b


def pid() -> int:
    return os.getpid()


def die(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif how == "exit":
        os._exit(3)
    ctypes.string_at(0)  # a segmentation fault


def die_at(number: int, deadly: int, how: str) -> int:
    if number == deadly:
        die(how)
    return number


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def hold(path: str, timeout_s: float = 30.0) -> str:
    """Say by a file that this call runs, and end when another appears beside it."""
    begun, end = Path(path), Path(path + ".end")
    begun.write_text(str(os.getpid()))
    deadline = time.monotonic() + timeout_s
    while not end.exists():
        if time.monotonic() > deadline:
            return "nobody ended it"
        time.sleep(0.005)
    return "ended"


def hold_first(path: str, number: int) -> int:
    if not number:
        hold(path)
    return number


def hog_the_lock(seconds: float) -> str:
    """Keep every other thread of this process from running Python: a C function that holds the interpreter's lock."""
    ctypes.PyDLL(None).usleep(int(seconds * 1e6))
    return "held"


def fill(megabytes: int, seconds: float) -> int:
    """Take so much memory, touch it, and keep it for a while."""
    data = bytearray(megabytes * 2**20)
    time.sleep(seconds)
    return len(data)


_memory: list[str] = []


def remember(word: str) -> None:
    _memory.append(word)


def remembered() -> str:
    (word,) = _memory
    return word


def refuse() -> None:
    raise RuntimeError("the license server said no")


def fetch(url: str) -> tuple[int, dict[str, Any]]:
    """GET it; status and document."""
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
