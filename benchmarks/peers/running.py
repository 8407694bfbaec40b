"""Running one peer's program: with its interpreter, its broker, its deadline, and nothing of it left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from benchmarks.peers import broker
from benchmarks.peers.catalog import Entry
from benchmarks.peers.environments import interpreter
from benchmarks.peers.processes import descendants

ROOT = Path(__file__).parents[2]


class PeerFailed(Exception):
    """Its program did not do what the plan says; the end of what it printed is in the text."""


def plan_for(entry: Entry, *, workers: int, scale: float) -> dict[str, Any]:
    """Its share of work; a scale below 1 is for a quick look."""
    plan: dict[str, Any] = {key: max(4, int(n * scale)) for key, n in entry.plan.items()}
    return {"workers": workers, **plan, **entry.extras}


def run(
    entry: Entry, plan: dict[str, Any], timeout_s: float = 180.0, *, broker_at: dict[str, str] | None = None
) -> dict[str, Any]:
    """What its program printed.

    Args:
        broker_at: the variables of a broker that runs already; None: it gets one of its own, if it needs one.

    Raises:
        NotInstalled: it is not to be had here.
        PeerFailed: it failed or took too long.
    """
    python = interpreter(entry.name, entry.requirements)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        environ = {
            **os.environ,
            "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", "")]),  # as if it were activated
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PEER_FOLDER": folder,
        }
        if broker_at is not None:
            environ |= broker_at
        elif entry.needs_broker:
            environ |= stack.enter_context(broker.valkey())
        plan = {**plan, "started_at": time.time()}
        process = subprocess.Popen(
            [python, "-m", "benchmarks.peers", entry.name, json.dumps(plan)],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _end(process)
            raise PeerFailed(f"{entry.title} did not end within {timeout_s:.0f} s") from None
        finally:
            _end(process)
    if process.returncode:
        raise PeerFailed(f"{entry.title} ended with exit code {process.returncode}: {err[-2000:]}")
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        raise PeerFailed(f"{entry.title} printed no result: {err[-2000:]}")
    return dict(json.loads(lines[-1]))


def _end(process: subprocess.Popen[str]) -> None:
    """Kill the program and all that it started, also what has left its session."""
    for pid in descendants(process.pid)[1:] if process.poll() is None else ():
        with suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.wait()
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()
