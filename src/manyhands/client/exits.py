"""How a process or a thread ends: whether the messages it had are done, or go back.

    normal end, sys.exit(0)                  what get returned is acked
    unhandled exception, sys.exit(not 0)     given back, counted as a delivery
    KeyboardInterrupt                        given back, not counted
    kill -9, os._exit                        nothing runs here; the engine sees the connection end and gives back

Python tells an atexit function nothing about why it runs. An unhandled exception is left in `sys.last_value`; for
`sys.exit` with another code than 0 there is only a wrapper around it, put in place when the first client opens. Its limits:
`raise SystemExit(3)` in the main process passes it by and counts as a normal end, and a sys.exit that the program
catches still counts as a failure (the message comes again, which is the safe side). In a multiprocessing child the exception
is at hand while its finalizers run, so that there is no such limit.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import threading
from typing import Any, NamedTuple, NoReturn, Protocol

from manyhands._text import REASON_CHARS, readable
from manyhands.client.messages import describe
from manyhands.model import SettleKind


class End(NamedTuple):
    """How what was begun is settled, and the reason noted in a message's history."""

    kind: SettleKind
    reason: str = ""


NORMAL = End(SettleKind.ACK)


class Ending(Protocol):
    """A client or an embedded server, as this module needs it."""

    def end(self, how: End, *, is_exit: bool = False) -> None: ...

    def thread_ended(self, ident: int, how: End) -> None: ...

    def forked(self) -> None: ...


def end_of(error: BaseException | None) -> End:
    """What an exception that nobody handled (None: there was none) means for the messages at hand."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return NORMAL
    if isinstance(error, KeyboardInterrupt):
        return End(SettleKind.RELEASE, "interrupted by Ctrl-C")
    if isinstance(error, SystemExit):
        return End(SettleKind.NACK, f"its process ended with exit code {error.code!r}")
    return End(SettleKind.NACK, readable(f"its process ended in {describe(error)}", REASON_CHARS))


class _Process:
    """This process's open clients and what is known of its end."""

    def __init__(self) -> None:
        self.clients: list[Ending] = []
        self.exit_code: object = None
        self.failed_threads: dict[int, End] = {}
        self.is_hooked = False
        self.are_threads_hooked = False


_process = _Process()


def opened(client: Ending) -> None:
    """From now until `closed`, this client is told when the process ends, and in the child when it forks."""
    if client not in _process.clients:
        _process.clients.append(client)
    if not _process.is_hooked:
        _process.is_hooked = True
        from multiprocessing import util  # first: its own exit function then runs after ours

        atexit.register(_at_exit)
        _wrap_sys_exit()
        # Children of multiprocessing may end without atexit; their finalizers always run, while the exception is at hand.
        # A child forgets those that were registered before it began: a queue among its arguments opens before that.
        util.register_after_fork(_process, _watch_child)
        if multiprocessing.parent_process() is not None:
            _watch_child(_process)


def _watch_child(_: _Process) -> None:
    from multiprocessing import util

    util.Finalize(None, _at_exit_of_child, exitpriority=10)


def closed(client: Ending) -> None:
    """It needs to hear nothing more."""
    if client in _process.clients:
        _process.clients.remove(client)


def _at_exit() -> None:
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)
    if error is None and _process.exit_code not in (None, 0):
        error = SystemExit(_process.exit_code)
    _end_all(end_of(error))


def _at_exit_of_child() -> None:
    _end_all(end_of(sys.exc_info()[1]))


def _end_all(how: End) -> None:
    for client in reversed(_process.clients[:]):  # what was opened last may live in what was opened first
        client.end(how, is_exit=True)


def _wrap_sys_exit() -> None:
    plain_exit = sys.exit

    def exit(status: Any = None, /) -> NoReturn:  # noqa: A001 - it takes that one's place
        if threading.current_thread() is threading.main_thread():
            _process.exit_code = status
        plain_exit(status)

    exit.__doc__ = plain_exit.__doc__
    sys.exit = exit


# -- threads ---------------------------------------------------------------------------------------------------------


class ThreadEnd:
    """Kept in a thread's own storage: dies with the thread, and tells the client."""

    __slots__ = ("_client", "_ident", "_pid")

    def __init__(self, client: Ending, ident: int) -> None:
        self._client = client
        self._ident = ident
        self._pid = os.getpid()
        _hook_threads()

    def __del__(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork: the child drops its copies of all other threads, before any hook runs; they live in the parent
        how = _process.failed_threads.pop(self._ident, NORMAL)
        self._client.thread_ended(self._ident, how)


def _hook_threads() -> None:
    if _process.are_threads_hooked:
        return
    _process.are_threads_hooked = True
    plain_hook = threading.excepthook

    def excepthook(args: threading.ExceptHookArgs, /) -> None:
        if args.thread is not None and args.thread.ident is not None:
            _process.failed_threads[args.thread.ident] = end_of(args.exc_value)
        plain_hook(args)

    threading.excepthook = excepthook


# -- fork ------------------------------------------------------------------------------------------------------------


def _in_child() -> None:
    inherited, _process.clients = _process.clients, []
    _process.exit_code = None
    _process.failed_threads = {}
    for client in inherited:
        client.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
