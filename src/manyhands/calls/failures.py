"""Exceptions as data: what a call raised, for a receiver that may not know its class."""

from __future__ import annotations

import traceback
from typing import Any

import msgspec

from manyhands.codec import pickles
from manyhands.errors import ManyhandsError, RemoteTraceback, TaskFailed, from_code

_TEXT_CHARS = 16_384
_TRACE_CHARS = 131_072
_SAID_CHARS = 1_000


class Failure(msgspec.Struct, array_like=True, frozen=True):
    """How a call failed."""

    module: str
    name: str
    """The exception's class, as its module calls it."""
    text: str
    trace: str
    """The traceback, as text."""
    pickled: bytes = b""
    """The exception itself; b"" when it cannot be pickled."""
    code: str = ""
    """One of errors.from_code's, when it is no exception of the user's function but ours."""


def to_failure(error: BaseException, *, is_ours: bool = False) -> Failure:
    """An exception as data. Never raises: whatever the exception's own methods do, what is known of it is kept.

    Args:
        is_ours: whether it is this package's word on the call and no exception of its function: it travels by its code.
    """
    kind = type(error)
    try:
        text = str(error)
    except Exception:
        text = "(its text could not be made)"
    try:
        trace = "".join(traceback.format_exception(kind, error, _without_ours(error)))
    except Exception:
        trace = f"{kind.__qualname__}: {text}\n"
    pickled = b"" if is_ours else _pickled(error)
    code = error.code if is_ours and isinstance(error, ManyhandsError) else ""
    return Failure(kind.__module__, kind.__qualname__, text[:_TEXT_CHARS], trace[-_TRACE_CHARS:], pickled, code)


def to_exception(failure: Failure) -> BaseException:
    """The exception to raise where the call was made, with the remote traceback as its cause.

    Its own class only where this process has or can import it by its name; else TaskFailed, which says what it was.
    """
    error: BaseException | None = None
    if failure.code == pickles.CallNotEncodable.code:
        error = pickles.CallNotEncodable(failure.text)
    elif failure.code:
        error = from_code(failure.code, failure.text)
    elif failure.pickled and pickles.is_importable(failure.module, failure.name):
        try:
            found = pickles.load(failure.pickled)
        except ManyhandsError:
            found = None
        if isinstance(found, BaseException):
            error = found
    if error is None:
        name = failure.name if failure.module == "builtins" else f"{failure.module}.{failure.name}"
        error = TaskFailed(
            f"{name}: {failure.text[:_SAID_CHARS]}",
            error_type=name,
            error_text=failure.text,
            traceback=failure.trace,
        )
    error.__cause__ = RemoteTraceback(f'\n"""\n{failure.trace}"""')
    return error


def _pickled(error: BaseException) -> bytes:
    try:
        found = pickles.dump(error, "an exception")
    except Exception:
        return b""
    return b"" if found.buffers else found.data


def _without_ours(error: BaseException) -> Any:
    """The traceback without the frames of the loop that ran the function."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith("manyhands.calls"):
        trace = trace.tb_next
    return trace
