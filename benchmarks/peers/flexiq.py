"""FlexiQ on its default store, a SQLite file, with its process pool."""

from __future__ import annotations

import os

from flexiq import Queue

from benchmarks.peers import interface, work

queue = Queue(db_path=os.path.join(os.environ["PEER_FOLDER"], "flexiq.db"))
queue.max_payload_bytes = 4 * 1024 * 1024  # its default is a little below what the 1 MB measure sends
noop, echo, sleep = (queue.task()(each) for each in (work.noop, work.echo, work.sleep))


class Peer(interface.Peer):
    def start(self, workers):
        self.run("flexiq", "worker", "--app", "benchmarks.peers.flexiq:queue", "--pool", "prefork")
        self.configuration = "Queue(db_path=…) on SQLite, flexiq worker --pool prefork (as many children as cores)"

    def send(self, function, argument):
        return globals()[function.__name__].delay(argument)

    def value(self, handle):
        return handle.result(timeout=interface.TIMEOUT_S)
