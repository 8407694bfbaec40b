"""The end of the program: pending calls end first, as those of concurrent.futures do, unless Ctrl-C ended it.

Its hook runs when the main thread is done, before other threads are joined and before atexit's functions: results still
come in, and what is open here is closed in order. Ctrl-C reaches this process alone, since children have a process group of
their own (ADR 0058), so it has to be passed on here: ADR 0115.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import secrets
import sys
import threading
from typing import Protocol


class Open(Protocol):
    """What has to end."""

    def end(self) -> None: ...
    def break_off(self) -> None: ...


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
    is_interrupted = _is_interrupted()
    while _program.homes:
        home = next(reversed(_program.homes))
        try:
            with contextlib.suppress(Exception):
                home.break_off() if is_interrupted else home.end()
        except KeyboardInterrupt:
            if not is_interrupted:
                is_interrupted = True  # whoever waits for the last calls need not
                continue
        closed(home)


def _is_interrupted() -> bool:
    """Whether Ctrl-C is what ends the program; at a prompt it ended an earlier command."""
    last = getattr(sys, "last_type", None)
    return isinstance(last, type) and issubclass(last, KeyboardInterrupt) and not hasattr(sys, "ps1")


def _in_child() -> None:
    _program.homes = {}  # the parent's
    _program.is_ending = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
