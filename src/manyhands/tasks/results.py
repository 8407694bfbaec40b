"""The outcome of a task as plain data: what it returned, or the error that it ended with. msgpack, encoding codec.PLAIN;
several together, of calls that shared a message, in encoding codec.PLAIN_CALLS.

An error travels as data. Only a class that the receiver has already imported is built again, from plain arguments; anything
else is a TaskFailed with the original's name, text and traceback.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from manyhands.errors import ManyhandsError, PayloadNotEncodable, RemoteTraceback, TaskFailed, UndecodableBody, from_code
from manyhands.tasks.plain import difference, pack, pack_exactly, type_name, unpack_exactly
from manyhands.tasks.policy import describe
from manyhands.tasks.registry import REGISTRY

if TYPE_CHECKING:
    from manyhands.tasks.task import Task

_TRACE_CHARS = 131_072

EXACT, HINTED, RAISED = 0, 1, 2
"""What an outcome holds: a value that needs no hint, one that the task's return hint rebuilds, or an error."""


class Outcome(msgspec.Struct, array_like=True, frozen=True):
    """Fields are only ever added at the end, with a default."""

    kind: int
    content: msgspec.Raw
    seconds: float = 0.0
    """How long the attempt ran."""
    task: str = ""
    """Whose return hint rebuilds a HINTED value."""


class _Outcomes(msgspec.Struct, array_like=True, frozen=True):
    """What the calls of a pack came to that follow each other. Fields are only ever added at the end, with a default."""

    times: list[tuple[int, float]]
    """(how many calls, seconds that they took together), in order."""
    outcomes: list[Outcome]


class Raised(msgspec.Struct, array_like=True, frozen=True):
    """An error as data."""

    type: str
    """module:qualname"""
    text: str
    traceback: str
    args: bytes | None = None
    """Its arguments, packed exactly, where they are plain data."""
    code: str = ""
    """Of an error of ours."""
    facts: bytes | None = None


def pack_value(task: Task[..., Any], value: Any, seconds: float) -> bytes:
    """The outcome of an attempt that returned.

    What does not fit the task's return hint is sent as it is: the work is done, and a wrong hint is no reason to lose it.

    Raises:
        PayloadNotEncodable: it is no plain data. That is the call's error then: the same again would do the same again.
    """
    rebuild = task.arguments.rebuild
    if rebuild is not None:
        try:
            content = pack(value)
            rebuilt = rebuild(content)
            if (rebuilt == value and type(rebuilt) is type(value)) or not difference(value, rebuilt):
                return _pack(HINTED, content, seconds, task.name)
        except (PayloadNotEncodable, msgspec.MsgspecError, TypeError, ValueError, NotImplementedError):
            pass  # it is not what the hint says
    try:
        return _pack(EXACT, pack_exactly(value), seconds)
    except PayloadNotEncodable as error:
        raise PayloadNotEncodable(
            f"Task {task.name} returned an object of type {type_name(type(value))}, which cannot be sent: {error}. A task "
            "returns plain data: builtin values, and by its return hint dataclasses, Structs, datetimes, enums and so on.",
            task=task.name,
        ) from error


def pack_error(error: BaseException, seconds: float, *, trace: str | None = None) -> bytes:
    """The outcome of a call that ended with an error.

    Args:
        trace: its traceback as text; None formats the error's own.
    """
    if trace is None:
        trace = _traceback(error)
    kind = type(error)
    raised = Raised(
        f"{kind.__module__}:{kind.__qualname__}",
        _text(error),
        trace,
        _plain(_arguments(error)),
        error.code if isinstance(error, ManyhandsError) else "",
        _plain(error.facts) if isinstance(error, ManyhandsError) else None,
    )
    return _pack(RAISED, msgspec.msgpack.encode(raised), seconds)


def read_outcome(body: bytes | memoryview, task: Task[..., Any] | None = None) -> tuple[Any, BaseException | None, float]:
    """(value, error, seconds) of a verified outcome: the value where the error is None.

    Args:
        task: whose return hint rebuilds the value; None: the registered one of that name. Without any it stays builtin data.

    Raises:
        UndecodableBody: it is none that this version reads.
    """
    try:
        outcome = _outcome_decoder.decode(body)
        return (*_outcome_of(outcome, task), outcome.seconds)
    except (msgspec.MsgspecError, ValueError, NotImplementedError) as error:
        raise _not_readable(error) from error


