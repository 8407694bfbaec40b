"""Between a standard-library peer's bytes and its calls and answers: pickle, and xmlrpclib for who asked for it.

A pickle is not unpickled here. What a put carries stays the pickle that the peer made: a few instructions around the whole
call turn it into a pickle of the item alone, which whoever gets it runs,

    operator.getitem(operator.getitem((ident, "put", (item, …), {}), 2), 0)

and a get's answer is the stored pickle with the few bytes of ("#RETURN", …) around it. So classes that only the workers know
pass through the master, and no class of a peer's choosing is ever loaded for a queue (SECURITY.md). The call is looked at
with `codec.stock.glance`, which knows no class.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from struct import pack
from typing import Any, Protocol

from manyhands import codec
from manyhands.codec.stock import glance, pickle_reply, unpickle_call
from manyhands.errors import ManyhandsError, PayloadNotEncodable, ProtocolError, ShutDown, UndecodableBody
from manyhands.managers.stock.answers import ERROR, NOTHING, RETURN, TRACEBACK, UNSERIALIZABLE, Answer, Call

Buffer = bytes | memoryview
Names = Mapping[tuple[str, str], Any]
"""See `codec.stock.unpickle_call`."""
Reduce = Callable[[Any], Any]
"""See `codec.stock.pickle_reply`."""


class Speech(Protocol):
    """One serializer. Without state."""

    def read(self, data: bytes | bytearray) -> Call:
        """A request. Raises ProtocolError: it is none."""
        ...

    def rebuild(self, call: Call, names: Names) -> Call:
        """The same with its objects rebuilt, which runs code of the peer's choosing. Raises UndecodableBody."""
        ...

    def item(self, call: Call) -> tuple[int, bytes]:
        """What a put carries: encoding and body. Raises PayloadNotEncodable, TypeError."""
        ...

    def say(self, answer: Answer, reduce: Reduce | None = None) -> bytes:
        """A reply; one that cannot be written says why instead."""
        ...

    def hand(self, encoding: int, body: bytes) -> list[Buffer]:
        """The reply of a get, in parts. Raises PayloadNotEncodable, UndecodableBody: this peer cannot be told it."""
        ...


def speech_of(data: bytes | bytearray) -> Speech:
    """The serializer of a connection's first request. Raises ProtocolError: none that is known."""
    if data[:1] == _PROTO and len(data) > 2 and data[1] >= 3:  # Python 3's own; an older one names modules differently
        return PICKLE
    if data[:1] == b"<":
        return XML
    raise ProtocolError("The standard-library client's request is neither a pickle of Python 3 nor XML.")


# -- pickle: opcodes as in CPython's pickletools ------------------------------------------------------------------------

_PROTO = b"\x80"
_RETURN = b"\x80\x04\x8c\x07#RETURN"
_ERROR = b"\x80\x04\x8c\x06#ERROR"
_PAIR_END = b"\x86."
_ITEM_HEAD = b"\x80\x04coperator\ngetitem\ncoperator\ngetitem\n"
_ITEM_BY_POSITION, _ITEM_BY_NAME = b"K\x02\x86RK\x00\x86R.", b"K\x03\x86R\x8c\x04item\x86R."

# queue.Empty pickles as _queue.Empty, a name that 3.6 does not have; ShutDown is there from 3.13 on, and which version
# listens is not known: the peer itself looks for it, and raises what its own queues raise where it has none.
_EMPTY, _FULL = _ERROR + b"cqueue\nEmpty\n)R\x86.", _ERROR + b"cqueue\nFull\n)R\x86."
_SHUT_DOWN_OR = (
    _ERROR + b"cbuiltins\ngetattr\n(cimportlib\nimport_module\n\x8c\x05queue\x85R\x8c\x08ShutDowncqueue\n%b\ntR)R\x86."
)
_CONSTANT = {queue.Empty: _EMPTY, queue.Full: _FULL}


