"""Running CPython's own tests against classes of ours, as programs, and judging how they went."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest


class Verdict(NamedTuple):
    """What is wrong with how the tests went; all empty when nothing is."""

    failed: dict[str, str]
    """Tests that failed and are no exceptions, with what they said."""
    passed_after_all: list[str]
    """Exceptions that passed: take them off the list."""
    unexplained: list[str]
    """Exceptions that failed with something else than the assertion that is named."""


def judge(outcomes: dict[str, str], exceptions: dict[str, tuple[str, str]]) -> Verdict:
    """Compare how tests went with what is known of them."""
    failed = {name: text for name, text in outcomes.items() if text != "ok" and not text.startswith("skipped: ")}
    return Verdict(
        {name: text for name, text in failed.items() if name not in exceptions},
        [name for name in exceptions if outcomes.get(name) == "ok"],
        [name for name, (assertion, _) in exceptions.items() if name in failed and assertion not in failed[name]],
    )


class Run:
    """CPython's tests under one start method, as a program; they mostly wait, so several run side by side.

    Args:
        suite: the program, called with a start method, the file for its outcomes, and names.
        deadline_s: how long it may take.
    """

    def __init__(
        self, python: Path, suite: Path, method: str, names: Sequence[str], folder: Path, deadline_s: float
    ) -> None:
        self._deadline_s = deadline_s
        self._out, self._log = folder / "outcomes.json", folder / "log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [python, suite, method, self._out, *names],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=folder,
                start_new_session=True,
            )
        self._started = time.monotonic()

    def outcomes(self) -> dict[str, str]:
        """How each test went."""
        try:
            self._process.wait(max(1.0, self._started + self._deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.end()
            pytest.fail(
                f"not done within {self._deadline_s:.0f} s; the last lines say which test it was in:\n{self._tail()}"
            )
        assert self._process.returncode == 0, self._tail()
        found: dict[str, str] = json.loads(self._out.read_text(encoding="utf-8"))
        return found

    def end(self) -> None:
        """End it with all its children. Idempotent."""
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")[-3000:]
