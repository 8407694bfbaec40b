"""The end of the program: pending calls end first, as those of concurrent.futures do.

Its hook runs when the main thread is done, before other threads are joined and before atexit's functions: results still
come in, and what is open here is closed in order.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import threading
from typing import Protocol


class Open(Protocol):
    """What has to end."""

    def end(self) -> None: ...


class _Program:
    def __init__(self) -> None:
        self.homes: dict[Open, None] = {}
        self.is_ending = False
        self.is_hooked = False


_program = _Program()


def opened(home: Open) -> None:
    """From now until `closed`, the program does not end before this has."""
    _program.homes[home] = None
    if not _program.is_hooked:
        _program.is_hooked = True
        hook = getattr(threading, "_register_atexit", atexit.register)  # the standard library's own executors' hook
        hook(_at_exit)


def closed(home: Open) -> None:
    _program.homes.pop(home, None)


def is_ending() -> bool:
    """Whether the program's main thread is done."""
    return _program.is_ending


def refusal() -> str:
    """What a submit that comes too late is told."""
    when = "interpreter shutdown" if _program.is_ending else "shutdown"
    return f"cannot schedule new futures after {when}"


def new_id() -> str:
    """An id like no other."""
    return secrets.token_hex(12)


def _at_exit() -> None:
    _program.is_ending = True
    while _program.homes:
        home = next(reversed(_program.homes))
        with contextlib.suppress(Exception):
            home.end()
        closed(home)


def _in_child() -> None:
    _program.homes = {}  # the parent's
    _program.is_ending = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
