"""A CALL message in the process that runs it: from a verified body to calls that can be run one after another.

A loader keeps what it made of heads, so that the thousandth message of a function costs a dictionary look-up. The loop over
calls is the hottest one there is (a no-op call of a map takes 0.1 µs in it), so it has no clock, no lock and no call of its
own: who runs it measures ranges of calls and chooses how long they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from manyhands.calls.bodies import HEAD_SIZE_BYTES, SINGLE, Head, Setup
from manyhands.calls.outcomes import Outcomes
from manyhands.codec import PICKLED_CALLS, Bytes, Codec, pickles
from manyhands.codec.pickles import PLAIN_TYPES
from manyhands.errors import ManyhandsError, UndecodableBody
from manyhands.model import Message

_KEPT_HEADS = 256
_decode_head = msgspec.msgpack.Decoder(Head).decode

Function = Callable[..., Any]


def sealed_id(message: Message) -> str:
    """The id that a message's seal was made for: a part of a split pack has the pack's seal."""
    options = message.options
    if options is not None and options.part >= 0:
        return message.id.rpartition(".")[0]
    return message.id


def encode_result(codec: Codec, queue: str, result_id: str, kind: int, outcomes: Outcomes) -> bytes:
    """The outcomes as a Settlement's or Report's result: sealed, for `model.result_id` of what they cover."""
    return codec.sealed(queue, result_id, PICKLED_CALLS, outcomes.encode(), kind)


class Calls:
    """The calls of one message. Built by a `Loader`."""

    __slots__ = ("_arguments", "_function", "_is_alone", "_is_single", "n", "needs", "setup", "timeout_s", "trouble")

    def __init__(
        self,
        head: Head,
        function: Function | None,
        arguments: Sequence[Any],
        trouble: ManyhandsError | None = None,
        needs: str = "",
    ) -> None:
        self.n = len(arguments)
        self.timeout_s = head.timeout_s
        """How long one call may run; 0 is for ever."""
        self.setup = head.setup
        """What has to be run once in this process before any of them (`run_setup`)."""
        self.needs = needs
        """What is missing here to run them ("python:3.12"): the message is to be parked, with this as the reason."""
        self.trouble = trouble
        """Why none of them can be run here; `run` then fails them all."""
        self._function = function
        self._arguments = arguments
        self._is_single = head.shape == SINGLE
        self._is_alone = head.is_alone

    def run(self, first: int, end: int, into: Outcomes) -> None:
        """Run the calls first … end - 1 and add their outcomes. Whatever they raise becomes an outcome.

        An exception that is raised in this thread from outside (KeyboardInterrupt) counts as the running call's own.
        """
        function, arguments = self._function, self._arguments
        if self.trouble is not None or function is None:
            for _ in range(first, end):
                into.fail(self.trouble or UndecodableBody("the call names no function"), is_ours=True)
            return
        values = into.values
        append, add = values.append, into.add
        start = len(values) - first
        pending = arguments if end - first == self.n else arguments[first:end]
        while True:
            try:
                if self._is_single:
                    for one in pending:
                        value = function(one)
                        if type(value) in PLAIN_TYPES:
                            append(value)
                        else:
                            add(value)
                elif self._is_alone:
                    args, kwargs = arguments[0]
                    add(function(*args, **kwargs))
                else:
                    for one in pending:
                        if type(one) is tuple:
                            value = function(*one)
                        else:
                            args, kwargs = _rebuilt(one)
                            value = function(*args, **kwargs)
                        if type(value) in PLAIN_TYPES:
                            append(value)
                        else:
                            add(value)
                return
            except _Trouble as trouble:
                into.fail(trouble.error, is_ours=True)
            except BaseException as error:  # SystemExit too: it ends the call, not the worker
                into.fail(error)
            done = len(values) - start
            if done >= end:
                return
            pending = arguments[done:end]


class _Known(NamedTuple):
    """What a head was made into."""

    head: Head
    function: Function | None
    trouble: ManyhandsError | None


class Loader:
    """Makes `Calls` of messages; one for each process that runs calls. Not thread-safe.

    Args:
        python: this interpreter's minor version, "3.11".
    """

    def __init__(self, codec: Codec, python: str) -> None:
        self._codec = codec
        self._python = python
        self._known: dict[bytes, _Known] = {}

    def load(self, queue: str, box: list[Message]) -> Calls:
        """Verify a message and take it apart; its function is imported or rebuilt, its arguments are rebuilt.

        What cannot be rebuilt raises nothing: it fails the calls (`Calls.trouble`).

        Args:
            queue: the engine's queue that it came from.
            box: holds the message and is emptied; large arrays are copied if somebody else has it too.

        Raises:
            SealBroken: its signature does not fit; nothing was decoded.
            UndecodableBody: it is no call, or of a version that this one does not know.
        """
        message = box.pop()
        body = message.body
        encoding = self._codec.verify(queue, sealed_id(message), message.seal, body, message.kind)
        if encoding != PICKLED_CALLS:
            raise UndecodableBody(
                f"message {message.id} is in encoding {encoding} and not a call; install its sender's version"
            )
        size = HEAD_SIZE_BYTES + int.from_bytes(body[:HEAD_SIZE_BYTES], "little")
        prefix = body[:size]
        known = self._known.get(prefix) or self._know(prefix)
        head = known.head
        if head.python and head.python != self._python:
            return Calls(head, None, [None] * _n_of(message), needs=f"python:{head.python}")
        data: Bytes
        if not head.sizes:
            data, buffers = memoryview(body)[size:], None
        else:
            bodies = [body]
            del message, body
            data, buffers = pickles.split(pickles.writable(bodies), size, head.sizes)
        try:
            arguments = pickles.load(data, buffers)
        except UndecodableBody as error:  # one call's own, since those that share a pickle are plain
            return Calls(head, None, [None], error)
        return Calls(head, known.function, [arguments] if head.is_alone else arguments, known.trouble)

    def _know(self, prefix: bytes) -> _Known:
        try:
            head = _decode_head(memoryview(prefix)[HEAD_SIZE_BYTES:])
        except msgspec.MsgspecError as error:
            raise UndecodableBody(f"this call cannot be read ({error}); install its sender's version") from error
        if head.python and head.python != self._python:
            return _Known(head, None, None)
        try:
            function = pickles.find(head.function) if head.function else pickles.load(head.code)
        except UndecodableBody as error:
            return _Known(head, None, error)  # not kept: the module may be there the next time
        if not callable(function):
            return _Known(head, None, UndecodableBody(f"{head.function} is not a function here"))
        known = _Known(head, function, None)
        if not head.sizes:
            if len(self._known) >= _KEPT_HEADS:
                self._known.clear()
            self._known[prefix] = known
        return known


def _n_of(message: Message) -> int:
    return max(1, message.options.calls) if message.options is not None else 1


def run_setup(setup: Setup) -> None:
    """Run an executor's initializer. Raises whatever it raises, or UndecodableBody."""
    initializer, initargs = pickles.load(setup.code)
    initializer(*initargs)


class _Trouble(Exception):
    def __init__(self, error: ManyhandsError) -> None:
        self.error = error


def _rebuilt(data: bytes) -> Any:
    try:
        return pickles.load(data)
    except UndecodableBody as error:
        raise _Trouble(error) from error
