"""A server that runs out of descriptors comes through it by itself."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from manyhands.auth import Keyring
from manyhands.engines.remote import RemoteEngine
from manyhands.testing.contract.peer import Peer

pytestmark = pytest.mark.faults

SERVES_WITH_FEW_DESCRIPTORS = """
import resource, sys
from manyhands import _bridge
if sys.argv[1] == "asyncio":
    import asyncio
    from manyhands.server import listener
    _bridge.new_loop = listener.new_loop = asyncio.new_event_loop
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.server import SocketServer

server = SocketServer(MemoryEngine(), port=0, keyring=Keyring("k"))
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
print(server.address.port, flush=True)
server.run()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no descriptor limit to set")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_it_goes_on_after_more_connections_than_descriptors(loop: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SERVES_WITH_FEW_DESCRIPTORS, loop], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        before = Peer(RemoteEngine(("127.0.0.1", port), Keyring("k")))
        crowd = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(100)]
        before.ping()
        cpu_before, at = _cpu_s(process.pid), time.monotonic()
        before.ping()
        for sock in crowd:
            sock.close()
        after = Peer(RemoteEngine(("127.0.0.1", port), Keyring("k"), connect_timeout_s=20.0))
        after.ping()
        before.ping()
        assert _cpu_s(process.pid) - cpu_before < 0.5 * (time.monotonic() - at) + 0.5, "it spins while it cannot accept"
        for peer in (before, after):
            peer.goodbye()
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert errors.count("\n") <= 5, errors


def _cpu_s(pid: int) -> float:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / 100
