"""What the workers of the fault tests run; each run is written down before it begins to count."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def square(folder: str, number: int, seconds: float) -> int:
    """Work that long and return the square. The note survives this process's death at any point after it."""
    note(folder, number)
    if seconds:
        time.sleep(seconds)
    return number * number


def kill_me(folder: str, number: int) -> None:
    """Poison: whoever runs it dies."""
    note(folder, number)
    os.kill(os.getpid(), signal.SIGKILL)


def note(folder: str, number: int) -> None:
    """One line in this process's own file, with one system call."""
    file = os.open(os.path.join(folder, f"{os.getpid()}.runs"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{number}\n".encode())
    finally:
        os.close(file)


def runs(folder: Path) -> list[int]:
    """Every run that was begun, in any process."""
    return [int(line) for path in folder.glob("*.runs") for line in path.read_text(encoding="utf-8").splitlines()]
