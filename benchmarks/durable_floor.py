"""How fast 8 producers can put, each waiting for its own message to be on the disk: the floor below any durable queue.

The floor is the least that such a server can do: gather what the 8 sockets hold, one write, one fdatasync, one byte back to
each. No queue, no lease, no decoding. `run` measures it, `drive` measures a manyhands server with the same 8 processes, the
same 100-byte messages and the same time, so that the two numbers may be divided.

    python -m benchmarks.durable_floor          # the floor alone
"""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

PRODUCERS, SECONDS, MESSAGE_BYTES = 8, 2.0, 100


def run() -> float:
    """Messages a second of the bare loop: 8 socket clients, gather, one write and fdatasync, answer all."""
    with tempfile.TemporaryFile() as file, socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, file.fileno()), name="bare loop", daemon=True)
        thread.start()
        with _producers("bare", str(listener.getsockname()[1])) as producers:
            rate = _rate(producers)
        thread.join()
    return rate


def drive(url: str, authkey: str) -> float:
    """Messages a second that 8 clients put into a manyhands server, each put waiting for the server's word."""
    with _producers("manyhands", url, authkey) as producers:
        return _rate(producers)


def _serve(listener: socket.socket, descriptor: int) -> None:
    clients = []
    for _ in range(PRODUCERS):
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        clients.append(client)
    sync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client, selectors.EVENT_READ)
        by_descriptor = {client.fileno(): client for client in clients}
        while clients:
            gathered = []
            for key, _ in selector.select():
                client = by_descriptor[key.fd]
                data = client.recv(4096)
                if data:
                    gathered.append((client, data))
                else:
                    selector.unregister(client)
                    clients.remove(client)
                    client.close()
            if gathered:
                os.write(descriptor, b"".join([data for _, data in gathered]))
                sync(descriptor)
                for client, _ in gathered:
                    client.send(b"1")


@contextmanager
def _producers(*args: str) -> Iterator[list[subprocess.Popen[str]]]:
    command = [sys.executable, "-m", "benchmarks.durable_floor", *args]
    producers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(PRODUCERS)
    ]
    try:
        yield producers
    finally:
        for producer in producers:
            producer.kill()
            producer.communicate()


def _rate(producers: list[subprocess.Popen[str]]) -> float:
    for producer in producers:
        assert producer.stdout is not None
        if producer.stdout.readline() != "ready\n":
            raise RuntimeError("a producer did not start; its own message is above")
    for producer in producers:
        assert producer.stdin is not None
        producer.stdin.write("go\n")
        producer.stdin.flush()
    return sum(int(producer.communicate(timeout=60)[0]) for producer in producers) / SECONDS


def _produce_bare(port: str) -> None:
    with socket.create_connection(("127.0.0.1", int(port))) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        message = bytes(MESSAGE_BYTES)

        def put() -> None:
            sock.sendall(message)
            sock.recv(1)

        _count(put)


def _produce(url: str, authkey: str) -> None:
    import manyhands as mh

    with mh.connect(url, authkey=authkey) as client:
        queue, item = client.queue("durable"), bytes(MESSAGE_BYTES)
        _count(lambda: queue.put(item))


def _count(put: Callable[[], None]) -> None:
    put()
    print("ready", flush=True)
    sys.stdin.readline()
    done, end = 0, time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        put()
        done += 1
    print(done)


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            print(f"bare loop, {PRODUCERS} producers: {run():,.0f} messages/s")
        case ["bare", port]:
            _produce_bare(port)
        case ["manyhands", url, authkey]:
            _produce(url, authkey)
