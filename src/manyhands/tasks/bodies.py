"""The body of a TASK message: which task, with what, and its submitter's limits. msgpack, encoding codec.PLAIN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from manyhands.errors import UndecodableBody

if TYPE_CHECKING:
    from manyhands.tasks.registry import Registry
    from manyhands.tasks.task import Task


class Body(msgspec.Struct, array_like=True, frozen=True):
    """Fields are only ever added at the end, with a default."""

    task: str
    arguments: msgspec.Raw
    """A map of parameters' names to what was given."""
    submitted_at: float = 0.0
    timeout_s: float = 0.0
    """How long one attempt may run; 0 is without limit."""
    max_attempts: int = 1
    backoff_s: float = 0.0
    backoff_cap_s: float = 0.0
    tags: list[str] = []


class TaskCall(NamedTuple):
    """One call of a task, ready to be run: task.__wrapped__(*args, **kwargs)."""

    task: Task[..., Any]
    args: list[Any]
    kwargs: dict[str, Any]
    body: Body


def read_body(body: bytes) -> Body:
    """The body of a verified TASK message, its arguments still closed.

    Raises:
        UndecodableBody: it is none.
    """
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, ValueError) as error:
        raise UndecodableBody(
            f"the message says that it is a task, and its body is none that this version reads ({error}); install the "
            "sender's version"
        ) from error


def open_body(body: bytes, registry: Registry, *, may_import: bool = False) -> TaskCall:
    """The registered task and its arguments, rebuilt.

    Args:
        may_import: whether a task that is not registered is looked for by importing the module that its name begins with;
            a worker that runs registered tasks only must not.

    Raises:
        UnknownTask: it is not known here. The message is parked (SettleKind.PARK) with the error's `need` as reason.
        WrongArguments: they do not fit the task as it is here. That is an error outcome; nothing was run.
        UsageError: its type hints cannot be used; likewise.
        UndecodableBody: it is no task's body; likewise.
    """
    read = read_body(body)
    task = registry.find(read.task, may_import=may_import)
    args, kwargs = task.arguments.unpack(read.arguments)
    return TaskCall(task, args, kwargs, read)


_decoder = msgspec.msgpack.Decoder(Body)
