"""What a peer can be asked: to send one call and give its result. What it does better than call by call, it overrides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import deque
from pathlib import Path

from benchmarks.peers import work

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60.0


class Peer:
    """One way to run functions in other processes. `send` and `value` are enough; the rest has a plain default."""

    configuration = ""
    """How it is set up, for the reader of the results."""
    payload_type = bytes
    """str where the recommended encoding has no bytes."""
    has_map = False
    """Whether it has an interface for many calls at once, other than a loop."""

    def __init__(self):
        self.roles = {}
        """pid -> what that process is (server, parent, …); any other of ours is a worker."""
        self._processes = []

    def start(self, workers):
        raise NotImplementedError

    def send(self, function, argument):
        """Send one call; a handle for `value`."""
        raise NotImplementedError

    def value(self, handle):
        """Wait for a call's result."""
        raise NotImplementedError

    def map(self, function, arguments):
        """All results, in order, by the peer's interface for many calls."""
        raise NotImplementedError

    def submit(self, n):
        """n no-ops sent one by one, then all results collected."""
        handles = deque([self.send(work.noop, i) for i in range(n)])
        return [self.value(handles.popleft()) for _ in range(n)]

    def call(self):
        """One no-op there and back."""
        return self.value(self.send(work.noop, 1))

    def echo(self, payload, n, window=8):
        """n payloads there and back, `window` of them on the way at once."""
        on_the_way = deque()
        for _ in range(n):
            if len(on_the_way) == window:
                yield self.value(on_the_way.popleft())
            on_the_way.append(self.send(work.echo, payload))
        while on_the_way:
            yield self.value(on_the_way.popleft())

    def find_roles(self):
        """`roles` as they are now, for those whose processes start others."""
        return self.roles

    def stop(self):
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def run(self, command, *arguments, role="worker"):
        """Start a command of the peer's own environment (its worker); what it prints is dropped."""
        process = subprocess.Popen(
            [str(Path(sys.executable).with_name(command)), *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL if not os.environ.get("PEER_DEBUG") else None,
        )
        self._processes.append(process)
        self.roles[process.pid] = role
        return process


def redis_url():
    """Where the benchmark's Valkey listens."""
    return os.environ["REDIS_URL"]
