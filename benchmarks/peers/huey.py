"""Huey over Redis, told to notify waiting clients (by default they poll)."""

from __future__ import annotations

from huey import RedisHuey

from benchmarks.peers import interface, work

huey = RedisHuey("benchmark", url=interface.redis_url(), notify_result=True)
noop, echo, sleep = (huey.task()(each) for each in (work.noop, work.echo, work.sleep))


class Peer(interface.Peer):
    def start(self, workers):
        self.run("huey_consumer", "benchmarks.peers.huey.huey", "-w", workers, "-k", "process", "-q")
        self.configuration = f"RedisHuey(notify_result=True), huey_consumer -w {workers} -k process, pickle"

    def send(self, function, argument):
        return globals()[function.__name__](argument)

    def value(self, handle):
        return handle.get(blocking=True, timeout=interface.TIMEOUT_S)
