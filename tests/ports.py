"""Ports for servers that tests kill and start again on the same one."""

from __future__ import annotations

import random
import socket

_PORTS = range(10_240, 22_000)
"""Below what systems hand out by themselves: there, a client that tries again while its server is away would sooner or
later be given the server's own port, and be connected to itself. A Redis cluster's node takes the port 10,000 above as
well, which is below it too."""

_chooser = random.Random()
_given: set[int] = set()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on, and that this process was not given before."""
    while True:
        port = _chooser.choice(_PORTS)
        if port not in _given and not _is_taken(port):
            _given.add(port)
            return port


def _is_taken(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False
