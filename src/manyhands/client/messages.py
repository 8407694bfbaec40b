"""What the threaded and the asyncio queue share: making messages, checking arguments, what `receive` yields."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import Any

import msgspec

from manyhands._text import REASON_CHARS, is_text, readable
from manyhands.client.records import Held
from manyhands.codec import Codec, check_size, encode
from manyhands.errors import LeaseLost, ServerGone, UsageError
from manyhands.events import FOREVER
from manyhands.model import MAX_PRIORITY, MIN_PRIORITY, Message, Options, QueueStats, SettleKind, Settlement

_CALLER_GIVEN_ID = Options(dedupe=True)


class Received:
    """What `receive` yields: the object, how it came here, and a word on how it ends where "done" is not it."""

    __slots__ = ("_settlement", "attempt", "id", "value")

    def __init__(self, value: Any, attempt: int, message_id: str) -> None:
        self.value = value
        self.attempt = attempt
        """1 the first time it is delivered."""
        self.id = message_id
        self._settlement = Settlement(0, is_task_done=True)

    def __repr__(self) -> str:
        return f"Received(id={self.id!r}, attempt={self.attempt}, value={self.value!r})"

    def nack(self, delay_s: float = 0.0, reason: str = "") -> None:
        """When the block ends: not done, again after delay_s seconds; a dead letter if its deliveries are used up.

        Args:
            reason: kept in the message's history.

        Raises:
            UsageError: the delay is none.
        """
        if not 0 <= delay_s < math.inf:
            raise UsageError(f"delay_s={delay_s} is not a number of seconds.")
        self._settlement = Settlement(0, SettleKind.NACK, delay_s=delay_s, reason=readable(reason, REASON_CHARS))

    def reject(self, reason: str = "") -> None:
        """When the block ends: never again; the message goes to the dead letters with the reason."""
        self._settlement = Settlement(0, SettleKind.REJECT, reason=readable(reason, REASON_CHARS))

    def settlement(self, token: int) -> Settlement:
        """How the block's delivery ends when the block does not raise."""
        return msgspec.structs.replace(self._settlement, token=token)


def make_message(
    codec: Codec,
    queue: str,
    message_id: str,
    encoding: int,
    body: bytes,
    priority: int = 0,
    delay_s: float = 0.0,
    is_callers_id: bool = False,
) -> Message:
    """A sealed message.

    Raises:
        UsageError: the priority is out of range, the id or the delay is none.
    """
    if not priority and not delay_s and not is_callers_id:
        return Message(message_id, body, codec.seal(queue, message_id, encoding, body))
    if not is_text(message_id):
        raise UsageError(f"The id {message_id!r} cannot be written as UTF-8; give another one.")
    if not math.isfinite(delay_s):
        raise UsageError(f"delay_s={delay_s} is not a number of seconds.")
    if not MIN_PRIORITY <= priority <= MAX_PRIORITY:
        raise UsageError(f"priority {priority} is outside {MIN_PRIORITY} to {MAX_PRIORITY}; larger is sooner.")
    seal = codec.seal(queue, message_id, encoding, body)
    due_at = time.time() + delay_s if delay_s > 0 else 0.0
    return Message(message_id, body, seal, 0, priority, due_at, options=_CALLER_GIVEN_ID if is_callers_id else None)


def make_messages(codec: Codec, queue: str, items: Iterable[Any], new_id: Any, limit_bytes: int) -> list[Message]:
    """Sealed messages for all items, or an error for the first that cannot be sent."""
    messages = []
    for item in items:
        encoding, body = encode(item)
        check_size(body, limit_bytes)
        message_id = new_id()
        messages.append(Message(message_id, body, codec.seal(queue, message_id, encoding, body)))
    return messages


def to_wait_s(block: bool, timeout: float | None) -> float:
    """A put's or get's arguments as an engine takes them.

    Raises:
        ValueError: the timeout is negative or no number.
    """
    if not block:
        return 0.0
    if timeout is None:
        return FOREVER
    if not 0 <= timeout < math.inf:  # nor is it a NaN
        raise ValueError("'timeout' must be a non-negative number; None waits for ever")
    return timeout


def check_max_n(max_n: int) -> None:
    if max_n < 1:
        raise UsageError(f"get_many({max_n}) would never return anything; ask for at least 1.")


def unreturned(stats: QueueStats) -> int:
    """How many messages no get has returned."""
    return stats.ready + stats.delayed + stats.unbegun


def describe(error: BaseException) -> str:
    """An exception as a reason in a message's history."""
    try:
        text = str(error)
    except Exception:
        text = "its text could not be made"
    return readable(f"{type(error).__name__}: {text}", REASON_CHARS)


def lease_lost(held: Held, elapsed_s: float) -> LeaseLost:
    """What a receive block raises when its message went elsewhere."""
    message_id, queue = held.delivery.message.id, held.queue.name
    return LeaseLost(
        f"message {message_id} on queue {queue!r} went to another consumer while this block worked on it for "
        f"{elapsed_s:.1f} s, so it may be done twice; use a longer lease_s, or make the task safe to run twice",
        id=message_id,
        queue=queue,
    )


def server_gone() -> ServerGone:
    """What a call raises that waited for a server after its goodbye."""
    return ServerGone(
        "The server said goodbye and did not come back in time, so there is nothing more to get; what this program was "
        "working on is still with the server. Start it again, or end this program."
    )
