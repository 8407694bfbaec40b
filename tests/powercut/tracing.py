"""A traced run: the shim, the child under it, and the log it leaves."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
MARKS = "marks"
"""The file in the watched folder that the workload appends to: what it writes there stands in the log at its place."""

_HEAD = struct.Struct("=cIQQ")


@dataclass(frozen=True, slots=True)
class Record:
    """One call on one file of the watched folder."""

    kind: str
    name: str
    """Below the folder; empty for the folder itself."""
    offset: int
    data: bytes


def cannot_run() -> str:
    """Why power cuts cannot be simulated on this machine; empty when they can."""
    if not sys.platform.startswith("linux"):
        return f"they are cut from a trace made with LD_PRELOAD, which {sys.platform} does not have"
    if _compiler() is None:
        return "the trace needs a C compiler (cc, gcc or clang), and none was found"
    return ""


def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


def compile_shim(folder: Path) -> Path:
    """Build the shim there."""
    library = folder / "shim.so"
    compiler = _compiler()
    assert compiler is not None
    command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(library), str(HERE / "shim.c"), "-ldl", "-lpthread"]
    subprocess.run(command, check=True, timeout=60)
    return library


def run(shim: Path, folder: Path, *, seed: int, planted: str = "", fail_sync: int = 0) -> list[Record]:
    """Run the workload on a new store in folder, and return everything it did to the files there.

    Args:
        planted: a bug that the workload's process shall carry.
        fail_sync: the how manieth sync of the store's log the disk shall refuse; 0 is none.
    """
    store, log = folder / "store", folder / "log"
    store.mkdir(parents=True)
    environment = {
        **os.environ,
        "LD_PRELOAD": str(shim),
        "MANYHANDS_TRACE_FOLDER": str(store),
        "MANYHANDS_TRACE_LOG": str(log),
        "MANYHANDS_PLANT": planted,
        "MANYHANDS_FAIL_SYNC": str(fail_sync),
    }
    command = [sys.executable, str(HERE / "workload.py"), str(store), str(seed)]
    done = subprocess.run(command, env=environment, timeout=120, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AssertionError(f"the workload ended with {done.returncode}:\n{done.stderr}")
    return read(log, store)


def read(log: Path, folder: Path) -> list[Record]:
    """The records of a log, in order."""
    content, at, records = log.read_bytes(), 0, []
    prefix = str(folder)
    while at < len(content):
        kind, name_length, offset, data_length = _HEAD.unpack_from(content, at)
        at += _HEAD.size
        name = content[at : at + name_length].decode()
        at += name_length
        data = content[at : at + data_length]
        at += data_length
        records.append(Record(kind.decode(), name.removeprefix(prefix).lstrip("/"), offset, data))
    return records
