"""`--reload`, for development: which files are watched, and whether one has changed."""

from __future__ import annotations

import os
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

LOOK_S = 0.5
"""How often the files are looked at."""
_SKIPPED = frozenset(["__pycache__", "node_modules", "site-packages", "dist-packages", "venv", "env"])

Stamps = Mapping[str, int]
"""A file's path to the time of its last change, in nanoseconds."""


def roots(imports: Sequence[str], path: Sequence[str]) -> list[Path]:
    """The folders to watch: those in which the imported modules' top-level packages were found, without importing them.

    Installed packages and the standard library are left out: what is edited there is not being developed.
    """
    installed = [Path(folder).resolve() for folder in set(sysconfig.get_paths().values())]
    found: dict[Path, None] = {}
    for name in dict.fromkeys(name.partition(".")[0] for name in imports):
        spec = PathFinder.find_spec(name, [entry or os.getcwd() for entry in path])
        places = list(spec.submodule_search_locations or filter(None, [spec.origin])) if spec is not None else []
        for place in places:
            folder = Path(place).resolve().parent
            if not any(folder == other for other in installed):
                found[folder] = None
    return list(found)


def stamps(folders: Iterable[Path]) -> dict[str, int]:
    """When each Python file below these folders was changed last."""
    found: dict[str, int] = {}
    for folder in folders:
        for place, inner, files in os.walk(folder):
            inner[:] = [name for name in inner if name not in _SKIPPED and not name.startswith(".")]
            for name in files:
                if name.endswith(".py"):
                    file = os.path.join(place, name)
                    try:
                        found[file] = os.stat(file).st_mtime_ns
                    except OSError:  # gone between the two calls
                        continue
    return found


def changed(before: Stamps, after: Stamps) -> list[str]:
    """The files that are new, gone or other than before."""
    return sorted(file for file in before.keys() | after.keys() if before.get(file) != after.get(file))


class Watcher:
    """Looks at the files from a thread of its own and says when one has changed.

    Args:
        imports: the modules that children import.
        on_change: called in the watcher's thread with the changed files.
    """

    def __init__(self, imports: Sequence[str], on_change: Callable[[list[str]], None]) -> None:
        self.folders = roots(imports, sys.path)
        self._on_change = on_change
        self._stop = threading.Event()
        self._before = stamps(self.folders)
        self._thread = threading.Thread(target=self._run, name="manyhands-reload", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            after = stamps(self.folders)
            if files := changed(self._before, after):
                self._before = after
                self._on_change(files)

    def close(self) -> None:
        """Look no more."""
        self._stop.set()
        self._thread.join()
