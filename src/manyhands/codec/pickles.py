"""Pickles of calls: what a program's functions are given and what they return, to workers that do not share its main module.

Three things that a queue's items do without. What is defined in `__main__`, in a function or in a notebook is sent by value
(cloudpickle), because a worker's main module is another. Large buffers (numpy arrays) leave the pickle and come back as
views of the memory in which the body arrived: no copy but the one that puts the body together. And what cannot change is
not pickled alone: the plain values of many calls share one pickle, which costs a tenth.
"""

from __future__ import annotations

import functools
import io
import pickle
import sys
from collections import ChainMap
from collections.abc import Sequence
from types import BuiltinFunctionType, CodeType, FunctionType
from typing import Any, ClassVar, NamedTuple

from manyhands.codec.items import Bytes, type_name, why_undecodable
from manyhands.codec.sealing import LARGE_SEAL_BYTES, POLY1305_FROM_BYTES
from manyhands.errors import PayloadNotEncodable, UndecodableBody, UndecodableCall

PLAIN_TYPES = frozenset([int, float, bool, complex, type(None), str, bytes])
"""Immutable and always picklable: such a value may be pickled later, and together with others."""
APART_BYTES = POLY1305_FROM_BYTES
"""From this size a buffer leaves the pickle, and a call shares no message. A body with buffers has a large seal."""
_ALIGNED = 64
"""Buffers begin at multiples of this, as numpy's own do."""
_PROTOCOL = 5
_LARGE_BYTES = (bytes, bytearray)


class CallNotEncodable(PayloadNotEncodable, pickle.PicklingError):
    """A call's argument or result cannot be pickled."""

    code = "call_not_encodable"


class Pickled(NamedTuple):
    """One object, taken apart."""

    chunks: Sequence[Bytes]
    """The pickle."""
    buffers: Sequence[memoryview]
    """What left it."""
    is_by_value: bool
    """Whether it holds code, which only the same minor version of Python can run."""

    @property
    def sizes(self) -> Sequence[int]:
        """What `split` needs to know."""
        return (sum(map(len, self.chunks)), *(buffer.nbytes for buffer in self.buffers)) if self.buffers else ()

    @property
    def data(self) -> bytes:
        """The pickle in one piece."""
        return b"".join(self.chunks)


def dump(value: Any, what: str = "an argument or result") -> Pickled:
    """Pickle what a call is given or returns.

    Args:
        what: names it in the sentence.

    Raises:
        PayloadNotEncodable: it cannot be pickled, not even by cloudpickle.
    """
    buffers: list[memoryview] = []

    def apart(buffer: pickle.PickleBuffer) -> bool:
        """Whether it stays in the pickle."""
        try:
            raw = buffer.raw()
        except BufferError:  # not contiguous
            return True
        if raw.nbytes < APART_BYTES:
            return True
        buffers.append(raw)
        return False

    chunks: Sequence[Bytes]
    try:
        if _holds_large_bytes(value):
            chunks = _in_chunks(value, apart)
        else:
            chunks = (pickle.dumps(value, _PROTOCOL, buffer_callback=apart),)
        if not _names_main(chunks, value):
            return Pickled(chunks, buffers, False)
    except Exception:  # a __reduce__ may raise anything; cloudpickle may know more, and else says why
        pass
    buffers.clear()
    return Pickled((_by_value(value, what, apart),), buffers, True)


def dump_plain(value: Any) -> bytes:
    """Pickle a list of plain values; cannot fail."""
    return pickle.dumps(value, _PROTOCOL)


def dump_whole(value: Any, what: str) -> bytes:
    """Pickle something with its buffers in it, by value where its name leads nowhere.

    Raises:
        PayloadNotEncodable: as `dump`.
    """
    return _by_value(value, what, None)


def load(data: Bytes, buffers: Sequence[Bytes] | None = None) -> Any:
    """Rebuild what `dump` took apart. The seal over it was verified.

    Raises:
        UndecodableCall: its class or module is not known here, or its own code failed while it was rebuilt.
    """
    try:
        return pickle.loads(data, buffers=buffers)  # noqa: S301 - the seal was verified: whoever made it holds the key
    except (Exception, SystemExit) as error:
        raise UndecodableCall(why_undecodable(error)) from error


