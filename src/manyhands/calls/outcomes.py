"""What calls came to, as bytes: their values in one pickle, their failures as data, the seconds that they took.

    head size u32 LE | head, msgpack | pickle of the list of values | buffers that left that pickle

A value that could still change is pickled as soon as its call returned; plain values wait and share a pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from manyhands.calls.failures import Failure, to_exception, to_failure
from manyhands.codec import Bytes, pickles
from manyhands.codec.pickles import PLAIN_TYPES, Pickled
from manyhands.errors import ManyhandsError, PayloadNotEncodable, UndecodableBody

_HEAD_SIZE_BYTES = 4


class _Head(msgspec.Struct, array_like=True, frozen=True):
    times: Sequence[tuple[int, float]] = ()
    """(how many calls, seconds that they took together), in order."""
    blobs: Sequence[int] = ()
    """Whose values are pickles of their own."""
    failures: dict[int, Failure] = {}
    is_setup_failed: bool = False
    is_alone: bool = False
    """Whether the pickle is the one call's value instead of a list."""
    sizes: Sequence[int] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(_Head).decode


class Outcomes:
    """The outcomes of some calls that follow each other, as they are made. Not thread-safe.

    Args:
        is_one: whether there will be one call only; its large buffers leave the pickle then.
    """

    __slots__ = ("_alone", "_is_one", "blobs", "failures", "is_setup_failed", "times", "values")

    def __init__(self, *, is_one: bool = False) -> None:
        self.values: list[Any] = []
        """One for each call that has ended: a plain value, a pickle (see blobs), or None (see failures)."""
        self.blobs: list[int] = []
        self.failures: dict[int, Failure] = {}
        self.times: list[tuple[int, float]] = []
        self.is_setup_failed = False
        self._is_one = is_one
        self._alone: Pickled | None = None

    def __len__(self) -> int:
        """How many calls have ended."""
        return len(self.values)

    def add(self, value: Any) -> None:
        """A call returned this."""
        values = self.values
        if type(value) in PLAIN_TYPES and not (self._is_one and type(value) is bytes):
            values.append(value)
            return
        try:
            pickled = pickles.dump(value, "a result")
        except PayloadNotEncodable as error:
            self.fail(error, is_ours=True)
            return
        if self._is_one:
            self._alone = pickled
            values.append(None)
            return
        data = pickles.dump_whole(value, "a result") if pickled.buffers else pickled.data
        self.blobs.append(len(values))
        values.append(data)

    def fail(self, error: BaseException, *, is_ours: bool = False) -> None:
        """A call raised this, or (is_ours) could not be made, or its value cannot be sent."""
        self.failures[len(self.values)] = to_failure(error, is_ours=is_ours)
        self.values.append(None)

    def took(self, calls: int, seconds: float) -> None:
        """The next calls took so long together; for each call once."""
        self.times.append((calls, seconds))

    @property
    def size_bytes(self) -> int:
        """About how large `encode` would be, at least; what has gathered for long may be sent."""
        values = self.values
        return 16 * len(values) + sum(len(values[index]) for index in self.blobs)

    def encode(self) -> list[Bytes]:
        """The body, in parts, to follow its seal; what was added is forgotten, so that the next calls start anew."""
        alone = self._alone
        sizes = alone.sizes if alone is not None else ()
        data = _encode(_Head(self.times, self.blobs, self.failures, self.is_setup_failed, alone is not None, sizes))
        prefix = len(data).to_bytes(_HEAD_SIZE_BYTES, "little") + data
        if alone is None:
            parts: list[Bytes] = [prefix, pickles.dump_plain(self.values)]
        else:
            parts = pickles.parts_of(prefix, alone, has_seal_before=True)
        self.values, self.blobs, self.failures, self.times = [], [], {}, []
        self.is_setup_failed, self._alone = False, None
        return parts


class Read(msgspec.Struct, frozen=True):
    """Outcomes as their receiver has them: one value for each call, where `failed` has none."""

    values: list[Any]
    failed: dict[int, BaseException]
    """By the call's place: what to raise for it."""
    times: Sequence[tuple[int, float]]
    is_setup_failed: bool


def read(box: list[bytes], start: int = 0) -> Read:
    """Rebuild outcomes. The seal over them was verified.

    Args:
        box: holds the body and is emptied: arrays are then rebuilt in the body's own memory.
        start: where in it the outcomes begin, behind the seal.

    Raises:
        UndecodableBody: these are no outcomes, or of a version that this one does not know. A value that cannot be rebuilt
            raises nothing here: it is among `failed`.
    """
    body = box[0]
    size = int.from_bytes(body[start : start + _HEAD_SIZE_BYTES], "little")
    start += _HEAD_SIZE_BYTES
    try:
        head = _decode_head(memoryview(body)[start : start + size])
    except msgspec.MsgspecError as error:
        raise UndecodableBody(f"this result cannot be read ({error}); install the worker's version") from error
    start += size
    del body
    failed: dict[int, BaseException] = {}
    if head.is_alone:
        memory = pickles.writable(box) if head.sizes else box.pop()
        data, buffers = pickles.split(memory, start, head.sizes)
        try:
            values = [pickles.load(data, buffers)]
        except UndecodableBody as error:
            values, failed = [None], {0: error}
        return Read(values, failed, head.times, head.is_setup_failed)
    values = pickles.load(memoryview(box.pop())[start:])
    for index in head.blobs:
        try:
            values[index] = pickles.load(values[index])
        except ManyhandsError as error:
            values[index], failed[index] = None, error
    for index, failure in head.failures.items():
        failed[index] = to_exception(failure)
    return Read(values, failed, head.times, head.is_setup_failed)
