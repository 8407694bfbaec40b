"""Items and results as bodies: what `put` encodes and `get` gives back, once the seal was verified."""

from __future__ import annotations

import logging
import pickle
from typing import Any

from manyhands.errors import PayloadNotEncodable, PayloadTooLarge, UndecodableBody
from manyhands.model import MAX_BODY_BYTES

_log = logging.getLogger(__name__)

PICKLE, RAW_BYTES, PLAIN, PICKLED_CALLS, PLAIN_CALLS = 0, 1, 2, 3, 4
"""Encodings: a pickle; the very bytes that were put; msgpack of plain data (a task); calls, or what they came to (calls/);
several calls of a task, or what they came to that shared a message."""

Bytes = bytes | bytearray | memoryview


def encode(item: Any) -> tuple[int, bytes]:
    """Encode an item; returns its encoding and its body.

    Raises:
        PayloadNotEncodable: it cannot be pickled; the sentence names the type.
    """
    if type(item) is bytes:
        return RAW_BYTES, item
    try:
        return PICKLE, pickle.dumps(item, 5)
    except Exception as error:  # a __reduce__ may raise anything
        try:
            return PICKLE, _pickled_as_for_a_child(item, 5)
        except Exception:
            _log.debug("multiprocessing cannot pickle it either", exc_info=True)
        raise PayloadNotEncodable(
            f"an object of type {type_name(item)} cannot be put on a queue, because it cannot be pickled "
            f"({type(error).__name__}: {error}); put plain data, or an object whose class is defined at the top level of a "
            f"module that both sides can import"
        ) from error


def _pickled_as_for_a_child(item: Any, protocol: int) -> bytes:
    """multiprocessing can send more than pickle can: views of a dict, connections, sockets."""
    from multiprocessing.reduction import ForkingPickler  # 5 ms that few need

    return bytes(ForkingPickler.dumps(item, protocol))


def decode(encoding: int, body: bytes | bytearray) -> Any:
    """The object behind a body whose seal was verified.

    Raises:
        UndecodableBody: its class or module is not known here, or its own code failed while it was rebuilt.
    """
    if encoding == PICKLE:
        try:
            return pickle.loads(body)  # noqa: S301 - the seal was verified: whoever made it holds the key
        except Exception as error:
            raise UndecodableBody(why_undecodable(error)) from error
    if encoding == RAW_BYTES:
        return body
    raise UndecodableBody(
        f"the body is in encoding {encoding}, which this version does not know; install the sender's version"
    )


def check_size(body: bytes, limit_bytes: int = MAX_BODY_BYTES) -> None:
    """Refuse a body over the engine's limit.

    Raises:
        PayloadTooLarge: with both sizes.
    """
    if len(body) > limit_bytes:
        raise PayloadTooLarge(
            f"the encoded item has {len(body):,} bytes and max_body_bytes is {limit_bytes:,}, so nothing was sent; "
            "put the data in a file or object store that both sides reach and send its path",
            size_bytes=len(body),
            limit_bytes=limit_bytes,
        )


def type_name(item: Any) -> str:
    """What an object is, for the sentence that says that it cannot be sent."""
    kind = type(item)
    name = getattr(item, "__qualname__", None)
    shown = f"{kind.__module__}.{kind.__qualname__}" if kind.__module__ != "builtins" else kind.__qualname__
    return f"{shown} ({name})" if isinstance(name, str) else shown


def why_undecodable(error: BaseException) -> str:
    """Why an object could not be rebuilt here, and what to do, by what rebuilding it raised."""
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, ModuleNotFoundError):
        return (
            f"the item needs the module {error.name!r}, which cannot be imported here ({text}); "
            "install or copy that module to this machine as well"
        )
    if isinstance(error, AttributeError) and "__main__" in str(error):
        return (
            f"the item's class was defined in the sender's main program, which this process does not share ({text}); "
            "move the class to a module that both programs import"
        )
    if isinstance(error, (AttributeError, ImportError)):
        return (
            f"the item's class is not known here ({text}); both programs need the same version of the module that defines it"
        )
    return f"the item was received whole, but rebuilding it failed here ({text}); check the class's own pickling code"
