"""The body of a CALL message: one function and what each call gives it.

    head size u32 LE | head, msgpack | pickle of the list of arguments | buffers that left that pickle

Calls of one message share the function, the limits and the initializer, so the head is the same for thousands of messages:
both ends keep what they made of it. Each call's arguments are pickled when it is submitted, so that what cannot be pickled
fails there, and what the caller changes later does not matter; plain values, which nobody can change, wait as they are and
share the pickle of their message.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import call as operator_call
from types import FunctionType
from typing import Any, NamedTuple

import msgspec

from manyhands.codec import pickles
from manyhands.codec.pickles import PLAIN_TYPES, Pickled

HEAD_SIZE_BYTES = 4
PACK_BYTES = 64 * 1024
"""A message with several calls grows to about this size."""

_ITEM_BYTES = 16
"""What a call takes in a body beside its texts and bytes, about."""

STARRED, SINGLE = 0, 1
"""What an argument in the list is: fn(*arguments), or, for map over one iterable, fn(argument)."""


class Setup(msgspec.Struct, array_like=True, frozen=True):
    """What a child runs once before the first call of an executor."""

    executor: str
    """The executor's id: a child runs its initializer once."""
    code: bytes
    """The pickled (initializer, initargs)."""


def to_setup(executor: str, initializer: Callable[..., object], initargs: tuple[Any, ...]) -> Setup:
    """An executor's initializer as it travels with each of its messages.

    Raises:
        PayloadNotEncodable: it or its arguments cannot be pickled.
    """
    return Setup(executor, pickles.dump_whole((initializer, initargs), "an initializer"))


class Head(msgspec.Struct, array_like=True, frozen=True):
    """What all calls of one body share."""

    function: str
    """"module:qualname"; "" when it was sent by value."""
    code: bytes = b""
    """The pickled function, where it was sent by value."""
    python: str = ""
    """The only minor version of Python ("3.11") that can run it, since code was sent by value; "" for any."""
    shape: int = STARRED
    timeout_s: float = 0.0
    """How long one call may run; 0 is for ever."""
    setup: Setup | None = None
    is_alone: bool = False
    """Whether the pickle is one call's (args, kwargs) instead of a list."""
    sizes: Sequence[int] = ()
    """Of the pickle and of each buffer, in bytes; none: the pickle is all there is."""


Argument = tuple[Any, ...] | bytes | Pickled
"""One call's arguments, ready to be sent: a tuple of plain values; the pickled (args, kwargs); or what is too large to share
a message, which must be put into a body before its caller can change it."""


def argument(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Argument:
    """A call's arguments as they are from now on.

    Raises:
        PayloadNotEncodable: they cannot be pickled.
    """
    if not kwargs:
        for one in args:
            kind = type(one)
            if kind not in PLAIN_TYPES or ((kind is str or kind is bytes) and len(one) > pickles.APART_BYTES):
                break
        else:
            return args
    pickled = pickles.dump((args, dict(kwargs)), "an argument")
    if pickled.is_by_value or pickled.buffers or len(pickled.chunks) > 1 or len(pickled.chunks[0]) > pickles.APART_BYTES:
        return pickled
    return pickled.chunks[0]  # type: ignore[return-value]


def size_bytes(argument: tuple[Any, ...] | bytes) -> int:
    """About how much an argument takes in a body."""
    if type(argument) is bytes:
        return len(argument) + _ITEM_BYTES
    return _ITEM_BYTES + sum(len(one) if isinstance(one, (str, bytes)) else _ITEM_BYTES for one in argument)


def single_arguments(items: list[Any]) -> list[Any] | None:
    """The items as the arguments of fn(item), if all are plain and small; None: give each to `argument` as (item,)."""
    kinds = set(map(type, items))
    if not kinds <= PLAIN_TYPES:
        return None
    has_texts = str in kinds or bytes in kinds
    if has_texts and sum(len(one) for one in items if isinstance(one, (str, bytes))) > PACK_BYTES:
        return None
    return items


class Function(NamedTuple):
    """What stands in a head for a callable, and what has to go before the caller's arguments."""

    head: Head
    before: tuple[Any, ...] = ()


def to_function(function: Any, python: str, *, timeout_s: float = 0.0, setup: Setup | None = None) -> Function:
    """How a callable is sent.

    By reference where the worker can import it; a function of the main program, a lambda or a closure by value. Other
    callables (methods, partials, objects) are arguments of `operator.call`, because they may change from call to call.

    Args:
        python: this interpreter's minor version, "3.11".

    Raises:
        PayloadNotEncodable: it cannot be pickled.
    """
    reference = pickles.reference_to(function)
    if reference:
        return Function(Head(reference, timeout_s=timeout_s, setup=setup))
    if isinstance(function, (FunctionType, type)):
        pickled = pickles.dump(function, "a function")
        return Function(Head("", pickled.data, python if pickled.is_by_value else "", timeout_s=timeout_s, setup=setup))
    return Function(Head(_CALL, timeout_s=timeout_s, setup=setup), (function,))


_CALL = pickles.reference_to(operator_call)


class Prefix:
    """A head as bytes, made once."""

    __slots__ = ("_by_shape", "head")

    def __init__(self, head: Head) -> None:
        self.head = head
        self._by_shape = tuple(_prefixed(msgspec.structs.replace(head, shape=shape)) for shape in (STARRED, SINGLE))

    def encode(self, arguments: Sequence[tuple[Any, ...] | bytes], shape: int = STARRED) -> bytes:
        """The body of a message with these calls; for shape SINGLE what `single_arguments` gave."""
        return self._by_shape[shape] + pickles.dump_plain(arguments)

    def encode_alone(self, pickled: Pickled, python: str) -> bytes:
        """The body of the one call whose arguments share no message.

        Args:
            python: as `to_function`.
        """
        head = msgspec.structs.replace(
            self.head,
            is_alone=True,
            python=python if pickled.is_by_value else self.head.python,
            sizes=pickled.sizes,
        )
        return b"".join(pickles.parts_of(_prefixed(head), pickled))


def _prefixed(head: Head) -> bytes:
    data = msgspec.msgpack.encode(head)
    return len(data).to_bytes(HEAD_SIZE_BYTES, "little") + data
