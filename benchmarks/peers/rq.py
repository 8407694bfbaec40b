"""RQ: a worker pool whose workers fork for each job, as its documentation starts it."""

from __future__ import annotations

from redis import Redis
from rq import Queue

from benchmarks.peers import interface


class Peer(interface.Peer):
    def start(self, workers):
        self.run("rq", "worker-pool", "-n", workers, "-q", "--url", interface.redis_url())
        self._queue = Queue(connection=Redis.from_url(interface.redis_url()))
        self.configuration = f"rq worker-pool -n {workers} (one fork for each job), pickle"

    def send(self, function, argument):
        return self._queue.enqueue(function, argument)

    def value(self, handle):
        result = handle.latest_result(timeout=int(interface.TIMEOUT_S))
        if result is None or result.type != result.Type.SUCCESSFUL:
            raise RuntimeError(f"the job ended with {result}")
        return result.return_value
