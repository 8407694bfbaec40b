"""What a supervisor wants done, for its shell to do in order."""

from __future__ import annotations

import msgspec

from manyhands.events import Request


class Start(msgspec.Struct, frozen=True):
    """Start a child with this session."""

    child: int
    session: str


class Kill(msgspec.Struct, frozen=True):
    """End the child's process now; its end is told as any other (`Supervisor.has_ended`)."""

    child: int


class Tell(msgspec.Struct, frozen=True):
    """Send the child a command."""

    child: int
    command: bytes


class Fence(msgspec.Struct, frozen=True):
    """Raise the fence in the child's block, wait block.FENCE_S, take back, and say so (`Supervisor.has_fenced`)."""

    child: int
    keep: int = 0


class Watch(msgspec.Struct, frozen=True):
    """Tell the child whether its parent looks for calls with a limit by itself, or wants to be told of the next."""

    child: int
    is_on: bool


class Weigh(msgspec.Struct, frozen=True):
    """Find out how much memory the child uses (`Supervisor.has_weighed`)."""

    child: int


class Send(msgspec.Struct, frozen=True):
    """Send a request over the parent's session."""

    request: Request


class Say(msgspec.Struct, frozen=True):
    """Tell people; a level of `logging` and a sentence."""

    level: int
    text: str


Effect = Start | Kill | Tell | Fence | Watch | Weigh | Send | Say
