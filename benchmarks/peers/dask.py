"""Dask's distributed scheduler on this machine."""

from __future__ import annotations

from dask.distributed import Client, LocalCluster

from benchmarks.peers import interface, work


class Peer(interface.Peer):
    has_map = True

    def start(self, workers):
        self._cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=None)
        self._client = Client(self._cluster)
        self.configuration = (
            f"LocalCluster(n_workers={workers}, threads_per_worker=1), scheduler in the client's process; map: client.map"
        )

    def send(self, function, argument):
        return self._client.submit(function, argument, pure=False)

    def value(self, handle):
        return handle.result(timeout=interface.TIMEOUT_S)

    def submit(self, n):
        return self._client.gather([self.send(work.noop, i) for i in range(n)])

    def map(self, function, arguments):
        return self._client.gather(self._client.map(function, list(arguments), pure=False))

    def stop(self):
        self._client.close()
        self._cluster.close()
