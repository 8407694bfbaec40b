"""mh.Executor() on this machine: an engine in this process, children of its own; called as ProcessPoolExecutor is."""

from __future__ import annotations

import os

import manyhands as mh
from benchmarks.peers import manyhands as over_tcp


class Peer(over_tcp.Peer):
    def start(self, workers):
        self._executor = mh.Executor(workers)
        self.configuration = f"mh.Executor({workers})"

    def find_roles(self):
        return over_tcp.children_of(os.getpid())

    def stop(self):
        self._executor.shutdown()
