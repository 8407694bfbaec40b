"""Finds the Python interpreters of this machine and gives each a virtual environment with the package in it, made once."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import threading
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_CACHE = ROOT / ".venv-test"
_one_at_a_time = threading.Lock()


class Absent(Exception):
    """That interpreter cannot be used here; the text says why."""


def python_with_the_package(version: str) -> Path:
    """The interpreter to run programs with, for a version such as "3.12".

    Raises:
        Absent: the machine has no such interpreter, or no environment could be made for it.
    """
    if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
        return Path(sys.executable)
    with _one_at_a_time:
        return _environment(version)


def bare_python(version: str) -> Path:
    """The interpreter of that version as it is installed, without the package.

    Raises:
        Absent: the machine has none.
    """
    return _find(version)


@cache
def _environment(version: str) -> Path:
    base = _find(version)
    home = _CACHE / version
    python = home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = home / "made-for"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(base).encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        shutil.rmtree(home, ignore_errors=True)
        _run([str(base), "-m", "venv", str(home)], version)
        # Editable, so that the environment is made once and still runs the source as it is now.
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-e", str(ROOT)], version)
        stamp.write_text(wanted)
    return python


def _find(version: str) -> Path:
    candidates = [Path(found)] if (found := shutil.which(f"python{version}")) else []
    candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"), reverse=True)
    for candidate in candidates:
        if _version_of(candidate) == version:
            return candidate
    raise Absent(f"python{version} is neither on PATH nor under ~/.pyenv/versions: install it to run this case")


def _version_of(python: Path) -> str:
    """What the interpreter says it is; "" when it does not start (pyenv's shims for a version that is not chosen)."""
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        answer = subprocess.run([str(python), "-c", question], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""


def _run(command: list[str], version: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode != 0:
        raise Absent(f"no environment could be made for python{version}: {' '.join(command)} said: {done.stderr[-800:]}")
