"""What a client says while nobody answers: first in the log, now and then, and at the end as its error.

A program that waits without a word looks hung; one that complains at once complains whenever two programs start together.
So the first line comes after FIRST_LINE_S, when it is likely that somebody has to do something, and then every LINE_EVERY_S.
"""

from __future__ import annotations

import errno
import math
import socket

from manyhands.address import Address

FIRST_LINE_S, LINE_EVERY_S = 3.0, 4.0
PAUSE_AT_MOST_S = 1.0
"""Somebody waits for this connection: who is started second should not find the first asleep."""
_LAST_S = 0.05
"""The last attempt begins so long before the end."""

_FIREWALL = "a firewall that drops silently looks like this, and so does a machine that is off or an address that is wrong"
_HINTS: dict[type[OSError], str] = {
    ConnectionRefusedError: "nothing listens there: check that the master is started, and that address and port are its own",
    TimeoutError: _FIREWALL,
    ConnectionResetError: "something accepted the connection and closed it: check that it is the master, and not overloaded",
    socket.gaierror: "the host name is not known at the moment: check its spelling and this machine's network",
}
_HINTS_BY_NUMBER = {
    errno.EHOSTUNREACH: "no way leads there: check the address, both machines' networks, and firewalls",
    errno.ENETUNREACH: "this machine has no network that leads there: check the address and its network",
}


def hint(cause: OSError) -> str:
    """What to check when connecting failed for this reason."""
    if cause.errno in _HINTS_BY_NUMBER:
        return _HINTS_BY_NUMBER[cause.errno]
    for kind, text in _HINTS.items():
        if isinstance(cause, kind):
            return text
    return "check that the master is started, that the address is right, and that no firewall is in between"


def reason(cause: OSError) -> str:
    """The cause in the system's own words."""
    return cause.strerror or str(cause) or type(cause).__name__


class Trying:
    """When to say that nobody answers, and how; told the time.

    Args:
        started_mono: when the first attempt began.
        deadline_mono: when the client gives up; math.inf is never.
    """

    def __init__(self, address: Address, started_mono: float, deadline_mono: float) -> None:
        self._where = f"{address.host}:{address.port}"
        self._started_mono = started_mono
        self._deadline_mono = deadline_mono
        self._say_at = started_mono + FIRST_LINE_S

    @property
    def say_at(self) -> float:
        """When the next line is due; an attempt should not last beyond it without a word."""
        return self._say_at

    def next_at(self, proposed_at: float, now: float) -> float | None:
        """When to try again, given what the backoff proposes; the last attempt comes at the end, None when that is over."""
        last_at = self._deadline_mono - _LAST_S
        return None if now >= last_at else min(proposed_at, now + PAUSE_AT_MOST_S, last_at)

    def line(self, cause: OSError, now: float) -> str | None:
        """What to log now, if it is time and there is some left to wait."""
        if now < self._say_at or now >= self._deadline_mono:
            return None
        what = f"Nobody answers at {self._where} yet ({reason(cause)}; {hint(cause)})"
        if self._deadline_mono == math.inf:
            self._say_at = math.inf  # who waits for ever says so once
            return f"{what}; trying until somebody does"
        self._say_at = now + LINE_EVERY_S
        return f"{what}; trying for {self._deadline_mono - now:.0f} s more"

    def verdict(self, cause: OSError, now: float) -> str:
        """The error's sentence at the end."""
        return (
            f"No manyhands server answers at {self._where} after {now - self._started_mono:.1f} s "
            f"({reason(cause)}); {hint(cause)}."
        )
