"""What a program and the owner of its space tell each other over core NATS, which delivers at most once: pure.

```
   ┌────────────┬─────────────┬─────────┬───────────
   │ link   u64 │ number  u32 │ kind u8 │ payload …        one NATS message
   └────────────┴─────────────┴─────────┴───────────
```
A link is one program's talk with one owner, named by a random number. Each side numbers its messages from 1; a number that
is not the next one means that something was lost, and then the link is given up: the program greets the owner anew, its
sessions attach with the tokens that they hold and send again what has no answer, as after a broken connection. A PULSE
carries the number of the last message that was sent and, as its payload, that of the last one that came, so that a loss at
the end is seen as well.

A message carries lists of events, each behind the number of the attach that they belong to; what is too long for one
message of NATS goes in several, marked MORE. An empty list means that this attach is over: cut, or taken over by another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar

import msgspec

from manyhands.events import Attach, Attached, Reply, Request
from manyhands.model import Limits
from manyhands.wire.frames import NOT_ENCODABLE

HEAD = Struct("!QIB")
_COUNT = Struct("!I")
DATA, MORE, PULSE, LOST, LEAVE = range(5)
"""LOST: there is no such link here (any more). LEAVE: the owner is none from now on."""

E = TypeVar("E")
Said = Sequence[tuple[int, Sequence[E]]]

_encode = msgspec.msgpack.Encoder().encode
_decode_any = msgspec.msgpack.Decoder().decode


class Unreadable(NamedTuple):
    """In the place of an event with values that it cannot have."""

    rid: int
    text: str


class Vocabulary(Generic[E]):
    """What one direction may say."""

    def __init__(self, whole: msgspec.msgpack.Decoder[list[tuple[int, list[E]]]], one: msgspec.msgpack.Decoder[E]) -> None:
        self.decode = whole.decode
        self._decode_one = one.decode
        self._decode_raw = msgspec.msgpack.Decoder(list[tuple[int, list[msgspec.Raw]]]).decode

    def decode_what_can_be(self, payload: bytes) -> list[tuple[int, list[Any]]]:
        """The same, one event after the other, with `Unreadable` in the place of what is none."""
        return [(key, [self._one(raw) for raw in events]) for key, events in self._decode_raw(payload)]

    def _one(self, raw: msgspec.Raw) -> E | Unreadable:
        try:
            return self._decode_one(raw)
        except msgspec.MsgspecError as error:
            fields = _decode_any(raw)
            rid = fields[1] if isinstance(fields, list) and len(fields) > 1 and type(fields[1]) is int else 0
            return Unreadable(rid, f"a request has wrong values: {error!s:.200}")


FROM_PROGRAM: Vocabulary[Request | Attach] = Vocabulary(
    msgspec.msgpack.Decoder(list[tuple[int, list[Request | Attach]]]), msgspec.msgpack.Decoder(Request | Attach)
)
FROM_OWNER: Vocabulary[Reply | Attached] = Vocabulary(
    msgspec.msgpack.Decoder(list[tuple[int, list[Reply | Attached]]]), msgspec.msgpack.Decoder(Reply | Attached)
)


def is_sayable(event: Any) -> bool:
    """Whether msgpack has a form for all its values."""
    try:
        _encode(event)
    except NOT_ENCODABLE:
        return False
    return True


class Hello(msgspec.Struct, array_like=True, frozen=True):
    """A program looks for the owner."""

    program: str
    link: int


class Welcome(msgspec.Struct, array_like=True, frozen=True):
    """The owner's answer. With no term: somebody is about to become the owner, ask again."""

    owner: str = ""
    term: int = 0
    limits: Limits | None = None


class Claimed(msgspec.Struct, array_like=True, frozen=True):
    """Somebody became the owner: whoever was it in an earlier term is it no more."""

    owner: str
    term: int


class Gap(Exception):
    """Something was lost on the way: the link is over."""


class Outgoing:
    """One direction's sending end."""

    def __init__(self, link: int, most_bytes: int) -> None:
        self.link = link
        self.sent = 0
        self._most_bytes = most_bytes - HEAD.size

    def messages(self, said: Said[Any]) -> Iterator[bytes]:
        """The messages that say it."""
        payload = _encode(said)
        if len(payload) <= self._most_bytes:
            self.sent += 1
            yield HEAD.pack(self.link, self.sent, DATA) + payload
            return
        view = memoryview(payload)
        for start in range(0, len(view), self._most_bytes):
            self.sent += 1
            is_last = start + self._most_bytes >= len(view)
            yield HEAD.pack(self.link, self.sent, DATA if is_last else MORE) + view[start : start + self._most_bytes]

    def pulse(self, received: int) -> bytes:
        """I live, and have sent and received so much."""
        return HEAD.pack(self.link, self.sent, PULSE) + _COUNT.pack(received)


def notice(link: int, kind: int) -> bytes:
    """A message that is only its kind."""
    return HEAD.pack(link, 0, kind)


class Incoming(Generic[E]):
    """One direction's receiving end."""

    def __init__(self, vocabulary: Vocabulary[E]) -> None:
        self.received = 0
        self.peer_received = 0
        """Of what was sent the other way, as far as the other side has said."""
        self._vocabulary = vocabulary
        self._parts: list[bytes] = []

    def take(self, number: int, kind: int, payload: bytes) -> list[tuple[int, list[E]]]:
        """What a message of this link says, once it is whole.

        Raises:
            Gap: a message before it did not arrive, or this one cannot be read.
        """
        if kind == PULSE:
            if number != self.received:
                raise Gap(f"{number} messages were sent and {self.received} came")
            (self.peer_received,) = _COUNT.unpack(payload)
            return []
        if number != self.received + 1:
            raise Gap(f"message {number} came after {self.received}")
        self.received = number
        if kind == MORE:
            self._parts.append(payload)
            return []
        if self._parts:
            self._parts.append(payload)
            payload = b"".join(self._parts)
            self._parts = []
        try:
            return self._vocabulary.decode(payload)
        except msgspec.MsgspecError:
            pass
        try:
            return self._vocabulary.decode_what_can_be(payload)
        except msgspec.MsgspecError as error:
            raise Gap(f"a message could not be read: {error}") from error
