"""How a child's process is started, told things and ended: a fresh interpreter, or a process of a multiprocessing context.

    parent                                     child
    stdin pipe      ── settings, DRAIN ──────> its end is the parent's death
    life socket     <── READY, LIMIT ───────── its end is the parent's death, also where no Python code can run (POSIX)
    sentinel        <── the process's end

A fresh interpreter is the default: it takes none of the parent's threads, locks and memory, and does not import the
program's `__main__` again. It stands in a process group of its own, so that Ctrl-C reaches the parent, which then ends its
children in order.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection as mp_connection
from multiprocessing.context import BaseContext
from typing import Any, Protocol

import msgspec

from manyhands import _forks
from manyhands.worker.settings import ChildSettings, as_bytes, command

_PIPE_BYTES = 32 * 1024
"""Every platform's pipe takes so much at once; longer settings are written by a thread, while the child starts."""


class ChildProcess(Protocol):
    """A running child."""

    pid: int

    @property
    def sentinel(self) -> Any:
        """What `multiprocessing.connection.wait` reports when the process has ended."""
        ...

    @property
    def notices(self) -> Any:
        """What it reports when `read` has something; None where children cannot speak."""
        ...

    def read(self) -> bytes:
        """What the child has said since; one byte a notice."""
        ...

    def tell(self, word: bytes) -> None:
        """Send the child a command. A child that is gone hears nothing, and that is no error."""
        ...

    def code(self) -> int | None:
        """The exit code, minus a signal's number if one killed it; None while it runs."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def close(self) -> None:
        """Release what belongs to it here, once it has ended."""
        ...


Starter = Callable[[ChildSettings], ChildProcess]


class FreshProcess:
    """A child in an interpreter of its own.

    Raises:
        OSError: the system starts no process.
    """

    def __init__(self, settings: ChildSettings) -> None:
        self._life: socket.socket | None = None
        theirs: socket.socket | None = None
        options: dict[str, Any] = {}
        if sys.platform == "win32":
            options["creationflags"] = subprocess.CREATE_NEW_PROCESS_GROUP
        else:
            self._life, theirs = socket.socketpair()
            self._life.setblocking(False)
            options["pass_fds"] = (theirs.fileno(),)
            options["process_group"] = 0
            settings = msgspec.structs.replace(settings, life_fd=theirs.fileno())
        try:
            self._popen = subprocess.Popen(command(), stdin=subprocess.PIPE, **options)
        except BaseException:
            if self._life is not None:
                self._life.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        _forks.watch(self)
        self.pid = self._popen.pid
        self._sentinel, self._closes = _sentinel(self._popen)
        data = as_bytes(settings)
        if len(data) <= _PIPE_BYTES:
            self.tell(data)
        else:
            threading.Thread(target=self.tell, args=(data,), name="manyhands-settings", daemon=True).start()

    @property
    def sentinel(self) -> Any:
        return self._sentinel

    @property
    def notices(self) -> Any:
        return self._life

    def read(self) -> bytes:
        if self._life is None:
            return b""
        try:
            data = self._life.recv(4096)
        except (BlockingIOError, InterruptedError):
            return b""
        except OSError:
            data = b""
        if not data:  # the child has ended, or its process closed what it did not know
            self._life.close()
            self._life = None
        return data

    def tell(self, word: bytes) -> None:
        stdin = self._popen.stdin
        assert stdin is not None
        with contextlib.suppress(OSError, ValueError):  # it has ended; it was closed meanwhile
            stdin.write(word)
            stdin.flush()

    def code(self) -> int | None:
        return self._popen.poll()

    def kill(self) -> None:
        self._popen.kill()

    def close(self) -> None:
        _forks.forget(self)
        self._popen.wait()
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):  # a buffer that nobody reads any more
            self._popen.stdin.close()
        if self._life is not None:
            self._life.close()
        self._closes()

    def close_in_child(self) -> None:
        """After a fork (see _forks): a copy of these ends would keep the child from seeing that its parent is gone."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            os.close(self._popen.stdin.fileno())
        if self._life is not None:
            with contextlib.suppress(OSError):
                os.close(self._life.detach())


class ContextProcess:
    """A child of a multiprocessing context.

    Raises:
        OSError: the system starts no process.
    """

    def __init__(self, settings: ChildSettings, context: BaseContext) -> None:
        from manyhands.worker.child import run_in_process  # the parent itself needs nothing of it

        self._ours, theirs = context.Pipe()
        _forks.watch(self)
        try:
            self._process = context.Process(  # type: ignore[attr-defined]
                target=run_in_process, args=(as_bytes(settings), theirs), name="manyhands-child", daemon=True
            )
            self._process.start()
        except BaseException:
            _forks.forget(self)
            self._ours.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid

    @property
    def sentinel(self) -> Any:
        return self._process.sentinel

    @property
    def notices(self) -> Any:
        return None if self._ours.closed else self._ours

    def read(self) -> bytes:
        said = b""
        try:
            while self._ours.poll():
                said += self._ours.recv_bytes(4096)
        except (EOFError, OSError):
            self._ours.close()
        return said

    def tell(self, word: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._ours.send_bytes(word)

    def code(self) -> int | None:
        code: int | None = self._process.exitcode
        return code

    def kill(self) -> None:
        self._process.kill()

    def close(self) -> None:
        _forks.forget(self)
        self._process.join()
        self._process.close()
        self._ours.close()

    def close_in_child(self) -> None:
        """As FreshProcess's."""
        with contextlib.suppress(OSError):
            os.close(self._ours.fileno())


def starter(context: BaseContext | None) -> Starter:
    """How children are started: fresh interpreters, or by the given context."""
    if context is None:
        return FreshProcess
    return lambda settings: ContextProcess(settings, context)


def _sentinel(popen: subprocess.Popen[bytes]) -> tuple[Any, Callable[[], None]]:
    """What becomes ready when the process ends, and how to release it."""
    if sys.platform == "win32":
        return int(popen._handle), lambda: None  # type: ignore[attr-defined]  # as multiprocessing waits for its own
    if hasattr(os, "pidfd_open"):
        with contextlib.suppress(OSError):  # an old kernel, or a sandbox that knows no pidfd
            descriptor = os.pidfd_open(popen.pid)
            return descriptor, lambda: os.close(descriptor)
    reader, writer = mp_connection.Pipe(duplex=False)

    def wait() -> None:
        popen.wait()
        with contextlib.suppress(OSError):
            writer.close()

    watcher = threading.Thread(target=wait, name="manyhands-waits-for-child", daemon=True)
    watcher.start()

    def close() -> None:
        watcher.join()
        reader.close()

    return reader, close


def words(code: int) -> str:
    """How a process ended, as one says it: "was killed by SIGKILL"."""
    if code < 0:
        try:
            return f"was killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"was killed by signal {-code}"
    return f"ended with exit code {code}"
