"""taskiq over a Redis stream, results in Redis; the client is an asyncio program."""

from __future__ import annotations

import asyncio

from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.peers import interface

broker = RedisStreamBroker(url=interface.redis_url()).with_result_backend(
    RedisAsyncResultBackend(redis_url=interface.redis_url())
)


@broker.task
async def noop(n):
    return n


@broker.task
async def echo(payload):
    return payload


@broker.task
async def sleep(seconds):
    await asyncio.sleep(seconds)
    return seconds


class Peer(interface.Peer):
    payload_type = str

    def start(self, workers):
        self.run("taskiq", "worker", "benchmarks.peers.taskiq:broker", "--workers", workers, "--log-level", "ERROR")
        self._runner = asyncio.Runner()
        self._run = self._runner.run
        self._run(broker.startup())
        self.configuration = (
            f"RedisStreamBroker, RedisAsyncResultBackend, taskiq worker --workers {workers}; wait_result() polls every 0.2 s"
        )

    def send(self, function, argument):
        return self._run(globals()[function.__name__].kiq(argument))

    def value(self, handle):
        return self._run(handle.wait_result(timeout=interface.TIMEOUT_S)).return_value

    def submit(self, n):
        async def all_of_them():
            handles = await asyncio.gather(*(noop.kiq(i) for i in range(n)))
            results = await asyncio.gather(*(handle.wait_result(timeout=interface.TIMEOUT_S) for handle in handles))
            return [result.return_value for result in results]

        return self._run(all_of_them())

    def call(self):
        async def one():
            return (await (await noop.kiq(1)).wait_result(timeout=interface.TIMEOUT_S)).return_value

        return self._run(one())

    def stop(self):
        self._run(broker.shutdown())
        self._runner.close()
        super().stop()
