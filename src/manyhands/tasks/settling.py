"""How the delivery of a task is settled: the outcome sealed, and what policy.after says of an error. For every runner.

returned(…)      ACK with the value as result
raised(…)        NACK, REJECT or ACK, see policy.py; the error as result where nobody tries again
will(…)          what raised(…) would say of TaskTimedOut, made beforehand for whoever may have to kill the runner
unreadable(…)    REJECT: no worker will ever be able to read this body
parked(…)        PARK: a worker that knows the task will come
"""

from __future__ import annotations

from typing import Any

from manyhands.codec import PLAIN, Codec
from manyhands.errors import PayloadNotEncodable, TaskTimedOut, UnknownTask
from manyhands.model import Delivery, Kind, SettleKind, Settlement
from manyhands.tasks.bodies import TaskCall
from manyhands.tasks.policy import after, describe
from manyhands.tasks.results import pack_error, pack_value


def returned(codec: Codec, queue: str, delivery: Delivery, call: TaskCall, value: Any, seconds: float) -> Settlement:
    """The attempt returned a value. One that is no plain data is an error, and tried no more: the work is done.

    Args:
        queue: the engine's queue that it came from.
        seconds: how long it ran.
    """
    try:
        body = pack_value(call.task, value, seconds)
    except PayloadNotEncodable as error:
        return unreadable(codec, queue, delivery, error, seconds)
    return Settlement(delivery.token, result=_sealed(codec, queue, delivery, body))


def raised(
    codec: Codec, queue: str, delivery: Delivery, call: TaskCall, error: BaseException, seconds: float, unit: float
) -> Settlement:
    """The attempt ended with an error.

    Args:
        unit: a number in [0, 1) from the caller's generator, which spreads retries.
    """
    verdict = after(error, delivery.attempt, call, unit)
    result = None
    if verdict.kind != SettleKind.NACK:
        result = _sealed(codec, queue, delivery, pack_error(error, seconds))
    return Settlement(delivery.token, verdict.kind, delay_s=verdict.delay_s, reason=verdict.reason, result=result)


def will(codec: Codec, queue: str, delivery: Delivery, call: TaskCall, unit: float) -> Settlement:
    """How it ends if it is still running when its time is over."""
    limit_s = call.body.timeout_s
    error = TaskTimedOut(
        f"task {call.task.name} was stopped, because attempt {delivery.attempt} ran for more than {limit_s:g} s",
        task=call.task.name,
        timeout_s=limit_s,
    )
    return raised(codec, queue, delivery, call, error, limit_s, unit)


def unreadable(codec: Codec, queue: str, delivery: Delivery, error: BaseException, seconds: float = 0.0) -> Settlement:
    """It could not be made into a call, or its value not into a result, and no other attempt would end otherwise."""
    result = _sealed(codec, queue, delivery, pack_error(error, seconds))
    return Settlement(delivery.token, SettleKind.REJECT, reason=describe(error), result=result)


def parked(delivery: Delivery, error: UnknownTask) -> Settlement:
    """Nobody here knows the task."""
    return Settlement(delivery.token, SettleKind.PARK, reason=error.need)


def _sealed(codec: Codec, queue: str, delivery: Delivery, body: bytes) -> bytes:
    message_id = delivery.message.id
    return codec.seal(queue, message_id, PLAIN, body, Kind.TASK, "result") + body
