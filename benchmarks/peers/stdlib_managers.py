"""Two queues of multiprocessing.managers over TCP: the pattern of the tutorials, workers as separate programs."""

from __future__ import annotations

import multiprocessing
import queue
import socket
from multiprocessing.managers import BaseManager

from benchmarks.peers import interface, work

KEY = b"benchmark"
FUNCTIONS = {"noop": work.noop, "echo": work.echo, "sleep": work.sleep}
_tasks, _results = queue.Queue(), queue.Queue()


class Manager(BaseManager):
    pass


def tasks():
    return _tasks


def results():
    return _results


Manager.register("tasks", callable=tasks)
Manager.register("results", callable=results)


def serve_calls(port):
    manager = Manager(("127.0.0.1", port), KEY)
    manager.connect()
    mine, theirs = manager.tasks(), manager.results()
    while (call := mine.get()) is not None:
        name, argument = call
        theirs.put(FUNCTIONS[name](argument))


class Peer(interface.Peer):
    def start(self, workers):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._manager = Manager(("127.0.0.1", port), KEY)
        self._manager.start()
        self.roles[self._manager._process.pid] = "server"
        context = multiprocessing.get_context("spawn")
        self._hands = [context.Process(target=serve_calls, args=(port,), daemon=True) for _ in range(workers)]
        for hand in self._hands:
            hand.start()
        self._tasks, self._results = self._manager.tasks(), self._manager.results()
        self.configuration = f"BaseManager with two queue.Queue on 127.0.0.1, {workers} worker programs"

    def send(self, function, argument):
        self._tasks.put((function.__name__, argument))

    def value(self, handle):
        return self._results.get(timeout=interface.TIMEOUT_S)

    def stop(self):
        for _ in self._hands:
            self._tasks.put(None)
        for hand in self._hands:
            hand.join(5)
        self._manager.shutdown()
