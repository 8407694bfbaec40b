"""The tutorial's program in its three parts: producers put numbers, workers square them, a collector gathers the results."""

from __future__ import annotations

import random

from manyhands.events import Failed
from manyhands.model import Message, Options
from manyhands.testing.simulation.checker import Checker, Violation
from manyhands.testing.simulation.clients import Program, SimClient

TASKS, RESULTS = "tasks", "results"


class Journal:
    """What a producer wrote down before it died: how many of its numbers were acknowledged."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.acked = 0


def producer(client: SimClient, name: str, journal: Journal, checker: Checker, rng: random.Random, bound: int) -> Program:
    """Put numbers, some alone and some in batches, under ids of its own, from where its journal ends."""
    yield client.declare(TASKS, bound)
    while journal.acked < journal.total:
        n = min(rng.choice((1, 1, 1, 2, 5)), journal.total - journal.acked, bound or 5)
        tasks = [f"{name}:{number}" for number in range(journal.acked, journal.acked + n)]
        for task in tasks:
            checker.putting(task)
        messages = [
            Message(task, task.encode(), priority=rng.choice((0, 0, 0, 3)), options=Options(dedupe=True)) for task in tasks
        ]
        call = client.put(TASKS, messages)
        yield call
        if isinstance(call.reply, Failed):
            raise Violation(f"{client.name}: an endless put was refused: {call.reply.code}: {call.reply.text}")
        for task in tasks:
            checker.put_acked(task)
        journal.acked += n
        yield rng.uniform(0.0, 0.01)


def worker(client: SimClient, checker: Checker, rng: random.Random, work_s: float) -> Program:
    """Square numbers for ever: get, work, put the result under the lease, get the next."""
    while True:
        held = yield from client.get(TASKS, rng.choice((None, None, 5.0)))
        if held is None:
            continue
        task = held.delivery.message.body.decode()
        checker.ran(task, client.name, held.delivery.token, client.now)
        if rng.random() < 0.9 or work_s > 0.1:
            yield rng.uniform(0.0, work_s * 2)
        if rng.random() < 0.01:
            checker.fault(client.name, client.now, client.now)
            client.nack(held, rng.choice((0.0, 0.5)))
            continue
        client.put_result(held, RESULTS, task.encode())


def collector(client: SimClient, checker: Checker, rng: random.Random) -> Program:
    """Gather results for ever."""
    while True:
        held = yield from client.get(RESULTS, rng.choice((None, 2.0)))
        if held is None:
            continue
        message = held.delivery.message
        checker.result_arrived(message.body.decode(), message.id)
        if rng.random() < 0.05:
            yield rng.uniform(0.0, 0.05)
