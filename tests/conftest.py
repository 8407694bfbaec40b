"""What all tests share: a home of their own, and programs that never outlive their test."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from programs.lab import Program

# Before any other conftest imports from there: failures of the contract suite and its helpers show their values.
pytest.register_assert_rewrite("manyhands.testing.contract")

# A busy machine is no reason to fail: how long an example takes says nothing of what it found.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

Start = Callable[..., Program]

_STATE_VARIABLE = {"win32": "LOCALAPPDATA", "darwin": "HOME"}.get(sys.platform, "XDG_STATE_HOME")


@pytest.fixture(scope="session", autouse=True)
def home_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or makes the real user's key, or meets the address, key or options of the shell it was started from."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(_STATE_VARIABLE, str(tmp_path_factory.mktemp("state")))
        for variable in ("MANYHANDS_URL", "MANYHANDS_AUTHKEY", "PYTEST_ADDOPTS"):
            patch.delenv(variable, raising=False)
        yield


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts programs by command line, with what they print in files of tmp_path; ends those that still run."""
    started: list[Program] = []

    def start(name: str, *command: str | Path, env: dict[str, str] | None = None) -> Program:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **(env or {})}
        program = Program(name, [sys.executable, *map(str, command)], tmp_path, environment)
        started.append(program)
        return program

    yield start
    for program in started:
        program.sweep()
