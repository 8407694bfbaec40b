"""A pair of multiprocessing.Queue: bare pipes on one machine, no server, no errors, no results by name."""

from __future__ import annotations

import multiprocessing

from benchmarks.peers import interface


def serve_calls(tasks, results):
    while (call := tasks.get()) is not None:
        function, argument = call
        results.put(function(argument))


class Peer(interface.Peer):
    def start(self, workers):
        self._tasks, self._results = multiprocessing.Queue(), multiprocessing.Queue()
        self._hands = [
            multiprocessing.Process(target=serve_calls, args=(self._tasks, self._results), daemon=True)
            for _ in range(workers)
        ]
        for hand in self._hands:
            hand.start()
        self.configuration = f"two multiprocessing.Queue, {workers} processes ({multiprocessing.get_start_method()})"

    def send(self, function, argument):
        self._tasks.put((function, argument))

    def value(self, handle):
        return self._results.get(timeout=interface.TIMEOUT_S)

    def stop(self):
        for _ in self._hands:
            self._tasks.put(None)
        for hand in self._hands:
            hand.join(5)
