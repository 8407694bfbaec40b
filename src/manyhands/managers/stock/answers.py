"""What a standard-library peer sends and is told, before it is bytes and after."""

from __future__ import annotations

from typing import Any, NamedTuple

from manyhands.model import Delivery

RETURN, ERROR, TRACEBACK, UNSERIALIZABLE, PROXY = "#RETURN", "#ERROR", "#TRACEBACK", "#UNSERIALIZABLE", "#PROXY"
"""The kinds of the standard library's replies."""


class Call(NamedTuple):
    """One call of a peer: of an object's method, or (ident None) of the manager itself."""

    ident: str | None
    method: str
    args: tuple[Any, ...]
    kwds: dict[str, Any]
    is_whole: bool
    """Whether the arguments are plain data and here as they were sent; else `codec.Unknown` stands in for the rest."""
    data: bytes | bytearray


class Answer(NamedTuple):
    """A reply as the standard library knows it."""

    kind: str
    value: Any


class Item(NamedTuple):
    """The reply to a get: what this delivery carries, which only the peer decodes."""

    queue: str
    delivery: Delivery


NOTHING = Answer(RETURN, None)
