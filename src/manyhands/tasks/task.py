"""One task: a function that is known by name, and its options."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Generic, ParamSpec, Self, TypeVar

import msgspec

from manyhands.codec import PLAIN, Codec, check_size
from manyhands.errors import UsageError
from manyhands.model import CALLS, MAX_BODY_BYTES, Kind, Message, Options
from manyhands.tasks.arguments import Arguments
from manyhands.tasks.bodies import Body, join_arguments
from manyhands.tasks.options import TaskOptions, checked

P = ParamSpec("P")
R = TypeVar("R")
MAIN = ("__main__", "__mp_main__")
LEAST_KEPT_S = 1.0
"""What keeps no result at all would be dropped with the program that submitted it (Limits.orphan_s); a task outlives it."""


class Task(Generic[P, R]):
    """A function and its options. Calling it runs it here.

    Args:
        name: under which workers know it; module:qualname unless it is given.

    Raises:
        UsageError: the options or the name cannot be meant.
    """

    __wrapped__: Callable[P, R]

    def __init__(self, function: Callable[P, R], options: TaskOptions, name: str = "") -> None:
        if not hasattr(function, "__qualname__") or not callable(function):
            raise UsageError(
                f"A task is a function, which has a name of its own, not {function!r}; write @mh.task above a def."
            )
        functools.update_wrapper(self, function)
        self.__qualname__: str = function.__qualname__  # how a pickle of the task finds it again
        self.name = name or f"{function.__module__}:{function.__qualname__}"
        if not self.name.isprintable():
            raise UsageError(f"A task's name is printable text, not {name!r}.")
        self.settings = checked(options)
        self.is_async = inspect.iscoroutinefunction(function)
        """Whether calling it gives a coroutine, which the runner awaits."""
        self._arguments: Arguments | None = None

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.name} of queue {self.settings.queue!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        if self.__module__ in MAIN:  # an Executor sends it by value, as it does with such a function
            return type(self), (self.__wrapped__, self.settings, self.name)
        return self.__qualname__  # as a function's: its module has it under that name

    @property
    def arguments(self) -> Arguments:
        """What its type hints say; looked at when it is first used, for hints may name what stands below it.

        Raises:
            UsageError: they cannot be used.
        """
        if self._arguments is None:
            self._arguments = Arguments(self.name, self.__wrapped__)
        return self._arguments

    @property
    def calls_queue(self) -> str:
        """The engine's queue in which its calls wait."""
        return self.settings.queue + CALLS

    def options(self, **changes: Any) -> Self:
        """The same task with other options, for one call or some: send.options(delay_s=60).submit(…).

        Raises:
            UsageError: there is no such option, or it cannot be meant.
        """
        other = self.__class__.__new__(self.__class__)
        other.__dict__.update(self.__dict__)
        other.settings = checked(changed(self.settings, changes))
        return other

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """A call's arguments as they travel.

        Raises:
            WrongArguments, PayloadNotEncodable: see Arguments.pack.
            UsageError: workers could not find it, for it stands in the main program.
        """
        module = self.name.partition(":")[0]
        if module in MAIN:
            raise UsageError(
                f"Task {self.name} was defined in the main program, where no worker can find it; move it to a module that "
                f'both import, or give it a name that workers find: @mh.task(name="app:{self.__qualname__}") in app.py, and '
                "manyhands worker --import app."
            )
        return self.arguments.pack(args, kwargs)

    @property
    def keep_result_s(self) -> float:
        """For how many seconds its results are kept."""
        return max(self.settings.keep_result_s, LEAST_KEPT_S)

    @property
    def shares_messages(self) -> bool:
        """Whether its calls may share messages: none of its options says something of one call's message."""
        said = self.settings
        return not (
            self.is_async  # an event loop takes them one by one
            or said.deliveries() == 1
            or said.delay_s
            or said.expires_s
            or said.eta is not None
            or said.dedupe_key is not None
        )

    def make_body(self, packed: Sequence[bytes], now: float) -> bytes:
        """The body of a message with one call, or with several that share it.

        Args:
            packed: the arguments of each, as `pack` made them.
            now: UTC seconds.
        """
        said = self.settings
        return msgspec.msgpack.encode(
            Body(
                self.name,
                msgspec.Raw(packed[0]) if len(packed) == 1 else join_arguments(packed),
                submitted_at=now,
                timeout_s=said.timeout_s,
                max_attempts=said.max_attempts,
                backoff_s=said.backoff_s,
                backoff_cap_s=said.backoff_cap_s,
                tags=list(said.tags),
            )
        )

    def make_message(
        self,
        codec: Codec,
        message_id: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        now: float,
        reply_to: str = "",
        limit_bytes: int = MAX_BODY_BYTES,
    ) -> Message:
        """A call of this task, checked and sealed, for the queue `calls_queue`.

        Args:
            message_id: its id, unless a dedupe_key makes one: the message says which it is.
            now: UTC seconds.
            reply_to: see Options. With a dedupe_key there is no stream: the outcome may be another submitter's as well, so
                it is fetched by id (`events.Result`).

        Raises:
            WrongArguments, PayloadNotEncodable, UsageError: see `pack`.
            PayloadTooLarge: over limit_bytes.
        """
        said = self.settings
        body = self.make_body([self.pack(args, kwargs)], now)
        check_size(body, limit_bytes)
        if said.dedupe_key is not None:
            message_id = self._id_of(said.dedupe_key, args, kwargs)
        return Message(
            message_id,
            body,
            codec.seal(self.calls_queue, message_id, PLAIN, body, Kind.TASK),
            Kind.TASK,
            said.priority,
            said.due_at(now),
            said.deliveries(),
            Options(
                dedupe=said.dedupe_key is not None,
                expires_at=now + said.expires_s if said.expires_s else 0.0,
                keep_result_s=self.keep_result_s,
                reply_to="" if said.dedupe_key is not None else reply_to,
            ),
        )

    def _id_of(self, key: str | Callable[..., str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        made = key if isinstance(key, str) else key(*args, **kwargs)
        if not isinstance(made, str) or not made:
            raise UsageError(f"The dedupe_key of task {self.name} made {made!r} of these arguments; it must be a text.")
        # The name's length first: no two pairs of name and key are the same bytes.
        return blake2b(f"{len(self.name)}:{self.name}{made}".encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def changed(options: TaskOptions, changes: dict[str, Any]) -> TaskOptions:
    """The same options but for some.

    Raises:
        UsageError: there is no such option.
    """
    unknown = changes.keys() - set(TaskOptions.__struct_fields__)
    if unknown:
        raise UsageError(
            f"A task has no option {min(unknown)!r}; there are {', '.join(sorted(TaskOptions.__struct_fields__))}."
        )
    for name in ("tags", "retry_on"):
        if isinstance(changes.get(name), (list, set, frozenset)):
            changes = {**changes, name: tuple(changes[name])}
    if isinstance(changes.get("retry_on"), type):
        changes = {**changes, "retry_on": (changes["retry_on"],)}
    if "eta" in changes and "delay_s" not in changes:
        changes = {**changes, "delay_s": 0.0}
    elif changes.get("delay_s") and "eta" not in changes:
        changes = {**changes, "eta": None}
    return msgspec.structs.replace(options, **changes)
