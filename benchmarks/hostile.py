"""An honest client beside attackers, and what an idle connection costs. Server, attackers and client are own processes.

    python -m benchmarks.hostile          the probe alone, as JSON

The attackers hold silent connections (as fast as they are dropped, new ones come), send garbage and guess keys, all from
the address of the honest client, which has nothing but its key to tell it apart.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from typing import Any

from manyhands import auth, events
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.engines.remote import RemoteEngine
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import Peer, message
from manyhands.wire import handshake
from manyhands.wire.frames import FrameEncoder

KEYRING = Keyring("the key of this benchmark")
SILENT, GARBAGE, GUESSING = 2000, 16, 8
HONEST_ROUNDS = 1500
IDLE = 10_000
_ENOUGH_BYTES = 200


def run(*, silent: int = SILENT, rounds: int = HONEST_ROUNDS, idle: int = IDLE) -> dict[str, Any]:
    """What a put + get + ack of an honest client takes (ms), calm and under attack, and the server's memory."""
    with _process("serve") as server:
        port = int(_line(server))
        peer = Peer(RemoteEngine(("127.0.0.1", port), KEYRING))
        _rounds(peer, 200)
        calm, calm_rss = _rounds(peer, rounds), _rss_bytes(server.pid)
        with _process("attack", port, silent) as attackers:
            _line(attackers)  # all of them are connected
            attacked, peak_rss = _rounds(peer, rounds), _rss_bytes(server.pid)
        quiet_rss = _rss_bytes(server.pid)
        with _process("idle", port, idle) as sleepers:
            connected = int(_line(sleepers))
            idle_bytes = (_rss_bytes(server.pid) - quiet_rss) / max(1, connected)
            beside_idle = _rounds(peer, rounds)
        peer.goodbye()
    return {
        "p99_s": _percentile(attacked, 99) / 1e3,
        "calm_p50_ms": _percentile(calm, 50),
        "calm_p99_ms": _percentile(calm, 99),
        "attacked_p50_ms": _percentile(attacked, 50),
        "attacked_p99_ms": _percentile(attacked, 99),
        "attacked_max_ms": max(attacked),
        "silent_connections": silent,
        "server_grew_mb": (peak_rss - calm_rss) / 1e6,
        "idle_connections": connected,
        "idle_connection_bytes": idle_bytes,
        "beside_idle_p99_ms": _percentile(beside_idle, 99),
    }


def ping_pong(rounds: int = 5000) -> dict[str, float]:
    """The round trip of a Ping through client driver and server beside a raw socket's, in one run (µs, medians)."""
    with _process("serve") as server, _process("echo") as echo:
        peer = Peer(RemoteEngine(("127.0.0.1", int(_line(server))), KEYRING))
        ours, raw = [], []
        with socket.create_connection(("127.0.0.1", int(_line(echo)))) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for _ in range(5):  # in turn, so that a change of placement meets both
                raw += _timed(lambda: (sock.send(b"x" * 40), sock.recv(100)), rounds // 5)
                ours += _timed(lambda: _ping(peer), rounds // 5)
        peer.goodbye()
    return {"ping_p50_us": _percentile(ours, 50) * 1e3, "raw_p50_us": _percentile(raw, 50) * 1e3}


def _ping(peer: Peer) -> None:
    pending = peer.start(events.Ping(0))
    pending.answer()


def _rounds(peer: Peer, n: int) -> list[float]:
    def once() -> None:
        peer.put("q", message(b"x" * 100))
        peer.ack(peer.take("q"))

    return _timed(once, n)


def _timed(once: Any, n: int) -> list[float]:
    found = []
    for _ in range(n):
        started = time.perf_counter()
        once()
        found.append((time.perf_counter() - started) * 1e3)
    return found


def _percentile(values: list[float], percent: int) -> float:
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def _rss_bytes(pid: int) -> int:
    """Resident memory, 0 where /proc does not tell."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


@contextlib.contextmanager
def _process(role: str, *args: object) -> Any:
    command = [sys.executable, "-m", "benchmarks.hostile", role, *map(str, args)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


# -- the other processes -----------------------------------------------------------------------------------------------


def serve() -> None:
    engine = MemoryEngine()
    server = SocketServer(engine, port=0, keyring=KEYRING)
    print(server.address.port, flush=True)
    server.run()


def echo() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while data := sock.recv(65536):
            sock.sendall(data)


async def attack(port: int, silent: int) -> None:
    connected = asyncio.Semaphore(0)

    async def stay_silent() -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                connected.release()
                while await reader.read(1000):
                    pass
                writer.close()
            await asyncio.sleep(0.5)

    async def send(data: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                await reader.readexactly(60)
                writer.write(data)
                await reader.read(1000)
                writer.close()
            await asyncio.sleep(0.02)

    hello = handshake.message(handshake.build_hello(bytes(32)))
    wrong = hello + handshake.message(handshake.build_auth(bytes(4), bytes(32)))
    async with asyncio.TaskGroup() as group:
        for _ in range(silent):
            group.create_task(stay_silent(), name="silent")
        for _ in range(GARBAGE):
            group.create_task(send(os.urandom(300)), name="garbage")
        for _ in range(GUESSING):
            group.create_task(send(wrong), name="guessing")
        for _ in range(silent):
            await connected.acquire()
        print("all connected", flush=True)


async def idle(port: int, n: int) -> None:
    """Open n sessions that have the key and then say nothing."""
    key = KEYRING.first
    encode = FrameEncoder().encode
    kept = []
    gate = asyncio.Semaphore(50)

    async def one() -> None:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
            size = int.from_bytes(await reader.readexactly(4), "big")
            challenge = await reader.readexactly(size)
            hello = handshake.build_hello(os.urandom(32))
            proof = auth.client_proof(key, handshake.VERSION, challenge, hello)
            writer.write(handshake.message(hello) + handshake.message(handshake.build_auth(key.id, proof)))
            size = int.from_bytes(await reader.readexactly(4), "big")
            await reader.readexactly(size)
            writer.writelines(encode([events.Attach(secrets.token_hex(16))]))
            if not await reader.read(_ENOUGH_BYTES):
                raise ConnectionError("the server closed an honest session")
            kept.append((reader, writer))

    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(one(), name="idle")
    print(len(kept), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    match sys.argv[1:]:
        case ["serve"]:
            serve()
        case ["echo"]:
            echo()
        case ["attack", port, n]:
            asyncio.run(attack(int(port), int(n)))
        case ["idle", port, n]:
            asyncio.run(idle(int(port), int(n)))
        case _:
            print(json.dumps(run() | ping_pong(), indent=1))


if __name__ == "__main__":
    main()
