"""manyhands at a NATS: this program and a worker with its children, no server of ours."""

from __future__ import annotations

import os

import manyhands as mh
from benchmarks.peers import manyhands as over_tcp


class Peer(over_tcp.Peer):
    def start(self, workers):
        url = os.environ["NATS_URL"]
        os.environ["MANYHANDS_AUTHKEY"] = over_tcp.KEY
        self._worker = self.run("manyhands", "worker", url, "--concurrency", workers, role="parent")
        self._executor = mh.Executor(url=url)
        self.configuration = f"manyhands worker nats://… --concurrency {workers}, mh.Executor(url='nats://…')"
