"""multiprocessing.Pool: imap(chunksize=1) call by call, imap(chunksize=100) for many."""

from __future__ import annotations

import multiprocessing

from benchmarks.peers import interface, work


class Peer(interface.Peer):
    has_map = True

    def start(self, workers):
        self._pool = multiprocessing.Pool(workers)
        self.configuration = (
            f"Pool({workers}) ({multiprocessing.get_start_method()}); submit: imap(chunksize=1), one call: apply, map of "
            "no-ops: imap(chunksize=100), of slow calls: imap(chunksize=1)"
        )

    def send(self, function, argument):
        return self._pool.apply_async(function, (argument,))

    def value(self, handle):
        return handle.get(interface.TIMEOUT_S)

    def submit(self, n):
        return list(self._pool.imap(work.noop, range(n), chunksize=1))

    def map(self, function, arguments):
        return self._pool.imap(function, arguments, chunksize=100 if function is work.noop else 1)

    def call(self):
        return self._pool.apply(work.noop, (1,))

    def stop(self):
        self._pool.close()
        self._pool.join()
