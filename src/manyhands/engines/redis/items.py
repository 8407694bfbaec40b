"""What the writer's thread is handed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from manyhands.events import Request

if TYPE_CHECKING:
    from manyhands.engines.redis.port import RedisPort


class Attaching(NamedTuple):
    """Open or resume this port's session."""

    port: RedisPort


class Stopping(NamedTuple):
    """The engine is closed."""

    reason: str


class Broken(NamedTuple):
    """The listener's connection ended."""

    listener: object


class News(NamedTuple):
    """What another program's step brought about for sessions of this one, to be confirmed first."""

    payload: bytes


class Detaching(NamedTuple):
    """This port's session ends, with a goodbye for good or as if its connection had been cut."""

    port: RedisPort
    goodbye: bool


Asking = tuple["RedisPort", Sequence[Request]]
"""A port and its requests; a bare tuple, because there is one for every send."""
Special = Detaching | Attaching | Stopping | Broken | News
Item = Asking | Special
