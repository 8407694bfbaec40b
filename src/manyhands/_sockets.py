"""What this project asks of the operating system's TCP, for both ends: options, binding, and who holds a port.

Options are wishes: one that a platform lacks is left out. The numbers are those of docs/adr/0031: a peer that vanished
without a word is noticed in about half a minute, where the kernel's own defaults take two hours.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import sys
from typing import Any

from manyhands.address import Address
from manyhands.errors import AddressInUse, UsageError

KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 15, 5, 3
USER_TIMEOUT_MS = 1000 * (KEEPALIVE_IDLE_S + KEEPALIVE_INTERVAL_S * KEEPALIVE_PROBES)
BACKLOG = 4096
"""Asked of the kernel, which cuts it to its own limit. The standard library's 16 lets connects hang beyond ~100 workers."""

_PROC_LISTENING = "0A"
_QUICKACK = getattr(socket, "TCP_QUICKACK", None)


def tune(sock: socket.socket) -> None:
    """Set on a connected TCP socket: no delay for small frames, keepalive, and a limit on unacknowledged data."""
    wishes = (
        (socket.IPPROTO_TCP, getattr(socket, "TCP_NODELAY", None), 1),
        (socket.SOL_SOCKET, getattr(socket, "SO_KEEPALIVE", None), 1),
        # macOS calls the idle time TCP_KEEPALIVE.
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None)), KEEPALIVE_IDLE_S),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), KEEPALIVE_INTERVAL_S),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_USER_TIMEOUT", None), USER_TIMEOUT_MS),
    )
    for level, option, value in wishes:
        if option is not None:
            with contextlib.suppress(OSError):
                sock.setsockopt(level, option, value)


def acknowledge_now(sock: socket.socket) -> None:
    """Acknowledge what has arrived without the kernel's delay, where it can be told to (Linux); it forgets it by itself."""
    if _QUICKACK is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def reached_at(transport: Any) -> tuple[str, int]:
    """This side's address of a connection, which the other side has dialled; an IPv4 one behind an IPv6 socket as IPv4."""
    host, port = transport.get_extra_info("sockname")[:2]
    return host.removeprefix("::ffff:"), port


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; '' (or '0.0.0.0', '::') is every interface, with IPv6 where '' or '::' and the machine allow it.

    Raises:
        AddressInUse: another program listens there; the sentence names it where the platform tells.
        UsageError: the host is not an address of this machine, or the port is not allowed.
    """
    if not 0 <= port <= 65535:
        raise UsageError(f"Port {port} does not exist; give one from 1 to 65535, or 0 for any free one.")
    try:
        return _listen(host, port)
    except OSError as error:
        raise _explained(host, port, error) from error


def _listen(host: str, port: int) -> socket.socket:
    if host in ("", "::") and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # IPv6 compiled in but switched off: fall through to IPv4
            return _bound(socket.AF_INET6, ("::", port), is_dual=True)
    if host == "":
        host = "0.0.0.0"
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    return _bound(family, address, is_dual=False)


def _bound(family: int, address: object, *, is_dual: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform == "win32":
            # There SO_REUSEADDR would let a second program steal a port that is in use.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if is_dual else 1)
        sock.bind(address)  # type: ignore[arg-type]
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except BaseException:
        sock.close()
        raise
    return sock


def dialable(sock: socket.socket) -> Address:
    """An address of this listening socket that a program on this machine can dial."""
    host, port = sock.getsockname()[:2]
    if host == "0.0.0.0":
        host = "127.0.0.1"
    elif host == "::":
        is_dual = not sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
        host = "127.0.0.1" if is_dual else "::1"
    return Address(host, port)


def address_on_the_network() -> str:
    """This machine's address as others would most likely dial it; "" when it has none. Nothing is sent to find out."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        probe.connect(("192.0.2.1", 9))  # nobody's address; the kernel only looks up which way it would go
        return str(probe.getsockname()[0])
    return ""


def _explained(host: str, port: int, error: OSError) -> Exception:
    where = f"{host or '*'}:{port}"
    if isinstance(error, socket.gaierror):
        return UsageError(
            f"Cannot listen on {where}: the host name is not known here ({error.strerror}); give an address of this machine."
        )
    if error.errno == errno.EADDRINUSE or (sys.platform == "win32" and error.errno == errno.EACCES):
        holder = holder_of(port)
        by = f" by pid {holder[0]} ({holder[1]})" if holder else ""
        hint = " On macOS the AirPlay receiver holds 5000." if port == 5000 and sys.platform == "darwin" else ""
        return AddressInUse(
            f"Port {port} on {host or 'all interfaces'} is in use{by}; stop that program or choose another port"
            f" (0 finds a free one).{hint}",
            host=host,
            port=port,
            pid=holder[0] if holder else None,
        )
    if error.errno == errno.EACCES:
        return UsageError(f"Cannot listen on {where}: this user may not use that port; choose one above 1023.")
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"Cannot listen on {where}: {host} is not an address of this machine; use '' for all interfaces.")
    return UsageError(f"Cannot listen on {where}: {error.strerror or error}.")


def holder_of(port: int) -> tuple[int, str] | None:
    """The pid and program that listen on a TCP port, where /proc tells (Linux, own processes or root); else None."""
    try:
        inodes = _listening_inodes(port)
        if not inodes:
            return None
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it ended meanwhile, or belongs to somebody else
                for fd in os.listdir(f"/proc/{pid}/fd"):
                    if os.readlink(f"/proc/{pid}/fd/{fd}") in inodes:
                        return int(pid), _program(pid)
    except OSError:
        return None
    return None


def _listening_inodes(port: int) -> set[str]:
    found = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError), open(table, encoding="ascii") as lines:
            for line in lines:
                fields = line.split()
                if len(fields) > 9 and fields[3] == _PROC_LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                    found.add(f"socket:[{fields[9]}]")
    return found


def _program(pid: str) -> str:
    with open(f"/proc/{pid}/cmdline", "rb") as file:
        words = file.read(400).replace(b"\0", b" ").decode("utf-8", "replace").split()
    return " ".join(words)[:80] or "a program without a name"
