"""SAQ over Redis; the client is an asyncio program."""

from __future__ import annotations

import asyncio

from saq import Queue

from benchmarks.peers import interface

POLL_S = 0.005
"""Its own 0.5 s would be all that is measured; its subscription misses a job that ends before it is made."""
queue = Queue.from_url(interface.redis_url())


async def noop(ctx, *, argument):
    return argument


async def echo(ctx, *, argument):
    return argument


async def sleep(ctx, *, argument):
    await asyncio.sleep(argument)
    return argument


settings = {"queue": queue, "functions": [noop, echo, sleep]}


class Peer(interface.Peer):
    payload_type = str

    def start(self, workers):
        for _ in range(workers):
            self.run("saq", "benchmarks.peers.saq.settings", "--quiet")
        self._runner = asyncio.Runner()
        self._run = self._runner.run
        self._run(queue.connect())
        self._run(self._until_ready(workers))
        self.configuration = (
            f"Redis queue, {workers} × saq settings (10 at once each), JSON; "
            "queue.map polls every 5 ms, queue.apply every 1 ms"
        )

    async def _until_ready(self, workers):
        """A job sent before its workers are up is swept as stuck instead of being run."""
        while len((await queue.info())["workers"]) < workers:
            await asyncio.sleep(0.01)

    def send(self, function, argument):
        return self._run(queue.enqueue(function.__name__, argument=argument))

    def value(self, handle):
        async def finished():
            while not handle.completed:
                await asyncio.sleep(POLL_S)
                await handle.refresh()
            return handle.result

        return self._run(finished())

    def submit(self, n):
        return self._run(queue.map("noop", [{"argument": i} for i in range(n)], poll_interval=POLL_S))

    def call(self):
        return self._run(queue.apply("noop", poll_interval=POLL_S / 5, argument=1))

    def stop(self):
        self._run(queue.disconnect())
        self._runner.close()
        super().stop()
