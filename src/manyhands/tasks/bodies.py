"""The body of a TASK message: which task, with what, and its submitter's limits. msgpack, encoding codec.PLAIN.

Several calls of one task may share a message (a pack, model.Options.calls), in encoding codec.PLAIN_CALLS: then `arguments`
is a list with each call's, and what else the body says holds for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from manyhands.errors import UndecodableBody

if TYPE_CHECKING:
    from manyhands.tasks.registry import Registry
    from manyhands.tasks.task import Task


PACK_BYTES = 4096
"""A pack grows to about this size. Each call that leaves it becomes a message of its own with the whole body, which a
durable queue then keeps for it."""


class Body(msgspec.Struct, array_like=True, frozen=True):
    """Fields are only ever added at the end, with a default."""

    task: str
    arguments: msgspec.Raw
    """A map of parameters' names to what was given; of a pack, a list of such maps."""
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


class TaskPack(NamedTuple):
    """The calls of a pack, their arguments still closed: one of them that does not fit is that call's error."""

    task: Task[..., Any]
    calls: list[msgspec.Raw]
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


def join_arguments(packed: Sequence[bytes]) -> msgspec.Raw:
    """The `arguments` of a pack."""
    return msgspec.Raw(msgspec.msgpack.encode([msgspec.Raw(one) for one in packed]))


def split_arguments(arguments: msgspec.Raw) -> list[msgspec.Raw]:
    """The arguments of each call of a pack.

    Raises:
        UndecodableBody: it is none.
    """
    try:
        return _list_decoder.decode(arguments)
    except msgspec.DecodeError as error:
        raise UndecodableBody(
            f"the message says that several calls of a task share it, and its body is not like that ({error}); install the "
            "sender's version"
        ) from error


def open_pack(body: bytes, registry: Registry, *, may_import: bool = False) -> TaskPack:
    """The registered task and the calls of a pack; see `open_body`."""
    read = read_body(body)
    return TaskPack(registry.find(read.task, may_import=may_import), split_arguments(read.arguments), read)


def open_body(body: bytes, registry: Registry, *, part: int = -1, may_import: bool = False) -> TaskCall:
    """The registered task and its arguments, rebuilt.

    Args:
        part: of a pack: which call; -1: it is none.
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
    args, kwargs = task.arguments.unpack(arguments_of(read, part))
    return TaskCall(task, args, kwargs, read)


def arguments_of(body: Body, part: int) -> msgspec.Raw:
    """The arguments of a task, or of one call of a pack.

    Raises:
        UndecodableBody: there is no such call.
    """
    if part < 0:
        return body.arguments
    calls = split_arguments(body.arguments)
    if part >= len(calls):
        raise UndecodableBody(f"the message says that it is call {part} of a pack with {len(calls)}")
    return calls[part]


_decoder = msgspec.msgpack.Decoder(Body)
_list_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