def parts_of(prefix: bytes, pickled: Pickled, *, has_seal_before: bool = False) -> list[Bytes]:
    """A body in parts: the prefix, the pickle, and each buffer at a multiple of 64 in the memory where it will arrive."""
    parts: list[Bytes] = [prefix, *pickled.chunks]
    at = sum(map(len, parts)) + (LARGE_SEAL_BYTES if has_seal_before else 0)
    for buffer in pickled.buffers:
        start = -(-at // _ALIGNED) * _ALIGNED
        parts += (bytes(start - at), buffer)
        at = start + buffer.nbytes
    return parts


def split(body: Bytes, start: int, sizes: Sequence[int]) -> tuple[Bytes, list[Bytes] | None]:
    """The pickle and the buffers of a body that `parts_of` took apart.

    Args:
        start: the size of the prefix.
        sizes: of the pickle and of each buffer, in bytes; empty: the pickle is all there is.

    Returns:
        Views, so writable if the body is.

    Raises:
        UndecodableBody: the sizes are not those of this body.
    """
    view = memoryview(body)
    if not sizes:
        return view[start:], None
    at = start + sizes[0]
    data: Bytes = view[start:at]
    buffers: list[Bytes] = []
    for size in sizes[1:]:
        at = -(-at // _ALIGNED) * _ALIGNED
        buffers.append(view[at : at + size])
        at += size
    if at != len(view) or min(sizes) < 0:
        raise UndecodableBody(f"the body has {len(view)} bytes where its head names {at}; install the sender's version")
    return data, buffers


def writable(box: list[bytes]) -> Bytes:
    """The bytes in the box, which is emptied, as memory that may be written to: copied only if somebody else has them too.

    Arrays that were rebuilt in place are then as writable as those that were sent.
    """
    return io.BytesIO(box.pop()).getbuffer()


# -- functions ---------------------------------------------------------------------------------------------------------


def reference_to(function: Any) -> str:
    """The name under which any process finds the function, "module:qualname"; "" if it has to be sent by value."""
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module in ("__main__", "__mp_main__"):
        return ""
    if not isinstance(function, (FunctionType, BuiltinFunctionType, type)):
        return ""
    found = _walk(sys.modules.get(module), name)
    return f"{module}:{name}" if found is function else ""


def find(reference: str) -> Any:
    """The function behind a `reference_to`.

    Raises:
        UndecodableCall: there is none here.
    """
    module, _, name = reference.partition(":")
    try:
        __import__(module)
        found = sys.modules[module]
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:
        raise UndecodableCall(why_undecodable(error)) from error
    return found


def is_importable(module: str, name: str) -> bool:
    """Whether this process knows, or can import, a class of that name."""
    try:
        __import__(module)
    except Exception:
        return False
    return isinstance(_walk(sys.modules.get(module), name), type)


def _walk(found: Any, name: str) -> Any:
    for part in name.split("."):
        found = getattr(found, part, None)
    return found


# -- the two picklers ----------------------------------------------------------------------------------------------------


@functools.cache
def _by_value_pickler() -> Any:
    import cloudpickle  # 20 ms that programs whose functions live in modules do without

    reduce_code = cloudpickle.Pickler.dispatch_table[CodeType]

    def reduce_code_with_its_file(code: CodeType) -> Any:
        # cloudpickle leaves the file's name out; with it, a remote traceback shows the lines of the function.
        rebuild, args = reduce_code(code)
        return rebuild, tuple(code.co_filename if one == "<dynamic-code>" else one for one in args)

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        dispatch_table: ClassVar[Any] = ChainMap({CodeType: reduce_code_with_its_file}, cloudpickle.Pickler.dispatch_table)

    return ByValue


def _by_value(value: Any, what: str, apart: Any) -> bytes:
    file = io.BytesIO()
    try:
        _by_value_pickler()(file, _PROTOCOL, buffer_callback=apart).dump(value)
    except Exception as error:  # a __reduce__ may raise anything
        raise CallNotEncodable(
            f"{what} of type {type_name(value)} cannot be sent, because it cannot be pickled "
            f"({type(error).__name__}: {error}); pass plain data, or open what cannot travel (files, locks, connections) "
            "inside the function"
        ) from error
    return file.getvalue()


def _names_main(chunks: Sequence[Bytes], value: Any) -> bool:
    """Whether a pickle refers to something that only this process's main module has. A text may look like it: no harm."""
    # The main module is called __main__, or __mp_main__ in multiprocessing's children.
    return any(b"_main__" in chunk for chunk in chunks if len(chunk) < APART_BYTES or not _is_large(chunk, value))


def _is_large(chunk: Bytes, value: Any) -> bool:
    """Whether a chunk is one of the caller's own large objects, which the pickler passed through."""
    return chunk is value or (type(value) is tuple and any(_is_large(chunk, one) for one in value))


def _holds_large_bytes(value: Any) -> bool:
    kind = type(value)
    if kind is tuple:
        return any(map(_holds_large_bytes, value))
    return kind in _LARGE_BYTES and len(value) >= APART_BYTES


class _Chunks:
    """A file that keeps what is written. The C pickler writes a large bytes object itself, so that it is not copied."""

    def __init__(self) -> None:
        self.chunks: list[Bytes] = []

    def write(self, data: Bytes) -> None:
        self.chunks.append(data)


def _in_chunks(value: Any, apart: Any) -> list[Bytes]:
    file = _Chunks()
    pickle.Pickler(file, _PROTOCOL, buffer_callback=apart).dump(value)
    return file.chunks
