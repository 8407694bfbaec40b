"""What a child is told by its parent: its settings at the start, and words while it lives.

A parent starts a child in one of two ways:

* a fresh interpreter: `Popen(command(), stdin=PIPE, pass_fds=…)`, then `stdin.write(as_bytes(settings))`. No key and no
  user's data ever stands on a command line.
* a process of a multiprocessing context (spawn or forkserver, never fork): `Process(target=child.run_in_process,
  args=(as_bytes(settings), connection))`, where the connection is one end of a duplex Pipe, for words and notices.

The pipe stays open as long as the parent lives: a child whose pipe ends has lost its parent, and ends at once.
"""

from __future__ import annotations

import sys
from enum import IntEnum
from struct import Struct

import msgspec

DRAIN = b"d"
"""A word to a child: finish the call that runs, release the rest, say goodbye, exit with DRAINED."""

READY, LIMIT = b"r", b"l"
"""Notices to the parent: the child is attached and asks for work; it has begun a call with a time limit while the parent did
not look (`ParentBlock.watch`)."""

_LENGTH = Struct("!I")


class Exit(IntEnum):
    """How a child ends of itself; any other exit code is a crash."""

    DRAINED = 0
    """Asked to, by DRAIN."""
    RETIRED = 61
    """It has run max_tasks calls: replace it."""
    UNUSABLE = 62
    """It cannot work: an import or the initializer failed, or the key is wrong. The block's text says why."""
    ORPHANED = 63
    """Its parent is gone, or gave it up while it started."""


class ChildSettings(msgspec.Struct, frozen=True):
    """All that a child needs to know."""

    host: str
    port: int
    """Where its server (or the gateway in its parent) listens."""
    keys: list[bytes]
    """The cluster's keys as given; the first is proved and signs."""
    session: str
    """The id of the child's session, chosen by the parent."""
    parent: str
    """The id of the parent's session at the same engine; "" where it has none."""
    block: str
    """Path of the shared block."""
    queues: list[str]
    """In order of preference, as users name them."""
    name: str = ""
    """Who this is, for people."""
    imports: list[str] = []
    """Modules to import before the first lease: they register tasks."""
    sys_path: list[str] = []
    """What stands at the front of sys.path there, so that the parent's modules are found."""
    initializer: bytes = b""
    """(function, arguments) as `calls` encodes them, called once before the first lease; b"" is none."""
    max_tasks: int = 0
    """Leave after so many calls; 0 is never."""
    tasks_only: bool = False
    """Run registered tasks only; refuse whatever would be unpickled."""
    is_home: bool = False
    """Whether what its calls submit (`@mh.task`) goes to the same server: a worker's does, an Executor's does not."""
    max_in_hand: int = 0
    """At most so many messages are prefetched; 0 leaves it to the measured times."""
    life_fd: int = -1
    """POSIX: an inherited socket whose other end only the parent holds and never writes to; the child's notices go there. On
    Linux its end kills the child even while a call holds the interpreter's lock."""


def as_bytes(settings: ChildSettings) -> bytes:
    """What the parent writes into a fresh child's standard input."""
    data = msgspec.msgpack.encode(settings)
    return _LENGTH.pack(len(data)) + data


def command() -> list[str]:
    """The command line of a fresh child; its settings follow on its standard input."""
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]  # as multiprocessing does

    return [sys.executable, *_args_from_interpreter_flags(), "-c", "from manyhands.worker.child import main; main()"]


def read_length(data: bytes) -> int:
    """How many bytes of settings follow the first HEAD_BYTES."""
    size: int = _LENGTH.unpack(data)[0]
    return size


def from_bytes(data: bytes) -> ChildSettings:
    """The settings, behind their length."""
    return msgspec.msgpack.decode(data, type=ChildSettings)


HEAD_BYTES = _LENGTH.size
