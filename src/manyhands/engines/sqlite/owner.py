"""One process owns a store: a lock that dies with its process, on a file beside the store.

The lock is on one byte of `jobs.db.owner`, never on the store itself (closing any descriptor of a file drops all POSIX
locks that the process has on it, SQLite's too). The file holds the owner's pid for whoever is turned away; it stays when
the owner leaves, because removing it would let two processes lock two files of one name. On Linux and macOS it is a POSIX
record lock, which a forked child does not inherit; Windows has msvcrt's. Neither works within one process, so a table of
this process's own stores stands before them.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from manyhands.errors import EngineBusy, EngineUnavailable

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOCKED_BYTE = 1 << 20  # far behind the pid, because Windows lets nobody read a locked byte

_guard = threading.Lock()
_owned_here: set[Path] = set()


class OwnerLock:
    """Taken by `take`, given back by `release` or by the end of the process."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self._pid = os.getpid()

    @classmethod
    def take(cls, path: Path) -> OwnerLock:
        """Become the owner of the store at path (absolute, links resolved).

        Raises:
            EngineBusy: another engine owns it; the sentence names its process and how to serve the store instead.
            EngineUnavailable: the file beside it cannot be made.
        """
        with _guard:
            if path in _owned_here:
                raise _busy(path, os.getpid())
            try:
                descriptor = os.open(f"{path}.owner", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
            except OSError as error:
                raise EngineUnavailable(
                    f"Cannot open the store {path}: {error.strerror}. Check that the folder exists and can be written to."
                ) from error
            try:
                _lock(descriptor)
            except OSError:
                pid = _read_pid(descriptor)
                os.close(descriptor)
                raise _busy(path, pid) from None
            os.lseek(descriptor, 0, os.SEEK_SET)
            os.write(descriptor, b"%-20d\n" % os.getpid())
            _owned_here.add(path)
            return cls(path, descriptor)

    def release(self) -> None:
        """Let others own it. In a forked child this does nothing: the lock is the parent's. Idempotent."""
        with _guard:
            if self._descriptor < 0 or self._pid != os.getpid():
                return
            os.close(self._descriptor)  # drops the lock
            self._descriptor = -1
            _owned_here.discard(self._path)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _LOCKED_BYTE, os.SEEK_SET)


def _read_pid(descriptor: int) -> int:
    os.lseek(descriptor, 0, os.SEEK_SET)
    try:
        return int(os.read(descriptor, 20))
    except ValueError:  # the owner has locked it and not yet written its pid
        return 0


def _busy(path: Path, pid: int) -> EngineBusy:
    who = "this process" if pid == os.getpid() else f"process {pid}" if pid else "another process"
    return EngineBusy(
        f"The store {path} is already open in {who}; a store has one owner. Serve it once with "
        f"`manyhands serve --store sqlite:///{path}` and connect to that server, or stop {who}.",
        pid=pid,
        path=str(path),
    )