def pack_outcomes(times: list[tuple[int, float]], outcomes: Sequence[bytes]) -> bytes:
    """The outcomes of calls of a pack that follow each other, each as pack_value or pack_error made it.

    Args:
        times: (how many calls, seconds that they took together), in order.
    """
    return msgspec.msgpack.encode((times, [msgspec.Raw(one) for one in outcomes]))


def read_outcomes(
    body: bytes | memoryview, task: Task[..., Any] | None = None
) -> tuple[list[Any], dict[int, BaseException], list[tuple[int, float]]]:
    """(values, errors by the call's place, times) of what `pack_outcomes` made and was verified; see `read_outcome`."""
    values: list[Any] = []
    failed: dict[int, BaseException] = {}
    try:
        read = _outcomes_decoder.decode(body)
        for outcome in read.outcomes:
            value, error = _outcome_of(outcome, task)
            if error is not None:
                failed[len(values)] = error
            values.append(value)
    except (msgspec.MsgspecError, ValueError, NotImplementedError) as error:
        raise _not_readable(error) from error
    return values, failed, read.times


def _outcome_of(outcome: Outcome, task: Task[..., Any] | None) -> tuple[Any, BaseException | None]:
    if outcome.kind == RAISED:
        return None, _rebuild(_raised_decoder.decode(outcome.content))
    if outcome.kind == HINTED:
        task = task or REGISTRY.get(outcome.task)
    rebuild = task.arguments.rebuild if task is not None and outcome.kind == HINTED else None
    return (rebuild or unpack_exactly)(outcome.content), None


def _not_readable(error: Exception) -> UndecodableBody:
    return UndecodableBody(
        f"the task's result was received whole, but does not fit what this program expects ({error}); run the same "
        "version of the task's module on both sides"
    )


def _pack(kind: int, content: bytes, seconds: float, task: str = "") -> bytes:
    return msgspec.msgpack.encode(Outcome(kind, msgspec.Raw(content), seconds, task))


def _arguments(error: BaseException) -> list[Any]:
    """What its class is called with to make it again; an OSError's args alone lack the file's name."""
    try:
        reduced: Any = error.__reduce__()
    except Exception:  # the user's own
        return list(error.args)
    return list(reduced[1] if isinstance(reduced, tuple) and reduced[0] is type(error) else error.args)


def _plain(value: Any) -> bytes | None:
    try:
        return pack_exactly(value)
    except PayloadNotEncodable:
        return None


def _text(error: BaseException) -> str:
    try:
        text = str(error)
        text.encode()
    except Exception:  # the user's own __str__, or half a surrogate pair
        return describe(error)
    return text


def _traceback(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception:  # an error whose own parts cannot be shown
        text = describe(error)
    return text[-_TRACE_CHARS:].encode("utf-8", "backslashreplace").decode()


def _rebuild(raised: Raised) -> BaseException:
    error = _of_ours(raised) or _of_theirs(raised)
    if error is None:
        name = raised.type.removeprefix("builtins:").replace(":", ".")
        error = TaskFailed(f"{name}: {raised.text}", error_type=name, error_text=raised.text, traceback=raised.traceback)
    error.__cause__ = RemoteTraceback(f'\n"""\n{raised.traceback}"""')
    return error


def _of_ours(raised: Raised) -> BaseException | None:
    if not raised.code:
        return None
    facts = unpack_exactly(raised.facts) if raised.facts is not None else {}
    return from_code(raised.code, raised.text, facts)


def _of_theirs(raised: Raised) -> BaseException | None:
    """The error itself, where its class is one that this program already has."""
    if raised.args is None:
        return None
    module, _, name = raised.type.partition(":")
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    # Exceptions only: a worker's SystemExit must not end the program that waits for a result.
    if not (isinstance(found, type) and issubclass(found, Exception)):
        return None
    try:
        error = found(*unpack_exactly(raised.args))
    except Exception:  # its __init__ takes something else
        return None
    return error if isinstance(error, found) else None


_outcomes_decoder = msgspec.msgpack.Decoder(_Outcomes)
_outcome_decoder = msgspec.msgpack.Decoder(Outcome)
_raised_decoder = msgspec.msgpack.Decoder(Raised)
