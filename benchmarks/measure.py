"""Starting programs, repeating them in turn, and summing up what they print: nothing here knows what is measured."""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).parent / "programs"
STOCK, OURS = "multiprocessing.managers", "manyhands.managers"


@dataclass
class Row:
    """One line of the table: the same job done by us and by others in the same run."""

    name: str
    unit: str
    ours: float
    others: dict[str, float]
    aim: str
    """The number to reach, in words, as the issue or the design states it."""
    is_less_better: bool = False
    detail: dict[str, Any] = field(default_factory=dict)
    who: str = ""
    """Which of ours it is, where there are several; the others are among `others`."""

    def ratio(self, other: str) -> float:
        """How many times better we are than that peer; below 1 is worse."""
        a, b = self.ours, self.others[other]
        if not a or not b:
            return 0.0
        return b / a if self.is_less_better else a / b


def median(values: list[float]) -> float:
    return statistics.median(values) if values else 0.0


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def programs_for(module: str) -> Iterator[Path]:
    """A folder with the benchmark's programs, their import line changed to that module and nothing else."""
    with tempfile.TemporaryDirectory() as folder:
        for path in PROGRAMS.glob("*.py"):
            text = path.read_text().replace(f"from {STOCK} import", f"from {module} import")
            (Path(folder) / path.name).write_text(text)
        yield Path(folder)


def start(program: Path, *args: object) -> subprocess.Popen[str]:
    # Stock programs need their own folder off sys.path: a file named queue.py or the like must not shadow anything.
    return subprocess.Popen(
        [sys.executable, str(program), *map(str, args)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONSAFEPATH": "1"},
    )


def start_module(module: str, *args: object, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """`python -m module …` in the background; what it prints is dropped."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *map(str, args)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **(env or {})},
    )


def end(process: subprocess.Popen[str]) -> None:
    """Kill a program with its children: a master of the standard library leaves its server process behind otherwise."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.communicate()


def answer(process: subprocess.Popen[str], timeout_s: float = 180.0) -> dict[str, Any]:
    """The JSON that a program prints last, once it ended well."""
    try:
        out, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        end(process)
        raise RuntimeError(f"{process.args} did not end within {timeout_s} s") from None
    if process.returncode:
        raise RuntimeError(f"{process.args} ended with exit code {process.returncode}")
    return dict(json.loads(out.strip().splitlines()[-1]))


def in_turn(
    jobs: dict[str, Callable[[], dict[str, Any]]], runs: int, note: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """Run every job once, then all again, so that a drift of the machine's speed meets all of them alike."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in jobs}
    for turn in range(runs):
        for name, job in jobs.items():
            note(f"{name}, {turn + 1} of {runs}")
            found[name].append(job())
    return found


def machine() -> dict[str, Any]:
    """Where this runs, and what else ran there when it was asked: beside others' work every figure is lower."""
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": platform.processor() or platform.machine(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else 0.0,
    }
