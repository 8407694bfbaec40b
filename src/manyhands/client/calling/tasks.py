"""Tasks through a call session, awaited as calls are.

Tasks that follow each other and have the same options share messages as calls do, while none of their options speaks of one
call's message (`Task.shares_messages`): each keeps its own attempts, dead letter and id, for the worker takes the one that
fails out of its pack (ADR 0110). They keep their order, whatever task they are of. Others travel alone, made by the task
itself.

Calls of a task with a dedupe_key may be one with another program's, so no stream of this session need hear of their end.
They are asked for by id (`CallSession.submit_message`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from manyhands.calls import bodies, outcomes
from manyhands.client.calling.functions import FunctionCalls
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.state import Group, engine_queue, read_outcomes
from manyhands.codec import PLAIN, PLAIN_CALLS, Codec
from manyhands.errors import UndecodableBody
from manyhands.events import Outcome
from manyhands.model import Kind, result_id
from manyhands.tasks import Task, TaskOptions, read_outcome
from manyhands.tasks.bodies import PACK_BYTES
from manyhands.tasks.results import read_outcomes as read_packed

_NO_FUNCTION = bodies.Head("")
_LEAST_BODY_BYTES = 16 * PACK_BYTES
"""Where an engine takes no larger bodies, each task is looked at alone: whether it is too large is said at its submit."""
_MOST_GROUPS = 256
"""Groups are remembered for so many different options; then they are made anew."""


class _TaskGroup(Group):
    """The calls of one task under the same options."""

    __slots__ = ("options_of", "submitted_at", "task")

    def __init__(self, task: Task[..., Any]) -> None:
        self.task = task
        self.options_of: TaskOptions = task.settings
        """Which options these are."""
        self.submitted_at = 0.0
        """When the last of them was submitted."""

        def read(encoding: int, box: list[bytes], start: int) -> outcomes.Read:
            return read_task(task, encoding, box, start)

        super().__init__(
            task.calls_queue,
            _NO_FUNCTION,
            "",
            keep_result_s=task.keep_result_s,
            max_deliveries=task.settings.deliveries(),
            priority=task.settings.priority,
            kind=Kind.TASK,
            read=read,
            encode=self._encode,
            encodings=(PLAIN, PLAIN_CALLS),
            pack_bytes=PACK_BYTES,
            keeps_order=True,
            avoids_splits=True,
        )

    def _encode(self, packed: Sequence[bytes]) -> bytes:
        return self.task.make_body(packed, self.submitted_at)


class TaskCalls:
    """Submits tasks; one for each call session.

    Args:
        is_packing: whether tasks may share messages.
    """

    def __init__(self, session: CallSession, *, is_packing: bool = True) -> None:
        self._session = session
        self._groups: dict[tuple[Any, ...], _TaskGroup] = {}
        self._last: dict[str, _TaskGroup] = {}
        """By the task's name: the group of its last call, for most calls are like the one before."""
        self.functions = FunctionCalls(session, engine_queue("default"))
        self._is_packing = is_packing

    def submit(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], now: float) -> CallFuture[Any]:
        """Send one call.

        Args:
            now: UTC seconds, from which delays and expiry count.

        Raises:
            WrongArguments, PayloadNotEncodable, UsageError, PayloadTooLarge: see Task.make_message.
            ServerGone, ServerUnavailable: the session has ended.
        """
        session = self._session
        group = self._last.get(task.name)
        if group is None or group.options_of is not task.settings:
            group = self._find(task)
        if self._is_packing and task.shares_messages and session.max_body_bytes >= _LEAST_BODY_BYTES:
            packed = task.pack(args, kwargs)
            if len(packed) <= PACK_BYTES:
                group.submitted_at = now
                return session.submit(group, packed)
        message = task.make_message(
            session.codec,
            session.new_id(),
            args,
            kwargs,
            now=now,
            reply_to=session.state.stream,
            limit_bytes=session.max_body_bytes,
        )
        return session.submit_message(group, message)

    def _find(self, task: Task[..., Any]) -> _TaskGroup:
        said = task.settings
        key = (
            task.name,
            said.queue,
            said.priority,
            said.max_attempts,
            said.deliveries(),
            said.backoff_s,
            said.backoff_cap_s,
            said.timeout_s,
            task.keep_result_s,
            tuple(said.tags),
        )
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= _MOST_GROUPS:
                self._groups.clear()
                self._last.clear()
            group = self._groups[key] = _TaskGroup(task)
        group.options_of = said
        self._last[task.name] = group
        return group


def open_outcome(codec: Codec, outcome: Outcome, call_id: str = "") -> Any:
    """What a call or task came to that was asked for by id: its value, or what it raised is raised.

    Args:
        call_id: what was asked for, where that may be one call of a message with several.

    Raises:
        SealBroken: it was made by nobody who has the key.
        UndecodableBody: it cannot be rebuilt here.
    """
    value = outcome.value
    assert value is not None
    is_task = value[1] in (PLAIN, PLAIN_CALLS)  # the encoding, for which the seal has to be right as well
    sealed_id = result_id(outcome.id, outcome.first, outcome.n)
    encoding, start = codec.verify_result(outcome.queue, sealed_id, value, Kind.TASK if is_task else Kind.CALL)
    read = read_task(None, encoding, [value], start) if is_task else read_outcomes(encoding, [value], start)
    at = int(call_id.rpartition(".")[2]) - outcome.first if outcome.n else 0
    if at in read.failed:
        raise read.failed[at]
    return read.values[at]


def read_task(task: Task[..., Any] | None, encoding: int, box: list[bytes], start: int) -> outcomes.Read:
    """The Reader of a task's outcome, or of those of several calls that shared a message.

    Args:
        task: whose return hint rebuilds the value; None leaves it builtin data.

    Raises:
        UndecodableBody: it is none, or not what the task returns here.
    """
    if encoding == PLAIN_CALLS:
        values, failed, times = read_packed(memoryview(box.pop())[start:], task)
        return outcomes.Read(values, failed, times, False)
    if encoding != PLAIN:
        raise UndecodableBody(f"a task's result is in encoding {encoding}; install its worker's version")
    value, error, seconds = read_outcome(memoryview(box.pop())[start:], task)
    return outcomes.Read([value], {0: error} if error is not None else {}, [(1, seconds)], False)
