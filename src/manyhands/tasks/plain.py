"""Plain data: what a task's arguments and results may be, and how they stay what they are on the way.

A task's body is msgpack, so that a worker which takes tasks only never unpickles. Where a type hint says what a value is,
msgspec writes it in msgpack's own words and builds it again by the hint: dataclasses, Structs, datetimes, UUIDs, Decimals,
enums, sets, tuples and whatever they contain. Where no hint does, msgpack alone would turn a tuple into a list and a date
into a text without a word, so what it has no word for travels in an extension of ours, and arrives as what it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePath
from typing import Any
from uuid import UUID

import msgspec
from msgspec.msgpack import Ext

from manyhands.errors import PayloadNotEncodable

UNHINTED: tuple[Any, ...] = (Any, object, msgspec.Raw)
"""Hints that say nothing."""

_BUILTINS = frozenset({type(None), bool, int, float, str, bytes})
_LARGEST_INT, _SMALLEST_INT = 2**64 - 1, -(2**63)
_TUPLE, _SET, _FROZENSET, _INT, _DICT = 1, 2, 3, 4, 5
_BY_TEXT: dict[type, int] = {datetime: 16, date: 17, time: 18, timedelta: 19, UUID: 20, Decimal: 21, bytearray: 22}
_TEXT_CODES = {code: kind for kind, code in _BY_TEXT.items()}


# -- values with a hint --------------------------------------------------------------------------------------------


def _to_plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return str(value)
    raise NotImplementedError(f"an object of type {type_name(type(value))} is no plain data")


def _from_plain(kind: type, value: Any) -> Any:
    if isinstance(value, kind):
        return value
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    raise NotImplementedError(f"{type_name(kind)} cannot be built from plain data")


_encoder = msgspec.msgpack.Encoder(enc_hook=_to_plain)


def pack(value: Any) -> bytes:
    """Write what hints will rebuild.

    Raises:
        PayloadNotEncodable: something in it is no plain data; the sentence names its type.
    """
    try:
        return _encoder.encode(value)
    except RecursionError:
        raise PayloadNotEncodable("it contains itself, or is nested too deeply") from None
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise PayloadNotEncodable(_sentence(error)) from error


def unpacker(hint: Any) -> msgspec.msgpack.Decoder[Any]:
    """What rebuilds values by a hint.

    Raises:
        TypeError: plain data cannot be told apart by this hint (a union of two dataclasses, for example).
    """
    return msgspec.msgpack.Decoder(hint, dec_hook=_from_plain, ext_hook=_from_ext)


def _sentence(error: Exception) -> str:
    text = str(error)
    return text[:1].lower() + text[1:] if text.startswith(("Encoding", "Only")) else text


# -- values without ------------------------------------------------------------------------------------------------


def exactly(value: Any) -> Any:
    """The same value in msgpack's own words and our extensions.

    Raises:
        PayloadNotEncodable: something in it is no plain data, or needs a type hint to be built again.
    """
    kind = type(value)
    if kind in _BUILTINS:
        if kind is int and not _SMALLEST_INT <= value <= _LARGEST_INT:
            return Ext(_INT, b"%x" % value)
        return value
    if kind is list:
        return [exactly(each) for each in value]
    if kind is dict:
        if any(type(key) is not str for key in value):
            return _nested(_DICT, [exactly(each) for pair in value.items() for each in pair])
        return {key: exactly(each) for key, each in value.items()}
    if kind is tuple:
        return _nested(_TUPLE, [exactly(each) for each in value])
    if kind is set or kind is frozenset:
        return _nested(_SET if kind is set else _FROZENSET, [exactly(each) for each in value])
    if kind is bytearray:
        return Ext(_BY_TEXT[kind], bytes(value))
    if (code := _BY_TEXT.get(kind)) is not None:
        return Ext(code, msgspec.to_builtins(value, str_keys=False).encode())
    raise PayloadNotEncodable(
        f"an object of type {type_name(kind)} is no plain data that can be rebuilt without a type hint"
    )


def _nested(code: int, values: list[Any]) -> Ext:
    return Ext(code, _encoder.encode(values))


def _from_ext(code: int, data: memoryview) -> Any:
    content = bytes(data)
    if code == _TUPLE:
        return tuple(_any.decode(content))
    if code == _SET:
        return set(_any.decode(content))
    if code == _FROZENSET:
        return frozenset(_any.decode(content))
    if code == _INT:
        return int(content, 16)
    if code == _DICT:
        flat = _any.decode(content)
        return dict(zip(flat[::2], flat[1::2], strict=True))
    kind = _TEXT_CODES.get(code)
    if kind is bytearray:
        return bytearray(content)
    if kind is not None:
        return msgspec.convert(content.decode(), kind)
    raise ValueError(f"extension {code} is none of this version's")


_any = msgspec.msgpack.Decoder(ext_hook=_from_ext)


def pack_exactly(value: Any) -> bytes:
    """Write what arrives as it was, without a hint.

    Raises:
        PayloadNotEncodable: see `exactly`.
    """
    try:
        return _encoder.encode(exactly(value))
    except RecursionError:
        raise PayloadNotEncodable("it contains itself, or is nested too deeply") from None


unpack_exactly: Callable[[bytes | memoryview], Any] = _any.decode
"""Read what `pack_exactly` wrote."""


# -- what was given and what would arrive --------------------------------------------------------------------------


def difference(given: Any, arrived: Any, where: str = "") -> str:
    """How the rebuilt value differs from the one that was given, as part of a sentence; "" if it does not.

    A tuple may arrive as a list and a list as a tuple, for a hint such as Sequence takes both.
    """
    if isinstance(given, (list, tuple)) and isinstance(arrived, (list, tuple)):
        return _first(difference(*pair, f"{where}[{index}]") for index, pair in enumerate(zip(given, arrived, strict=True)))
    if isinstance(given, (int, float)) and isinstance(arrived, float) and type(given) is not bool:
        return "" if given == arrived or given != given else _told(given, arrived, where)
    if type(given) is not type(arrived):
        return _told(given, arrived, where)
    if given == arrived:
        return ""
    if isinstance(given, dict):
        return _first(difference(given[key], arrived.get(key), f"{where}[{key!r}]") for key in given)
    if isinstance(given, msgspec.Struct):
        names: tuple[str, ...] = given.__struct_fields__
    elif is_dataclass(given):
        names = tuple(each.name for each in fields(given))
    else:
        return _told(given, arrived, where)
    return _first(difference(getattr(given, name), getattr(arrived, name), f"{where}.{name}") for name in names)


def _first(found: Any) -> str:
    return next(filter(None, found), "")


def _told(given: Any, arrived: Any, where: str) -> str:
    at = f" at {where}" if where else ""
    if type(given) is type(arrived):
        return f"the {type_name(type(given))}{at} would not arrive as it is"
    return f"the {type_name(type(given))}{at} would arrive as {type_name(type(arrived))}"


def type_name(kind: Any) -> str:
    """A type for people."""
    if not isinstance(kind, type):
        return str(kind)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
