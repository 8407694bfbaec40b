"""A Redis URL taken apart (`valkey://` is the same): `redis://[user[:password]@]host[:port][,host[:port]…][/db][?space=…&sentinel=…&replicas=…]`."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from manyhands.errors import UsageError

DEFAULT_PORT, SENTINEL_PORT = 6379, 26379
MAX_REPLICAS = 9
EXAMPLE = "write it like redis://127.0.0.1:6379, rediss://user:password@host/0 or redis://one,two,three?sentinel=mymaster"
_SPACE = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class Where(NamedTuple):
    """Which Redis, and which part of it is ours."""

    hosts: list[tuple[str, int]]
    """Servers, nodes of a cluster or Sentinels; any of them tells the way."""
    is_tls: bool
    db: int
    username: str | None
    password: str | None
    space: str
    """All keys of one space lie in one hash slot, so that a step is atomic in a cluster too; spaces know nothing of each
    other."""
    sentinel: str
    """The name of the master that the hosts, being Sentinels, watch; "" for none."""
    replicas: int = 0
    """How many replicas must have what is acknowledged."""

    @property
    def text(self) -> str:
        """The same for people, without the password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        text = f"{'rediss' if self.is_tls else 'redis'}://{hosts}/{self.db}"
        return f"{text}?sentinel={self.sentinel}" if self.sentinel else text


def parse(url: str) -> Where:
    """Take a URL apart.

    Raises:
        UsageError: it is none; the sentence says which part is wrong, and never the password.
    """
    try:
        parts = urlsplit(url)
        query = {
            name: values[-1]
            for name, values in parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)).items()
        }
        path = parts.path.strip("/")
        db = int(path) if path else 0
    except ValueError:
        raise UsageError(f"a Redis URL could not be read; {EXAMPLE}.") from None
    user, at, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    space, sentinel = query.pop("space", "main"), query.pop("sentinel", "")
    replicas = query.pop("replicas", "0")
    if query:
        raise UsageError(
            f"a Redis URL takes space=, sentinel= and replicas= only, not {', '.join(sorted(query))}; {EXAMPLE}."
        )
    if not replicas.isdecimal() or int(replicas) > MAX_REPLICAS:
        raise UsageError(f"replicas={replicas!r:.40} is no number from 0 to {MAX_REPLICAS}: how many must have what is put.")
    if not _SPACE.fullmatch(space):
        raise UsageError(f"space={space!r:.80} is not 1 to 64 letters, digits, dots, dashes or underscores.")
    found = [_host(one, SENTINEL_PORT if sentinel else DEFAULT_PORT) for one in hosts.split(",")]
    return Where(
        found,
        parts.scheme.lower() in ("rediss", "valkeys"),
        db,
        unquote(username) or None if at else None,
        unquote(password) or None if at else None,
        space,
        sentinel,
        int(replicas),
    )


def _host(text: str, port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or port
    except ValueError:
        host = ""
    if not host:
        raise UsageError(f"a Redis URL needs a host that can be read; {EXAMPLE}.")
    return host, port
