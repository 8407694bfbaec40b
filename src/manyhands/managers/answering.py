"""What a master answers to requests about objects: opens what is sealed, asks the table, seals the answer.

Nothing is unpickled before its seal was verified, and never in the server's loop: a call's arguments are opened in the
thread that runs the call, a Create's in the thread that runs the callable. The one exception, `quickly`, reads plain data
only and imports and calls nothing that a pickle names.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

from manyhands.codec import PICKLE, Codec, decode, encode
from manyhands.codec.stock import glance
from manyhands.errors import ManyhandsError, PayloadNotEncodable
from manyhands.events import Failed, Invoke, Reply, Returned
from manyhands.managers.objects.holdings import Caller
from manyhands.managers.objects.quick import quick_call
from manyhands.managers.objects.table import ERROR, PROXY, RETURN, TRACEBACK, UNSERIALIZABLE, Made, Objects
from manyhands.model import Message

CALLS = "#objects"
"""The queue's name to which calls and their results are sealed."""
_QUICK_BYTES = 8192
TABLE = ""
"""The ident of the table itself: number_of_objects, debug_info, get_methods."""


class Answering:
    """See the module's text. Called from any thread but the loop's, except `withdraw` and `quickly`."""

    def __init__(self, objects: Objects, codec: Codec) -> None:
        self._objects = objects
        self._codec = codec
        self.withdraw = objects.withdraw
        self.caller_ended = objects.caller_ended

    def create(self, session: str, typeid: str, arguments: Message | None) -> Made:
        """What Create asks for. Raises as `Objects.create`, and where the arguments cannot be opened."""
        args, kwds = ((), {}) if arguments is None else self._codec.open_message(typeid, arguments)
        return self._objects.create(session, typeid, args, kwds)

    def refer(self, session: str, ident: str) -> None:
        self._objects.incref(ident, session)

    def unrefer(self, session: str, ident: str, n: int, *, lingers: bool = False) -> None:
        for _ in range(n):
            self._objects.decref(ident, session, lingers=lingers)

    def end(self, session: str) -> None:
        """The session refers to nothing any more."""
        self._objects.holder_ended(session)

    def invoke(self, session: str, request: Invoke, is_wanted: Callable[[], bool]) -> Reply:
        """Make the call; never raises."""
        rid, message = request.rid, request.call
        try:
            ident, method, args, kwds = self._codec.open_message(CALLS, message)
            if ident == TABLE:
                kind, value = self._ask_table(method, *args)
            else:
                caller: Caller = (session, request.thread)
                served = self._objects.find(ident)
                kind, value = self._objects.call_served(
                    caller, served, method, args, kwds, holder=session, is_wanted=is_wanted
                )
                value = self._as_data(kind, value)
            return self._returned(rid, message.id, kind, value)
        except ManyhandsError as error:
            return Failed(rid, error.code, str(error), error.facts or None)
        except BaseException:  # sys.exit() in the program's own method, say: the caller must hear of it
            return self._returned(rid, message.id, TRACEBACK, traceback.format_exc())

    def quickly(self, request: Invoke) -> Returned | None:
        """Make the call in the server's loop, if it is sure to be short and to run no code of the program's."""
        message = request.call
        if len(message.body) > _QUICK_BYTES:
            return None
        try:
            if self._codec.verify(CALLS, message.id, message.seal, message.body) != PICKLE:
                return None
            whole, is_plain = glance(message.body)
            if not is_plain:
                return None
            ident, method, args, kwds = whole
            served = self._objects.find(ident)
        except (ManyhandsError, TypeError, ValueError):
            return None  # the ordinary way says what is wrong
        if method not in served.exposed or method in served.method_to_typeid:
            return None
        is_made, value = quick_call(served.obj, method, args, kwds)
        return self._returned(request.rid, message.id, RETURN, value) if is_made else None

    def _ask_table(self, method: str, *args: Any) -> tuple[str, Any]:
        match method:
            case "number_of_objects":
                return RETURN, self._objects.number_of_objects()
            case "debug_info":
                return RETURN, self._objects.debug_info()
            case "get_methods":
                return RETURN, self._objects.methods(*args)
        return TRACEBACK, f"the master has no answer to {method!r}\n"

    def _as_data(self, kind: str, value: Any) -> Any:
        if kind == ERROR:
            return value, "".join(traceback.format_exception(value))
        if kind == PROXY:
            exposed, token = value
            return token.typeid, token.id, exposed
        return value

    def _returned(self, rid: int, message_id: str, kind: str, value: Any) -> Returned:
        if kind == ERROR and not _survives(value[0]):
            kind, value = TRACEBACK, value[1]
        try:
            return Returned(rid, kind, self._codec.make_result(CALLS, message_id, value))
        except PayloadNotEncodable as error:
            text = f"{error}\n"
            return Returned(rid, UNSERIALIZABLE, self._codec.make_result(CALLS, message_id, text))


def _survives(error: BaseException) -> bool:
    """Whether an exception can be rebuilt elsewhere; one with arguments of its own often pickles and then does not load."""
    if type(error).__module__ == "builtins":
        return True
    try:
        decode(*encode(error))
    except ManyhandsError:
        return False
    return True
