"""A worker's child: the process. It takes its settings, prepares, works (working.py) and ends with a code that says how.

    parent ── settings, words ──> pipe    its end, too, is a word: the parent is gone
    parent <── notices ────────── socket  on Linux its end kills the child whatever it does

It needs floors 0 and 1 and a socket only, so that it starts fast and stays small.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from manyhands.calls.bodies import Setup
from manyhands.calls.running import run_setup
from manyhands.errors import AuthenticationFailed, ProtocolError, SessionTaken
from manyhands.tasks import Home, live_at
from manyhands.worker.block import TEXT_BYTES, ChildBlock
from manyhands.worker.line import where
from manyhands.worker.settings import HEAD_BYTES, ChildSettings, Exit, from_bytes, read_length
from manyhands.worker.working import Child

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def main() -> None:
    """A fresh interpreter's: the settings come on standard input, then words; never returns."""
    # A task that reads its standard input must not swallow the parent's words.
    pipe = os.dup(0)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    settings = from_bytes(_read(pipe, read_length(_read(pipe, HEAD_BYTES))))
    notices: socket.socket | None = None
    if settings.life_fd >= 0:
        os.set_inheritable(settings.life_fd, False)
        notices = socket.socket(fileno=settings.life_fd)
        notices.setblocking(False)
        _die_with(notices)

    def notify(word: bytes) -> None:
        if notices is not None:
            with contextlib.suppress(OSError):
                notices.send(word)

    sys.exit(_run(settings, lambda: os.read(pipe, 1), notify))


def run_in_process(settings: bytes, connection: Connection) -> None:
    """The target of a multiprocessing.Process under spawn or forkserver; never returns.

    Args:
        settings: `settings.as_bytes`.
        connection: one end of a duplex Pipe; words come and notices go here.
    """

    def notify(word: bytes) -> None:
        with contextlib.suppress(OSError):
            connection.send_bytes(word)

    def listen() -> bytes:
        try:
            return connection.recv_bytes()
        except EOFError:
            return b""

    sys.exit(_run(from_bytes(settings[HEAD_BYTES:]), listen, notify))


def _run(settings: ChildSettings, listen: Callable[[], bytes], notify: Callable[[bytes], None]) -> Exit:
    for name in ("SIGINT", "SIGTERM"):
        # They reach all processes of a group; what becomes of a child is its parent's decision. A handler and not SIG_IGN,
        # which programs that a task starts would inherit.
        signal.signal(getattr(signal, name), lambda *_: None)
    try:
        block = ChildBlock(settings.block)
    except FileNotFoundError:  # it took so long to start that its parent gave it up and removed it
        return Exit.ORPHANED
    orders: list[bytes] = []
    child: Child | None = None

    def hear() -> None:
        while True:
            try:
                word = listen()
            except OSError:
                word = b""
            if not word:
                os._exit(Exit.ORPHANED)
            orders.append(word)
            if child is not None:
                child.order(word)

    threading.Thread(target=hear, name="manyhands-orders", daemon=True).start()
    try:
        _prepare(settings)
    except BaseException as error:  # imports and initializers run the user's code
        # Its parent shows it, once for all its children.
        block.say(f"{type(error).__name__}: {' '.join(str(error).split())}\n{_where(error)}")
        return Exit.UNUSABLE
    child = Child(settings, block, notify, _die_of)
    for word in orders:
        child.order(word)
    gc.collect()
    gc.freeze()
    try:
        return child.live()
    except (AuthenticationFailed, ProtocolError, SessionTaken) as error:
        block.say(str(error))
        return Exit.UNUSABLE


def _prepare(settings: ChildSettings) -> None:
    known = set(settings.sys_path)
    sys.path[:] = [*settings.sys_path, *(path for path in sys.path if path not in known)]
    if settings.is_home:
        live_at(Home(where(settings), settings.keys[0]))
    for module in settings.imports:
        importlib.import_module(module)
    if settings.initializer:
        run_setup(Setup("", settings.initializer))


def _where(error: BaseException) -> str:
    """The user's part of its traceback, the end of it as much as a block holds."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    shown = [frame for frame in frames if frame.filename != __file__ and "importlib" not in frame.filename]
    lines = traceback.format_list(shown)
    while sum(map(len, lines)) > TEXT_BYTES // 2:
        del lines[0]
    return "".join(lines).rstrip()


def _show(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error)


def _die_of(error: BaseException) -> None:
    """End the process for an error in a thread without which it cannot live."""
    _show(error)
    sys.stderr.flush()
    os._exit(1)


def _read(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.read(fd, size - len(data))
        if not part:
            os._exit(Exit.ORPHANED)
        data += part
    return data


def _die_with(life: socket.socket) -> None:
    """Have the kernel end this process when the parent's end of this socket closes, whatever Python is doing then.

    The end of the connection raises SIGIO, whose default action is to end the process. On other systems than Linux a parent
    that only reads a notice would raise it as well.
    """
    if sys.platform != "linux":
        return
    import fcntl

    fd = life.fileno()
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_ASYNC)
