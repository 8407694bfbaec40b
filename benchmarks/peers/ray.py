"""Ray on this machine."""

from __future__ import annotations

import os

import ray

from benchmarks.peers import interface, work


class Peer(interface.Peer):
    def start(self, workers):
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=os.environ["PEER_FOLDER"],  # its session's folder stays behind otherwise
        )
        self._remote = {each: ray.remote(each) for each in (work.noop, work.echo, work.sleep)}
        self.configuration = f"ray.init(num_cpus={workers}, include_dashboard=False)"

    def send(self, function, argument):
        return self._remote[function].remote(argument)

    def value(self, handle):
        return ray.get(handle, timeout=interface.TIMEOUT_S)

    def submit(self, n):
        return ray.get([self.send(work.noop, i) for i in range(n)], timeout=interface.TIMEOUT_S)

    def stop(self):
        ray.shutdown()
