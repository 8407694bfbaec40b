"""What can be said of a task, once for all its calls or for one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from manyhands._text import is_text
from manyhands.errors import UsageError
from manyhands.model import CALLS, MAX_PRIORITY, MIN_PRIORITY

BACKOFF_S = 1.0
BACKOFF_CAP_S = 600.0
KEEP_RESULT_S = 3600.0
CRASHES = 2
"""How often a task's worker may die without costing one of its attempts; see ADR 0070."""


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """A task's settings. All but retry_on are the submitter's; retry_on names classes and is the worker's own."""

    queue: str = "default"
    priority: int = 0
    """-9 to 9; larger is sooner."""
    max_attempts: int = 1
    """How often it is tried before it is a dead letter; 1 tries once, but a crash of the worker is no attempt of the task
    (ADR 0070)."""
    max_deliveries: int = 0
    """How often it may be handed out, crashes included; 0 is max_attempts + 2. 1 is at most once."""
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    """What is tried again; everything else fails at once."""
    backoff_s: float = BACKOFF_S
    """The longest wait before the second attempt; it doubles with each (retry.backoff_s)."""
    backoff_cap_s: float = BACKOFF_CAP_S
    timeout_s: float = 0.0
    """How long one attempt may run; 0 is without limit."""
    delay_s: float = 0.0
    """How long after the submit it becomes due."""
    eta: datetime | float | None = None
    """When it becomes due: a datetime (a naive one is local time) or UTC seconds; instead of delay_s."""
    expires_s: float = 0.0
    """How long after the submit it is dropped unless it has begun; 0 is never."""
    keep_result_s: float = KEEP_RESULT_S
    dedupe_key: str | Callable[..., str] | None = None
    """Calls of the task with the same key are one until 600 s after its end; a callable makes it from the arguments."""
    tags: Sequence[str] = ()
    """For people: shown with dead letters."""

    def due_at(self, now: float) -> float:
        """When a call that is submitted now becomes due, in UTC seconds; 0 is at once."""
        if self.eta is not None:
            eta = self.eta.timestamp() if isinstance(self.eta, datetime) else float(self.eta)
            return eta if eta > now else 0.0
        return now + self.delay_s if self.delay_s > 0 else 0.0

    def deliveries(self) -> int:
        return self.max_deliveries or self.max_attempts + CRASHES


def checked(options: TaskOptions) -> TaskOptions:
    """The same options, if they can be meant.

    Raises:
        UsageError: one of them cannot; the sentence names it.
    """
    queue = options.queue
    if not isinstance(queue, str) or not queue or not is_text(queue) or queue.endswith(CALLS):
        raise UsageError(f"A task's queue is a text that is not empty and does not end in {CALLS}, not {queue!r}.")
    if not MIN_PRIORITY <= _whole("priority", options.priority) <= MAX_PRIORITY:
        raise UsageError(f"priority {options.priority} is outside {MIN_PRIORITY} to {MAX_PRIORITY}; larger is sooner.")
    if _whole("max_attempts", options.max_attempts) < 1:
        raise UsageError(f"max_attempts is {options.max_attempts}; a task is tried at least once.")
    if _whole("max_deliveries", options.max_deliveries) and options.max_deliveries < options.max_attempts:
        raise UsageError(
            f"max_deliveries {options.max_deliveries} leaves no room for max_attempts {options.max_attempts}: each attempt "
            "is a delivery, and so is each crash; raise the one or lower the other."
        )
    for name in ("backoff_s", "backoff_cap_s", "timeout_s", "delay_s", "expires_s", "keep_result_s"):
        _seconds(name, getattr(options, name))
    for kind in options.retry_on:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            raise UsageError(f"retry_on names exception classes, not {kind!r}.")
    if not (options.eta is None or isinstance(options.eta, datetime) or _seconds("eta", options.eta)):
        raise UsageError("eta is 0; say when as a datetime or in UTC seconds, or leave it out.")
    if options.eta is not None and options.delay_s:
        raise UsageError("eta and delay_s both say when the task becomes due; give one of them.")
    if options.expires_s and options.expires_s <= options.delay_s:
        raise UsageError(
            f"The task would expire after {options.expires_s} s, before it is due after {options.delay_s} s; it would "
            "never run."
        )
    if not (options.dedupe_key is None or isinstance(options.dedupe_key, str) or callable(options.dedupe_key)):
        raise UsageError(f"dedupe_key is a text, or makes one from the arguments; it is not {options.dedupe_key!r}.")
    if isinstance(options.tags, str) or not all(isinstance(tag, str) and is_text(tag) for tag in options.tags):
        raise UsageError(f"tags are texts in a tuple or list, not {options.tags!r}.")
    return options


def _whole(name: str, value: Any) -> int:
    if type(value) is not int or (value < 0 and name != "priority"):
        raise UsageError(f"{name}={value!r} is no whole number that could be meant.")
    return value


def _seconds(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise UsageError(f"{name}={value!r} is not a number of seconds.")
    return value
