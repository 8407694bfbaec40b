"""What lies in the writer's inbox, and what can be told of a batch that came to nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from manyhands.engines.base import Sink
from manyhands.errors import EngineError, EngineUnavailable
from manyhands.events import Attach, Put, Reply, Request, Settle
from manyhands.model import SettleKind, Settlement


class Listener(Protocol):
    """A port, as the writer sees it."""

    session: str
    attach: Attach
    sink: Sink
    is_over: bool
    """It ended, or another port has its session."""


@dataclass
class Attaching:
    """Somebody waits in `attach`; one of the two is called, once."""

    listener: Listener
    answer: Callable[[bool, list[int]], None]
    """Whether the session was resumed, and which of the tokens that it holds are lost."""
    refuse: Callable[[EngineError], None]


@dataclass
class Detaching:
    listener: Listener
    goodbye: bool


@dataclass
class Stopping:
    reason: str


Item = tuple[Listener, Sequence[Request]] | Attaching | Detaching | Stopping


@dataclass
class Batch:
    """One turn's share of the inbox, and what came of it so far."""

    items: Sequence[Item]
    effects: list[tuple[str, Reply]] = field(default_factory=list)
    attached: list[tuple[Attaching, bool, list[int]]] = field(default_factory=list)
    is_committed: bool = False


def rids(requests: Sequence[Request]) -> list[int]:
    return [rid for request in requests if (rid := getattr(request, "rid", 0))]


def given_back(token: int, reason: str) -> Settle:
    return Settle(0, 0, 0, [Settlement(token, SettleKind.NACK, reason=reason)])


def causes_of(items: Sequence[Item]) -> dict[str, list[int]]:
    """By session, the leases under which this batch's puts were made."""
    causes: dict[str, list[int]] = {}
    for item in items:
        if type(item) is tuple:
            for request in item[1]:
                if isinstance(request, Put) and request.causes:
                    causes.setdefault(item[0].session, []).extend(request.causes)
    return causes


def as_engine_error(error: Exception) -> EngineError:
    if isinstance(error, EngineError):
        return error
    return EngineUnavailable(
        f"The store could not apply this batch ({error!r}); nothing of it was stored. Please report this."
    )
