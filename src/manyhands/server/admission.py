"""Who may wait at the door: limits on connections that have not shown the key. Pure; the time is an argument.

Before a peer has shown the key it gets little: a few seconds in all, a place among a bounded number of pending ones, one
log line for its address and minute, and a slower and slower answer to wrong keys. All of it is counted by address, so
that somebody who guesses or floods holds up nobody else.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Generic, TypeVar

C = TypeVar("C")

HANDSHAKE_S = 3.0
"""A connection that has not shown the key by then is dropped."""
MAX_PENDING = 512
FAILURE_DELAY_S = 0.25
"""A wrong key is answered this much later, however few there were."""
FAILURE_BURST = 10
"""So many wrong keys of one address are answered after that delay; further ones only as fast as FAILURES_PER_S."""
FAILURES_PER_S = 1.0
LOG_EVERY_S = 60.0
MAX_ADDRESSES = 4096
"""Addresses remembered at most; the longest unseen is forgotten, so that a flood of addresses costs bounded memory."""


def source_of(host: str) -> str:
    """What counts as one source: the IPv4 address, or the /64 network of an IPv6 address, which one machine owns whole."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


class Pending(Generic[C]):
    """Connections that have not shown the key, oldest first."""

    def __init__(self, *, limit: int = MAX_PENDING, handshake_s: float = HANDSHAKE_S) -> None:
        self._limit = limit
        self._handshake_s = handshake_s
        self._since: OrderedDict[C, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._since)

    def add(self, connection: C, now: float) -> C | None:
        """Note a new one; the oldest, which must be dropped, if there is one too many."""
        self._since[connection] = now
        if len(self._since) <= self._limit:
            return None
        return self._since.popitem(last=False)[0]

    def remove(self, connection: C) -> None:
        """It showed the key, or it is gone."""
        self._since.pop(connection, None)

    def overdue(self, now: float) -> list[C]:
        """Those whose time is over; they are no longer pending and must be dropped."""
        found = []
        for connection, since in self._since.items():
            if now - since < self._handshake_s:
                break
            found.append(connection)
        for connection in found:
            del self._since[connection]
        return found

    def next_due_s(self, now: float) -> float | None:
        """Seconds until the oldest is overdue; None when nobody is pending."""
        for since in self._since.values():
            return max(0.0, since + self._handshake_s - now)
        return None


class Failures:
    """A token bucket of wrong keys for each source."""

    def __init__(self) -> None:
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()  # source: (tokens, as of)

    def delay_s(self, source: str, now: float) -> float:
        """Note a wrong key; how long to wait before the answer."""
        tokens, at = self._left.pop(source, (float(FAILURE_BURST), now))
        tokens = min(float(FAILURE_BURST), tokens + (now - at) * FAILURES_PER_S) - 1.0
        self._left[source] = (tokens, now)
        if len(self._left) > MAX_ADDRESSES:
            self._left.popitem(last=False)
        return FAILURE_DELAY_S + max(0.0, -tokens) / FAILURES_PER_S


class Quiet:
    """Which complaints to log: the first of a source in each minute, with how many were kept back before it."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, tuple[float, int]] = OrderedDict()  # source: (logged at, kept back since)

    def kept_back(self, source: str, now: float) -> int | None:
        """None: do not log this one. Else log it, and how many of this source were not logged since the last."""
        at, count = self._seen.pop(source, (-LOG_EVERY_S, 0))
        is_due = now - at >= LOG_EVERY_S
        self._seen[source] = (now, 0) if is_due else (at, count + 1)
        if len(self._seen) > MAX_ADDRESSES:
            self._seen.popitem(last=False)
        return count if is_due else None
