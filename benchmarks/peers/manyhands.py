"""manyhands over TCP: this program, a server, and a worker with its children, all processes of their own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import manyhands as mh
from benchmarks.peers import interface
from benchmarks.peers.processes import descendants

KEY = "the benchmark's own key"
HELPERS = (b"resource_tracker", b"forkserver")


class Peer(interface.Peer):
    has_map = True

    def start(self, workers):
        with socket.create_server(("127.0.0.1", 0)) as free:
            url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        os.environ["MANYHANDS_AUTHKEY"] = KEY
        self.run("manyhands", "serve", url, role="server")
        self._worker = self.run("manyhands", "worker", url, "--concurrency", workers, role="parent")
        self._executor = mh.Executor(url=url)
        self.configuration = f"manyhands serve {url} (memory), manyhands worker --concurrency {workers}, mh.Executor(url=…)"

    def find_roles(self):
        return {**self.roles, **children_of(self._worker.pid)}

    def send(self, function, argument):
        return self._executor.submit(function, argument)

    def value(self, handle):
        return handle.result(interface.TIMEOUT_S)

    def map(self, function, arguments):
        return self._executor.map(function, arguments)

    def stop(self):
        self._executor.shutdown()
        super().stop()


def children_of(pid):
    """Which of a parent's processes run functions, and which only help to start them."""
    roles = {}
    for each in descendants(pid)[1:]:
        try:
            command = Path(f"/proc/{each}/cmdline").read_bytes()
        except OSError:
            continue
        roles[each] = "helper" if any(helper in command for helper in HELPERS) else "child"
    return roles
