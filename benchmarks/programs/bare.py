"""The physical limits of the same machine in the same run: a raw TCP ping-pong and a bare relay. Prints JSON.

argv: `pingpong N` echoes one byte N times between two processes, `pingpong N 1` both on one core, `pingpong N 2` each on one
of its own (a reply that wakes a process on another core takes several times as long); `relay N` sends N megabytes from one
process through a second to a third and back, with recv_into and sendall and nothing else; `hop N` sends one byte that way N
times.
"""

import json
import multiprocessing
import os
import socket
import sys
import time

MB = 1024 * 1024


def read_all(sock, view):
    got = 0
    while got < len(view):
        n = sock.recv_into(view[got:])
        if not n:
            raise EOFError
        got += n


def settle_on(core):
    """Stay on one of the cores that this process may use; where that cannot be said, stay where the system puts it."""
    if core is not None and hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[core % len(allowed)]})


def echo(port, size, core=None):
    settle_on(core)
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))
    try:
        while True:
            read_all(sock, buffer)
            sock.sendall(buffer)
    except (EOFError, ConnectionResetError):
        pass


def relay(port, target, size):
    """Forward so many bytes at a time from the client to the echo and back."""
    upstream = socket.create_connection(("127.0.0.1", port))
    downstream = socket.create_connection(("127.0.0.1", target))
    for sock in (upstream, downstream):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))
    try:
        while True:
            read_all(upstream, buffer)
            downstream.sendall(buffer)
            read_all(downstream, buffer)
            upstream.sendall(buffer)
    except (EOFError, ConnectionResetError):
        pass


def listener():
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    return sock, sock.getsockname()[1]


def main():
    mode, n = sys.argv[1], int(sys.argv[2])
    context = multiprocessing.get_context("spawn")
    front, front_port = listener()
    if mode == "pingpong":
        cores = int(sys.argv[3]) if len(sys.argv) > 3 else 0
        child = context.Process(target=echo, args=(front_port, 1, cores - 1 if cores else None), daemon=True)
        child.start()
        settle_on(0 if cores else None)
        peer, _ = front.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        print(json.dumps(trip_times(peer, n)))
    else:
        size = 1 if mode == "hop" else MB
        back, back_port = listener()
        # relay() connects to both: the far echo is reached through `back`, which hands its socket on by acting as echo.
        child = context.Process(target=relay, args=(front_port, back_port, size), daemon=True)
        child.start()
        peer, _ = front.accept()
        far, _ = back.accept()
        child2 = context.Process(target=echo_socket, args=(far, size), daemon=True)
        child2.start()
        if mode == "hop":
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            print(json.dumps(trip_times(peer, n)))
        else:
            buffer = memoryview(bytearray(size))
            started = time.perf_counter()
            for _ in range(n):
                peer.sendall(buffer)
                read_all(peer, buffer)
            print(json.dumps({"mb_per_s": 2 * n / (time.perf_counter() - started)}))
    peer.close()


def trip_times(peer, n):
    """How long one byte takes there and back."""
    byte, trips = memoryview(bytearray(1)), []
    for _ in range(n):
        t = time.perf_counter()
        peer.sendall(byte)
        read_all(peer, byte)
        trips.append(time.perf_counter() - t)
    trips.sort()
    return {"p50": trips[n // 2], "p99": trips[n * 99 // 100]}


def echo_socket(sock, size):
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = memoryview(bytearray(size))
    try:
        while True:
            read_all(sock, buffer)
            sock.sendall(buffer)
    except (EOFError, ConnectionResetError):
        pass


if __name__ == "__main__":
    main()
