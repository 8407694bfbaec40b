"""concurrent.futures.ProcessPoolExecutor."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

from benchmarks.peers import interface, work


class Peer(interface.Peer):
    has_map = True

    def start(self, workers):
        self._executor = ProcessPoolExecutor(workers)
        self.configuration = (
            f"ProcessPoolExecutor({workers}); map of no-ops: map(chunksize=100), of slow calls: its default, chunksize=1"
        )

    def send(self, function, argument):
        return self._executor.submit(function, argument)

    def value(self, handle):
        return handle.result(interface.TIMEOUT_S)

    def map(self, function, arguments):
        return self._executor.map(function, arguments, chunksize=100 if function is work.noop else 1)

    def stop(self):
        self._executor.shutdown()
