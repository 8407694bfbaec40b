"""What a message is, for people and their scripts: read without importing, unpickling or building anything that it names."""

from __future__ import annotations

from typing import Any

import msgspec

from manyhands._text import readable
from manyhands.calls.bodies import HEAD_SIZE_BYTES, Head
from manyhands.errors import UndecodableBody
from manyhands.model import Kind, Message
from manyhands.tasks.bodies import arguments_of, read_body
from manyhands.tasks.plain import unpack_exactly

SHOWN_CHARS = 100


class Shown(msgspec.Struct, frozen=True):
    """A call as it can be shown. Whatever is not known is empty."""

    name: str
    """The task's, or the function's as module:qualname."""
    arguments: dict[str, Any] | None = None
    """By the parameters' names, as plain data; None where only unpickling would tell, and of several calls together."""
    tags: list[str] = []
    submitted_at: float = 0.0
    calls: int = 1
    """How many calls of it share the message."""

    def __str__(self) -> str:
        """As one would write it, cut where it grows long."""
        if self.arguments is None:
            several = f", {self.calls} calls" if self.calls > 1 else ""
            return readable(f"{self.name}(…){several}", SHOWN_CHARS)
        said = ", ".join(f"{name}={_short(value)}" for name, value in self.arguments.items())
        return readable(f"{self.name}({said})", SHOWN_CHARS)


def shown(message: Message) -> Shown | None:
    """What a call or task is; None for an item, and for what cannot be read here."""
    try:
        if message.kind == Kind.TASK:
            body = read_body(message.body)
            options = message.options
            if options is not None and options.calls > 1:
                return Shown(body.task, None, list(body.tags), body.submitted_at, options.calls)
            arguments = unpack_exactly(arguments_of(body, options.part if options is not None else -1))
            if not isinstance(arguments, dict):
                return None
            return Shown(body.task, arguments, list(body.tags), body.submitted_at)
        if message.kind == Kind.CALL:
            size = int.from_bytes(message.body[:HEAD_SIZE_BYTES], "little")
            head = _head.decode(message.body[HEAD_SIZE_BYTES : HEAD_SIZE_BYTES + size])
            calls = max(1, message.options.calls) if message.options is not None else 1
            return Shown(head.function or "a function that was sent by value", calls=calls)
    except (UndecodableBody, msgspec.MsgspecError, ValueError, TypeError, RecursionError):
        return None  # another version's, or garbage: its bytes are shown instead
    return None


def _short(value: Any) -> str:
    # A slice first: the repr of a large text or list would be made whole only to be cut.
    if isinstance(value, (str, bytes, list)) and len(value) > SHOWN_CHARS:
        value = value[:SHOWN_CHARS]
    return repr(value)


_head = msgspec.msgpack.Decoder(Head)
