"""The tutorial's program in its three parts: producers put numbers, workers square them, a collector gathers the results."""

from __future__ import annotations

import random

from manyhands.events import Failed
from manyhands.model import Message, Options
from manyhands.testing.simulation.checker import Checker, Violation
from manyhands.testing.simulation.clients import Program, SimClient

TASKS, RESULTS = "tasks", "results"
PADDING = b"\0" * 400_000
"""Makes a body large enough to travel in several chunks."""


def name_in(body: bytes) -> str:
    """The task that a body is of; a torn or mixed-up padding is no body of ours."""
    name, _, padding = body.partition(b"\0")
    if padding and padding != PADDING[1:]:
        raise Violation(f"I2: the body of {name!r} arrived with {len(padding)} bytes of padding")
    return name.decode()


class Journal:
    """What a producer wrote down before it died: how many of its numbers were acknowledged, how often it was started."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.acked = 0
        self.starts = 0


def producer(
    client: SimClient, name: str, journal: Journal, checker: Checker, rng: random.Random, bound: int, pause_s: float
) -> Program:
    """Put numbers, some alone and some in batches, from where its journal ends.

    A producer with an even name gives ids of its own: what was in doubt when it died is put again under the same id. Another
    cannot know, so it goes on with fresh tasks; what was in doubt may be there or not, but never twice.
    """
    yield client.declare(TASKS, bound)
    journal.starts += 1
    gives_ids = int(name[1:]) % 2 == 0
    while journal.acked < journal.total:
        n = min(rng.choice((1, 1, 1, 2, 5)), journal.total - journal.acked, bound or 5)
        prefix = name if gives_ids else f"{name}.{journal.starts}"
        tasks = [f"{prefix}:{number}" for number in range(journal.acked, journal.acked + n)]
        messages = []
        for task in tasks:
            checker.putting(task)
            message_id = task if gives_ids else rng.randbytes(8).hex()
            options = Options(dedupe=True) if gives_ids else None
            body = task.encode() + (PADDING if rng.random() < 0.02 else b"")
            messages.append(Message(message_id, body, priority=rng.choice((0, 0, 0, 3)), options=options))
        call = client.put(TASKS, messages)
        yield call
        if isinstance(call.reply, Failed):
            raise Violation(f"{client.name}: an endless put was refused: {call.reply.code}: {call.reply.text}")
        for task in tasks:
            checker.put_acked(task)
        journal.acked += n
        yield rng.uniform(0.0, pause_s)


def worker(client: SimClient, checker: Checker, rng: random.Random, work_s: float) -> Program:
    """Square numbers for ever: get, work, put the result under the lease, get the next."""
    while True:
        held = yield from client.get(TASKS, rng.choice((None, None, 5.0)), patience_s=rng.choice((5.0, 5.0, 5.0, 0.01)))
        if held is None:
            continue
        task = name_in(held.delivery.message.body)
        checker.ran(task, held.delivery.message.id, client.name, held.delivery.token, client.now)
        if rng.random() < 0.9 or work_s > 0.1:
            yield rng.uniform(0.0, work_s * 2)
        if rng.random() < 0.01:
            checker.fault(client.name, client.now, client.now)
            client.nack(held, rng.choice((0.0, 0.5)))
            continue
        client.put_result(held, RESULTS, held.delivery.message.body)


def collector(client: SimClient, checker: Checker, rng: random.Random) -> Program:
    """Gather results for ever."""
    while True:
        held = yield from client.get(RESULTS, rng.choice((None, 2.0)))
        if held is None:
            continue
        message = held.delivery.message
        checker.result_arrived(name_in(message.body), message.id)
        if rng.random() < 0.05:
            yield rng.uniform(0.0, 0.05)
