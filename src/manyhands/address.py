"""Addresses as users write them: `tcp://host:port`, and the URLs that name a store instead of a server."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import urlsplit

from manyhands.errors import UnsupportedFeature, UsageError
from manyhands.model import DEFAULT_PORT

DEFAULT_URL = f"tcp://127.0.0.1:{DEFAULT_PORT}"
SERVER_SCHEMES = ("tcp", "tls")
STORE_SCHEMES = ("memory", "sqlite", "redis", "rediss", "nats")
ALIASES = {"valkey": "redis", "valkeys": "rediss"}
"""Other names of the same, as some clouds and clients write them."""
OWNED_SCHEMES = ("memory", "sqlite")
"""Stores that one process has to itself; the others many may open at once."""

EXAMPLE = f"write it like {DEFAULT_URL} or tcp://[::1]:{DEFAULT_PORT}"
STORE_EXAMPLE = "write a store like sqlite:///jobs.db, redis://host, nats://host or memory://"


class Address(NamedTuple):
    """Where a manyhands server listens."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """The same as a URL; an IPv6 host gets its brackets back."""
        return f"tcp://[{self.host}]:{self.port}" if ":" in self.host else f"tcp://{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine can reach it. A name other than localhost is taken to be the network's."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_any(self) -> bool:
        """Whether it means every interface of this machine, and so is nothing that a client could dial."""
        return self.host in ("0.0.0.0", "::")


def scheme_of(url: str, example: str = EXAMPLE) -> str:
    """What stands before `://`, in lower case, by the name that we use for it.

    Args:
        example: what to write, for the sentence that says that this is nothing.

    Raises:
        UsageError: there is none, or it is not one of ours.
    """
    if not isinstance(url, str):
        raise UsageError(f"The address must be a URL as text, not {type(url).__name__}; {example}.")
    scheme, found, _ = url.partition("://")
    scheme = ALIASES.get(scheme.lower(), scheme.lower())
    if not found:
        raise UsageError(f"{url!r} has no scheme; {example}.")
    if scheme not in (*SERVER_SCHEMES, *STORE_SCHEMES):
        raise UsageError(
            f"{scheme}:// is not an address manyhands knows; use tcp://host:port, redis://host, nats://host, memory:// or "
            "sqlite:///file.db."
        )
    return scheme


def without_password(url: str) -> str:
    """The URL as it may be shown and logged."""
    scheme, found, rest = url.partition("://")
    user, at, place = rest.rpartition("@")
    return f"{scheme}://{user.partition(':')[0]}:…@{place}" if found and at and ":" in user else url


def parse_address(url: str) -> Address:
    """The host and port of a `tcp://` URL.

    Raises:
        UsageError: it is not such a URL; the sentence says which part is wrong.
        UnsupportedFeature: `tls://`, which this version cannot speak; nothing weaker is done instead.
    """
    scheme = scheme_of(url)
    if scheme in STORE_SCHEMES:
        raise UsageError(f"{url!r} names a store, not an address to listen on or connect to; {EXAMPLE}.")
    if scheme == "tls":
        raise UnsupportedFeature(
            "tls:// is not in this version of manyhands; stay on loopback, use an SSH tunnel or VPN, or on a network you "
            "trust serve tcp:// with insecure=True."
        )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise UsageError(f"{url!r} cannot be read as an address ({error}); {EXAMPLE}.") from None
    if not host:
        raise UsageError(f"{url!r} names no host; {EXAMPLE}, or tcp://0.0.0.0:{DEFAULT_PORT} to listen on every interface.")
    if parts.username is not None or parts.password is not None:
        raise UsageError("An address carries no user or key, since addresses end up in logs; pass authkey= instead.")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UsageError(f"{url!r} has something after the port that means nothing here; {EXAMPLE}.")
    return Address(host, DEFAULT_PORT if port is None else port)
