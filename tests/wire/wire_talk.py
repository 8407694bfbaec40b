"""Helpers of the wire's tests: bytes carried by hand between two ends, and strategies for every event."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import strategies as st

from manyhands.auth import Keyring
from manyhands.events import Attach, Attached, Reply, Request
from manyhands.model import Durability, Features, Limits
from manyhands.wire import ClientWire, ServerWire

KEY = Keyring("a key that both sides have")
RANDOM, NONCE = bytes(range(40)), bytes(range(100, 132))
ATTACHED = Attached("memory", Durability("process", "lost with the process"), Features(), Limits(), is_resumed=True)

TO_SERVER_KINDS: list[type] = [*typing.get_args(Request), Attach]
TO_CLIENT_KINDS: list[type] = [*typing.get_args(Reply), Attached]


def pour(end: Any, data: bytes, *now: float) -> list[Any]:
    """Give an end these bytes, as many at once as it takes."""
    events: list[Any] = []
    view = memoryview(data)
    while view:
        room = end.get_buffer()
        n = min(len(room), len(view))
        room[:n] = view[:n]
        events += end.received(n, *now) if hasattr(end, "received") else end.buffer_updated(n)
        view = view[n:]
    return events


def joined(buffers: Iterable[Any]) -> bytes:
    return b"".join(bytes(buffer) for buffer in buffers)


def all_of(client: ClientWire) -> bytes:
    """Everything that the client has to send now."""
    out = b""
    while portion := client.data_to_send():
        out += joined(portion)
    return out


def new_server(keyring: Keyring = KEY, random: bytes = RANDOM, **more: Any) -> ServerWire:
    return ServerWire(keyring=keyring, random=random, **more)


def new_client(keyring: Keyring = KEY) -> ClientWire:
    return ClientWire(keyring=keyring, session="s" * 24, attach_name="test", where="127.0.0.1:5959")


def connect(client: ClientWire, server: ServerWire, now: float = 0.0) -> list[Any]:
    """Carry the handshake to its end; what the server then heard (Attach first)."""
    client.connection_made(now, NONCE)
    pour(client, server.greeting(), now)
    (authenticated,) = pour(server, all_of(client))
    pour(client, authenticated.reply, now)
    return pour(server, all_of(client))


def attach(client: ClientWire, server: ServerWire, attached: Attached = ATTACHED, now: float = 0.0) -> list[Any]:
    """As connect, and answer the Attach; what the client's sink gets."""
    connect(client, server, now)
    return pour(client, joined(server.encode([attached])), now)


def any_event(kinds: list[type], max_body: int = 300) -> st.SearchStrategy[Any]:
    return st.one_of([any_struct(kind, max_body) for kind in kinds])


def any_struct(kind: type, max_body: int = 300) -> st.SearchStrategy[Any]:
    """A strategy for a struct, from its own type hints: an event that is added later is covered without a change here."""
    hints = typing.get_type_hints(kind)
    return st.builds(kind, **{name: _any(hints[name], max_body) for name in kind.__struct_fields__})  # type: ignore[attr-defined]


def _any(hint: Any, max_body: int) -> st.SearchStrategy[Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return st.one_of([_any(argument, max_body) for argument in arguments])
    if origin is list:
        return st.lists(_any(arguments[0], max_body), max_size=4)
    if origin is tuple:  # of any length, all of one kind
        return st.lists(_any(arguments[0], max_body), max_size=4).map(tuple)
    if origin is dict:
        return st.dictionaries(_any(arguments[0], max_body), _any(arguments[1], max_body), max_size=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return any_struct(hint, max_body)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        str: st.text(max_size=20),
        int: st.integers(0, 2**63 - 1),
        float: st.floats(allow_nan=False),
        bool: st.booleans(),
        bytes: st.binary(max_size=max_body),
        type(None): st.none(),
        Any: st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5),
    }
    return simple[hint]
