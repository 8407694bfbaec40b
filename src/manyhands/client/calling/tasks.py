"""Tasks through a call session: made by the task itself, awaited as calls are.

Calls of a task with a dedupe_key may be one with another program's, so no stream of this session need hear of their end.
They are asked for by id (`CallSession.submit_message`).
"""

from __future__ import annotations

from typing import Any

from manyhands.calls import bodies, outcomes
from manyhands.client.calling.functions import FunctionCalls
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.state import Group, engine_queue, read_outcomes
from manyhands.codec import PLAIN, Codec
from manyhands.errors import UndecodableBody
from manyhands.events import Outcome
from manyhands.model import Kind, result_id
from manyhands.tasks import Task, read_outcome

_NO_FUNCTION = bodies.Head("")


class TaskCalls:
    """Submits tasks; one for each call session."""

    def __init__(self, session: CallSession) -> None:
        self._session = session
        self._groups: dict[tuple[str, str], Group] = {}
        self.functions = FunctionCalls(session, engine_queue("default"))

    def submit(self, task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], now: float) -> CallFuture[Any]:
        """Send one call.

        Args:
            now: UTC seconds, from which delays and expiry count.

        Raises:
            WrongArguments, PayloadNotEncodable, UsageError, PayloadTooLarge: see Task.make_message.
            ServerGone, ServerUnavailable: the session has ended.
        """
        session = self._session
        message = task.make_message(
            session.codec,
            session.new_id(),
            args,
            kwargs,
            now=now,
            reply_to=session.state.stream,
            limit_bytes=session.max_body_bytes,
        )
        return session.submit_message(self._group(task), message)

    def _group(self, task: Task[..., Any]) -> Group:
        key = task.name, task.calls_queue
        group = self._groups.get(key)
        if group is None:

            def read(encoding: int, box: list[bytes], start: int) -> outcomes.Read:
                return read_task(task, encoding, box, start)

            group = Group(task.calls_queue, _NO_FUNCTION, "", kind=Kind.TASK, read=read)
            self._groups[key] = group
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
    is_task = value[1:2] == bytes([PLAIN])  # the encoding, for which the seal has to be right as well
    sealed_id = result_id(outcome.id, outcome.first, outcome.n)
    encoding, start = codec.verify_result(outcome.queue, sealed_id, value, Kind.TASK if is_task else Kind.CALL)
    read = read_task(None, encoding, [value], start) if is_task else read_outcomes(encoding, [value], start)
    at = int(call_id.rpartition(".")[2]) - outcome.first if outcome.n else 0
    if at in read.failed:
        raise read.failed[at]
    return read.values[at]


def read_task(task: Task[..., Any] | None, encoding: int, box: list[bytes], start: int) -> outcomes.Read:
    """The Reader of a task's outcome.

    Args:
        task: whose return hint rebuilds the value; None leaves it builtin data.

    Raises:
        UndecodableBody: it is none, or not what the task returns here.
    """
    if encoding != PLAIN:
        raise UndecodableBody(f"a task's result is in encoding {encoding}; install its worker's version")
    value, error, seconds = read_outcome(memoryview(box.pop())[start:], task)
    return outcomes.Read([value], {0: error} if error is not None else {}, [(1, seconds)], False)
