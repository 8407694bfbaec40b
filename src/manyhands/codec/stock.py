"""What standard-library peers send and read: whole calls as one pickle, (ident, method, args, kwds), and their answers.

Only a process that serves a manager reads any, and only after both sides have shown the key (SECURITY.md).
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Mapping
from typing import Any

from manyhands.codec.items import why_undecodable
from manyhands.errors import PayloadNotEncodable, UndecodableBody


class _Unknown(type):
    """The type of what stands in for everything that a pickle names. Whatever is done with it gives it again."""

    def __call__(cls, *_: Any, **__: Any) -> Any:
        return cls

    def __setitem__(cls, key: Any, value: Any) -> None:
        pass

    def append(cls, item: Any) -> None:
        pass

    extend = add = __setstate__ = append


class Unknown(metaclass=_Unknown):
    """Stands in for each class, function and object of a class in what `glance` returns."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return cls


class _Glance(pickle.Unpickler):
    is_whole = True

    def find_class(self, module: str, name: str, /) -> Any:
        self.is_whole = False
        return Unknown


def glance(data: bytes | bytearray) -> tuple[Any, bool]:
    """Read a pickle without importing, calling or building anything that it names.

    Returns:
        The value, with `Unknown` in the place of each object that is no plain data; and whether there was none, so that the
        value is the very one that unpickling would give.

    Raises:
        UndecodableBody: it is not one whole pickle.
    """
    file = io.BytesIO(data)
    reader = _Glance(file)
    try:
        value = reader.load()
    except Exception as error:  # whatever the bytes make the reader do
        raise UndecodableBody(f"it is not one whole pickle ({type(error).__name__}: {error})") from error
    if file.tell() != len(data):
        raise UndecodableBody("bytes follow behind its pickle")
    return value, reader.is_whole


class _Rebuilding(pickle.Unpickler):
    names: Mapping[tuple[str, str], Any]

    def find_class(self, module: str, name: str, /) -> Any:
        found = self.names.get((module, name))
        return super().find_class(module, name) if found is None else found


def unpickle_call(data: bytes | bytearray, names: Mapping[tuple[str, str], Any]) -> Any:
    """Rebuild the objects of a standard-library peer's call. It runs whatever code the pickle names.

    Args:
        names: what to take for some of the (module, name)s in it, instead of what this process has there.

    Raises:
        UndecodableBody: as `decode`.
    """
    reader = _Rebuilding(io.BytesIO(data))
    reader.names = names
    try:
        return reader.load()
    except Exception as error:
        raise UndecodableBody(why_undecodable(error)) from error


class _Replying(pickle.Pickler):
    reduce: Callable[[Any], Any] | None

    def reducer_override(self, obj: Any) -> Any:
        return NotImplemented if self.reduce is None else self.reduce(obj)


def pickle_reply(value: tuple[str, Any], reduce: Callable[[Any], Any] | None = None) -> bytes:
    """Pickle a reply in protocol 4, which every standard-library peer from 3.4 on reads.

    With multiprocessing's own reducers, which know a few types more (a dict's views become lists).

    Args:
        reduce: as `pickle.Pickler.reducer_override`.

    Raises:
        PayloadNotEncodable: it cannot be pickled.
    """
    if type(value[1]) in (int, bool, str, bytes):
        return pickle.dumps(value, 4)
    from multiprocessing.reduction import ForkingPickler  # 5 ms that only masters need

    file = io.BytesIO()
    writer = _Replying(file, 4)
    writer.dispatch_table = ForkingPickler(file, 4).dispatch_table
    writer.reduce = reduce
    try:
        writer.dump(value)
    except Exception as error:  # a __reduce__ may raise anything
        raise PayloadNotEncodable(f"the answer cannot be pickled ({type(error).__name__}: {error})") from error
    return file.getvalue()
