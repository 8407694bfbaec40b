"""Dramatiq over Redis, with its Results middleware."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.peers import interface, work

broker = RedisBroker(url=interface.redis_url())
broker.add_middleware(Results(backend=RedisBackend(url=interface.redis_url())))
dramatiq.set_broker(broker)
noop, echo, sleep = (dramatiq.actor(each, store_results=True) for each in (work.noop, work.echo, work.sleep))


class Peer(interface.Peer):
    payload_type = str

    def start(self, workers):
        self.run("dramatiq", "benchmarks.peers.dramatiq", "--processes", workers)
        self.configuration = f"RedisBroker, Results in Redis, dramatiq --processes {workers} (8 threads each), JSON"

    def send(self, function, argument):
        return globals()[function.__name__].send(argument)

    def value(self, handle):
        return handle.get_result(block=True, timeout=int(interface.TIMEOUT_S * 1000))
