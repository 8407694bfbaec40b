"""A program that sends calls and collects their outcomes, by requests, so that these tests need no Executor."""

from __future__ import annotations

import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from manyhands.auth import Keyring
from manyhands.calls import outcomes
from manyhands.calls.bodies import Prefix, argument, to_function
from manyhands.codec import PICKLED_CALLS, PLAIN, Codec
from manyhands.engines.base import Engine
from manyhands.errors import from_code
from manyhands.events import Attach, Cancel, Cancelled, Collect, Collected, Done, Failed, Put, Reply, Stats, StatsReply
from manyhands.model import CALLS, Kind, Message, Options, QueueStats, part_id
from manyhands.tasks import Task, read_outcome

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


class Caller:
    """One session that awaits the outcomes of its calls.

    Args:
        engine: where the queues live; in this process or behind a server.
    """

    def __init__(self, engine: Engine, keyring: Keyring, queue: str = "default") -> None:
        self.codec = Codec([(key.id, key.body) for key in keyring])
        self.outcomes: dict[str, Any] = {}
        """By call id: its value, or the exception."""
        self.times_ended: dict[str, int] = {}
        self._queue = queue + CALLS
        self._stream = secrets.token_hex(16)
        self._rids = count(1)
        self._ids = count(1)
        self._seq = count(1)
        self._answers: dict[int, Reply] = {}
        self._changed = threading.Condition()
        self._port = engine.attach(Attach(secrets.token_hex(16), "caller", is_here=True), self._take)
        self._port.send([Collect(next(self._rids), self._stream)])

    def close(self) -> None:
        self._port.detach()

    def submit(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        timeout_s: float = 0.0,
        max_deliveries: int = 3,
        priority: int = 0,
    ) -> str:
        """Send one call; its id."""
        return self.submit_pack(
            function, [arguments], timeout_s=timeout_s, max_deliveries=max_deliveries, is_pack=False, priority=priority
        )[0]

    def submit_pack(
        self,
        function: Callable[..., Any],
        arguments: Sequence[tuple[Any, ...]],
        *,
        timeout_s: float = 0.0,
        max_deliveries: int = 3,
        is_pack: bool = True,
        priority: int = 0,
    ) -> list[str]:
        """Send calls in one message; their ids."""
        prefix = Prefix(to_function(function, PYTHON, timeout_s=timeout_s).head)
        body = prefix.encode([argument(each, {}) for each in arguments])  # type: ignore[misc]
        message_id = f"{self._stream[:8]}-{next(self._ids)}"
        seal = self.codec.seal(self._queue, message_id, PICKLED_CALLS, body, Kind.CALL)
        options = Options(reply_to=self._stream, calls=len(arguments) if is_pack else 0)
        message = Message(message_id, body, seal, Kind.CALL, priority, 0.0, max_deliveries, options)
        self.ask(Put(next(self._rids), self._queue, next(self._seq), 0, [message]))
        return [part_id(message_id, part) for part in range(len(arguments))] if is_pack else [message_id]

    def submit_task(self, task: Task[..., Any], *arguments: Any) -> str:
        """Send one task; its id."""
        message_id = f"{self._stream[:8]}-{next(self._ids)}"
        message = task.make_message(self.codec, message_id, arguments, {}, now=time.time(), reply_to=self._stream)
        self.ask(Put(next(self._rids), task.calls_queue, next(self._seq), 0, [message]))
        return message_id

    def cancel_running(self, call_id: str) -> None:
        assert isinstance(self.ask(Cancel(next(self._rids), self._queue, [call_id], True)), Cancelled)

    def stats(self) -> QueueStats:
        reply = self.ask(Stats(next(self._rids), [self._queue]))
        assert isinstance(reply, StatsReply)
        return reply.queues[0]

    def ask(self, request: Any, timeout_s: float = 30.0) -> Reply:
        self._port.send([request])
        with self._changed:
            assert self._changed.wait_for(lambda: request.rid in self._answers, timeout_s), f"no answer to {request}"
            reply = self._answers.pop(request.rid)
        assert not isinstance(reply, Failed), reply
        return reply

    def result(self, call_id: str, timeout_s: float = 30.0) -> Any:
        """What the call returned; raises what it raised."""
        with self._changed:
            assert self._changed.wait_for(lambda: call_id in self.outcomes, timeout_s), f"{call_id} has no outcome"
            outcome = self.outcomes[call_id]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def is_over(self, call_id: str) -> bool:
        return call_id in self.outcomes

    def _take(self, replies: Sequence[Reply]) -> None:
        with self._changed:
            for reply in replies:
                if isinstance(reply, Collected):
                    for ended in reply.ended:
                        self._note(ended)
                    self._port.send([Collect(next(self._rids), self._stream, reply.number)])
                elif isinstance(reply, Done | Failed | StatsReply | Cancelled):
                    self._answers[reply.rid] = reply
            self._changed.notify_all()

    def _note(self, ended: Any) -> None:
        if ended.value is None:
            error = from_code(ended.code, ended.text)
            for part in range(ended.first, ended.first + ended.n):
                self._over(part_id(ended.id, part), error)
            self._over(ended.id, error)
            return
        start = 38 if ended.value[:1] == b"\x12" else 22  # behind the seal
        if ended.value[1] == PLAIN:
            value, raised, _ = read_outcome(ended.value[start:])
            self._over(ended.id, raised or value)
            return
        read = outcomes.read([ended.value], start)
        for index, value in enumerate(read.values):
            self._over(part_id(ended.id, ended.first + index), read.failed.get(index, value))
        self._over(ended.id, read.failed.get(0, read.values[0]))

    def _over(self, call_id: str, outcome: Any) -> None:
        self.outcomes[call_id] = outcome
        self.times_ended[call_id] = self.times_ended.get(call_id, 0) + 1


def eventually(condition: Callable[[], bool], what: str, timeout_s: float = 20.0) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.01)
