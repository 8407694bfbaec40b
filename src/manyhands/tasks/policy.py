"""What becomes of a task whose attempt did not return: again after a while, or never again.

    raised                               attempts left               none left
    TryAgain                             NACK, its own delay         REJECT
    one of retry_on                      NACK, exponential backoff   REJECT
    TaskTimedOut (the runner's limit)    as retry_on says: it is a TimeoutError and so an OSError
    GiveUp, anything else                REJECT                      REJECT
    PayloadNotEncodable (its value)      REJECT: the work is done, and would end in the same value again
    TaskCancelled                        ACK: nobody wants it, and it is no dead letter

With REJECT and ACK the error travels as the outcome (results.py) for whoever waits; a rejected message is also kept as a
dead letter, with every attempt's error. A crash of the worker never comes here: the engine counts it as a delivery.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from manyhands._text import REASON_CHARS, readable
from manyhands.errors import GiveUp, PayloadNotEncodable, TaskCancelled, TryAgain
from manyhands.model import SettleKind
from manyhands.retry import backoff_s
from manyhands.tasks.bodies import Body

if TYPE_CHECKING:
    from manyhands.tasks.task import Task


class Verdict(msgspec.Struct, frozen=True):
    """How the delivery is settled."""

    kind: SettleKind
    delay_s: float = 0.0
    reason: str = ""
    """The attempt's error, for the message's history."""


def after(error: BaseException, attempt: int, task: Task[..., Any], body: Body, unit: float) -> Verdict:
    """What to do after an attempt that raised.

    Args:
        attempt: the delivery's, 1 for the first; a crash before it counts.
        unit: a number in [0, 1) from the caller's generator, which spreads retries.
    """
    reason = describe(error)
    if isinstance(error, TaskCancelled):
        return Verdict(SettleKind.ACK, reason=reason)
    has_more = attempt < body.max_attempts
    if isinstance(error, (GiveUp, PayloadNotEncodable)) or not has_more:
        return Verdict(SettleKind.REJECT, reason=reason)
    if isinstance(error, TryAgain):
        if error.delay_s is not None and 0 <= error.delay_s < math.inf:
            return Verdict(SettleKind.NACK, error.delay_s, reason)
    elif not isinstance(error, task.settings.retry_on):
        return Verdict(SettleKind.REJECT, reason=reason)
    delay_s = backoff_s(attempt, base_s=body.backoff_s, cap_s=body.backoff_cap_s, unit=unit)
    return Verdict(SettleKind.NACK, delay_s, reason)


def describe(error: BaseException) -> str:
    """An error as a reason in a message's history."""
    try:
        text = str(error)
    except Exception:  # the user's own __str__
        text = "its text could not be made"
    return readable(f"{type(error).__name__}: {text}" if text else type(error).__name__, REASON_CHARS)