class _Pickle:
    def read(self, data: bytes | bytearray) -> Call:
        try:
            found, is_whole = glance(data)
        except UndecodableBody as error:
            raise ProtocolError(f"The standard-library client's request cannot be read: {error}.") from error
        return _call(found, is_whole, data)

    def rebuild(self, call: Call, names: Names) -> Call:
        return call if call.is_whole else _call(unpickle_call(call.data, names), True, call.data)

    def item(self, call: Call) -> tuple[int, bytes]:
        tail = _ITEM_BY_POSITION if call.args else _ITEM_BY_NAME
        return codec.PICKLE, b"".join((_ITEM_HEAD, _inner(call.data), tail))

    def say(self, answer: Answer, reduce: Reduce | None = None) -> bytes:
        kind, value = answer
        if kind == ERROR:
            if type(value) in _CONSTANT and not value.args:
                return _CONSTANT[type(value)]
            if type(value) is ShutDown:
                return _SHUT_DOWN_OR % (b"Full" if value.args[:1] == ("put",) else b"Empty")
            answer = portable(answer)
        elif value is None and kind == RETURN:
            return _DONE
        try:
            return pickle_reply((answer.kind, answer.value), reduce)
        except PayloadNotEncodable as error:
            return pickle_reply((UNSERIALIZABLE, f"{error}\n"))

    def hand(self, encoding: int, body: bytes) -> list[Buffer]:
        if encoding == codec.PICKLE:
            return [_RETURN, _inner(body), _PAIR_END]
        if encoding == codec.RAW_BYTES:
            return [_RETURN, b"\x8e" + pack("<Q", len(body)), body, _PAIR_END]
        raise UndecodableBody(f"the item is in encoding {encoding}, which a standard-library program cannot read")


_DONE = pickle_reply((NOTHING.kind, NOTHING.value))


def _inner(data: bytes | bytearray) -> memoryview:
    """A pickle without its protocol number and its end, to stand inside another: its own memo still starts at nothing."""
    return memoryview(data)[2:-1]


class _Xml:
    """What the standard library calls xmlrpclib: plain data only, and errors as text."""

    def read(self, data: bytes | bytearray) -> Call:
        import xmlrpc.client  # imports http.client and more, for the few who ask for it

        try:
            (found,), _ = xmlrpc.client.loads(bytes(data).decode())
        except Exception as error:  # expat and the marshaller raise many kinds
            raise ProtocolError(f"The standard-library client's XML cannot be read: {error}.") from error
        return _call(found, True, data)

    def rebuild(self, call: Call, names: Names) -> Call:
        return call

    def item(self, call: Call) -> tuple[int, bytes]:
        return codec.encode(call.args[0] if call.args else call.kwds["item"])

    def say(self, answer: Answer, reduce: Reduce | None = None) -> bytes:
        kind, value = answer
        try:
            return _xml((kind, value)) if kind != ERROR else _xml((TRACEBACK, f"{_described(value)}\n"))
        except PayloadNotEncodable as error:
            return _xml((UNSERIALIZABLE, f"{error}\n"))

    def hand(self, encoding: int, body: bytes) -> list[Buffer]:
        return [_xml((RETURN, codec.decode(encoding, body)))]


def _xml(value: Any) -> bytes:
    import xmlrpc.client

    try:
        return xmlrpc.client.dumps((value,), allow_none=True).encode()
    except Exception as error:
        raise PayloadNotEncodable(f"the answer cannot be written as XML ({type(error).__name__}: {error})") from error


PICKLE, XML = _Pickle(), _Xml()


def _call(found: Any, is_whole: bool, data: bytes | bytearray) -> Call:
    if isinstance(found, tuple | list) and len(found) == 4:
        ident, method, args, kwds = found
        if (
            (ident is None or isinstance(ident, str))
            and isinstance(method, str)
            and isinstance(args, tuple | list)
            and isinstance(kwds, dict)
        ):
            return Call(ident, method, tuple(args), kwds, is_whole, data)
    raise ProtocolError("The standard-library client's request is not (ident, method, args, kwds).")


def portable(answer: Answer) -> Answer:
    """An error that the peer can rebuild: one of ours becomes the builtin that it is, with its sentence."""
    error = answer.value
    if not isinstance(error, ManyhandsError):
        return answer
    for kind in type(error).__mro__:
        if kind.__module__ == "builtins" and kind not in (Exception, BaseException):
            return Answer(ERROR, kind(str(error)))
    return Answer(TRACEBACK, f"{_described(error)}\n")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
