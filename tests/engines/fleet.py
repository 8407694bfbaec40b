"""Simulated workers: each a connection that leases one message, holds it, settles it and asks for the next; none computes.

    python fleet.py URL COUNT

Prints "ready" when all are attached. Then each line on standard input is {"queue": …, "hold_s": …}: everybody works on
that queue from now, holding each message that long. The last line is empty: one line of JSON is printed, how many
messages of each queue each worker settled, and the program ends.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import threading
from collections import Counter
from collections.abc import Sequence

from manyhands import events, model
from manyhands.auth import Keyring
from manyhands.engines.base import Engine
from manyhands.engines.opening import open_engine
from manyhands.engines.remote import RemoteEngine

KEY = "a key for a fleet"
HEARTBEAT_S = 5.0


class Worker:
    """One simulated worker. Everything but _arrived happens in the loop."""

    def __init__(self, engine: Engine, name: str, loop: asyncio.AbstractEventLoop) -> None:
        self.settled: Counter[str] = Counter()
        self.problems: list[events.Reply] = []
        self._loop = loop
        self._queue, self._hold_s = "", 0.0
        self._rid = self._seq = 0
        self._waits_with = 0
        self._port = engine.attach(events.Attach(secrets.token_hex(16), name), self._arrived)

    def work_on(self, queue: str, hold_s: float) -> None:
        """Ask for this queue's messages from now on; nothing is held or waited for at another."""
        if self._waits_with:
            self._port.send([events.Withdraw(self._waits_with)])
        self._queue, self._hold_s = queue, hold_s
        self._port.send([self._next()])

    def beat(self) -> None:
        self._port.send([events.Ping(self._new_rid())])

    def _new_rid(self) -> int:
        self._rid += 1
        return self._rid

    def _next(self) -> events.Lease:
        self._waits_with = self._new_rid()
        return events.Lease(self._waits_with, self._queue)

    def _arrived(self, replies: Sequence[events.Reply]) -> None:
        self._loop.call_soon_threadsafe(self._take, list(replies))

    def _take(self, replies: Sequence[events.Reply]) -> None:
        for reply in replies:
            if isinstance(reply, events.Granted):
                if reply.deliveries:
                    self._waits_with = 0
                    self._loop.call_later(self._hold_s, self._settle, self._queue, reply.deliveries)
            elif isinstance(reply, events.Recall):
                self._port.send([events.Recalled(reply.queue, [])])  # all that is held is begun
            elif isinstance(reply, events.Settled):
                self.problems += [reply] if reply.lost else []
            elif not isinstance(reply, events.Pong):
                self.problems.append(reply)

    def _settle(self, queue: str, deliveries: Sequence[model.Delivery]) -> None:
        self._seq += 1
        self.settled[queue] += len(deliveries)
        ends = [model.Settlement(delivery.token, is_task_done=True) for delivery in deliveries]
        self._port.send([events.Settle(self._new_rid(), self._seq, 0, ends), self._next()])


def connect(url: str, name: str) -> Engine:
    """A connection of its own."""
    return RemoteEngine(url, Keyring(KEY), name=name) if url.startswith("tcp:") else open_engine(url)


async def main(url: str, count: str) -> None:
    loop = asyncio.get_running_loop()
    engines = [connect(url, f"simulated {n}") for n in range(int(count))]
    workers = [Worker(engine, f"simulated {n}", loop) for n, engine in enumerate(engines)]
    lines: asyncio.Queue[str] = asyncio.Queue()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line.strip())

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    while True:
        try:
            line = await asyncio.wait_for(lines.get(), HEARTBEAT_S)
        except TimeoutError:
            for worker in workers:
                worker.beat()
            continue
        if not line:
            break
        for worker in workers:
            worker.work_on(**json.loads(line))
    for engine in engines:
        engine.close()
    problems = [
        repr(problem) for worker in workers for problem in worker.problems if not isinstance(problem, events.Closing)
    ]
    print(json.dumps({"settled": [worker.settled for worker in workers], "problems": problems}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
