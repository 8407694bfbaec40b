"""A TCP proxy that misbehaves on request: cuts at the nth byte, delays, stalls, drops everything.

    with CuttingProxy(server.address) as proxy:
        client = manyhands.connect(proxy.url, authkey=...)
        proxy.cut_after(100, "down")      # the next 100 bytes towards the client pass, then both sides are cut
        proxy.stall()                     # connections stay open and carry nothing: a pulled cable
        proxy.drop_all()                  # every connection ends with a reset, the listener stays

"up" is from the client to the server, "down" the way back. Two threads for each connection: slow, and easy to trust.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Literal

Direction = Literal["up", "down"]

_CHUNK_BYTES = 65536
_LOOK_S = 0.02
"""How often a pump looks whether it was told to stop."""


class CuttingProxy:
    """Forwards TCP connections to a target until told otherwise. All methods are thread-safe."""

    def __init__(self, target: tuple[str, int], *, delay_s: float = 0.0) -> None:
        """Listen on a free port of 127.0.0.1.

        Args:
            target: host and port of the real server.
            delay_s: added to every chunk, in each direction. May be changed at any time.
        """
        self.delay_s = delay_s
        self.is_refusing = False
        """Whether new connections are closed at once, as if nothing listened behind the proxy."""
        self.accepted = 0
        """Connections accepted so far."""
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._left: dict[Direction, int | None] = {"up": None, "down": None}
        self._is_closed = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.address: tuple[str, int] = self._listener.getsockname()[:2]
        self.url = f"tcp://{self.address[0]}:{self.address[1]}"
        self._threads = [threading.Thread(target=self._accept, name="proxy-accept", daemon=True)]
        self._threads[0].start()

    def cut_after(self, n_bytes: int, direction: Direction) -> None:
        """Let n_bytes more pass in that direction, counted over all connections, then drop all of them once."""
        with self._lock:
            self._left[direction] = n_bytes

    def stall(self) -> None:
        """Carry nothing from now on, but keep every connection open and accept new ones."""
        self._flows.clear()

    def resume(self) -> None:
        """End a stall; what was held back is delivered."""
        self._flows.set()

    def retarget(self, target: tuple[str, int]) -> None:
        """Send connections that come from now on to another server."""
        self._target = target

    def drop_all(self) -> None:
        """End every connection with a reset, in both directions. New ones are accepted."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
            self._left = {"up": None, "down": None}
        for pair in pairs:
            for sock in pair:
                _reset(sock)

    def close(self) -> None:
        """Drop everything and stop listening. Idempotent."""
        self._is_closed = True
        self._flows.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop_all()
        for thread in self._threads:
            thread.join(5)

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._is_closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.is_refusing:
                _reset(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                _reset(client)
                continue
            for sock in (client, server):
                sock.settimeout(_LOOK_S)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._pairs.append((client, server))
            for source, sink, direction in ((client, server, "up"), (server, client, "down")):
                pump = threading.Thread(
                    target=self._pump, args=(source, sink, direction), name=f"proxy-{direction}", daemon=True
                )
                self._threads.append(pump)
                pump.start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: Direction) -> None:
        try:
            while not self._is_closed:
                try:
                    data = source.recv(_CHUNK_BYTES)
                except TimeoutError:
                    continue
                if not data:
                    break
                if self.delay_s:
                    time.sleep(self.delay_s)
                self._flows.wait()
                is_cut, data = self._charge(direction, data)
                _send_all(sink, data)
                if is_cut:
                    self.drop_all()
                    return
        except OSError:
            pass  # the other pump or drop_all closed it
        finally:
            # A quiet end travels on as a quiet end; what the other direction still carries may finish.
            with contextlib.suppress(OSError):
                sink.shutdown(socket.SHUT_WR)

    def _charge(self, direction: Direction, data: bytes) -> tuple[bool, bytes]:
        with self._lock:
            left = self._left[direction]
            if left is None:
                return False, data
            if left > len(data):
                self._left[direction] = left - len(data)
                return False, data
            return True, data[:left]


def _send_all(sink: socket.socket, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[sink.send(view) :]
        except TimeoutError:
            continue


def _reset(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # A thread blocked in recv keeps the connection alive past close(); shutdown wakes it. Windows packs linger as shorts
    # and refuses the above: it then sees an ordinary end instead of a reset.
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RD)
    sock.close()
