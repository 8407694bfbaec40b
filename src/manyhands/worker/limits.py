"""How much memory a process uses, and sizes as people write them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from manyhands.errors import UnsupportedFeature, UsageError

_STATM = Path("/proc/self/statm")
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", re.IGNORECASE)


def size_bytes(text: str) -> int:
    """Bytes of "500M", "1.5 GiB", "800000". Units are powers of 1024.

    Raises:
        UsageError: it is none, or 0.
    """
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _UNITS[found[2].lower()]) if found else 0
    if size <= 0:
        raise UsageError(f"{text!r} is no size; write a number and K, M or G, as in 500M.")
    return size


def memory_meter() -> Callable[[int], int]:
    """What tells how many bytes of memory a process has in use (its resident set), by its id; 0 when it has ended.

    Raises:
        UnsupportedFeature: this platform does not tell.
    """
    if _STATM.exists():
        return _of_proc
    if os.name != "nt":
        return _of_ps
    try:
        from manyhands.worker.windows import kernel_calls, memory_meter_of  # ctypes is for Windows only

        return memory_meter_of(kernel_calls())
    except (ImportError, AttributeError, OSError) as error:  # a Windows without these, or Python without ctypes
        raise UnsupportedFeature(
            f"A memory limit needs a system that tells how much memory another process uses; this one does not ({error}): "
            "leave --max-memory (max_memory_bytes) out, or use --max-tasks-per-child."
        ) from error


def _of_proc(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _of_ps(pid: int) -> int:
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    return int(text) * 1024 if text.isdigit() else 0
