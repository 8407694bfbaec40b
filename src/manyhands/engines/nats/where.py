"""A NATS URL taken apart: `nats://[user[:password]@]host[:port][,host[:port]…][?space=…&replicas=…&tls=…&creds=…]`."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from manyhands.errors import UsageError

DEFAULT_PORT = 4222
EXAMPLE = "write it like nats://127.0.0.1:4222, nats://one,two,three?replicas=3 or nats://user:password@host?space=mail"
_SPACE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAMES = ("space", "replicas", "tls", "creds")


class Where(NamedTuple):
    """Which NATS, and which part of it is ours."""

    hosts: list[tuple[str, int]]
    """Servers of one cluster; any of them tells of the others."""
    username: str | None
    password: str | None
    space: str
    """One stream; spaces know nothing of each other."""
    replicas: int
    """How many servers hold the stream; 0: three where the cluster has as many, else one."""
    is_tls: bool
    creds: str
    """Path of a credentials file; "" for none."""

    @property
    def text(self) -> str:
        """The same for people, without the password."""
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts)
        return f"nats://{hosts}"

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return f"MANYHANDS_{self.space}"

    @property
    def prefix(self) -> str:
        """What all subjects of the space begin with."""
        return f"manyhands.{self.space}"


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
    except ValueError:
        raise UsageError(f"a NATS URL could not be read; {EXAMPLE}.") from None
    if unknown := sorted(set(query) - set(_NAMES)):
        raise UsageError(f"a NATS URL takes {', '.join(_NAMES)}, not {', '.join(unknown)}; {EXAMPLE}.")
    if parts.path not in ("", "/"):
        raise UsageError(f"a NATS URL has no path; name a part of the server with ?space=; {EXAMPLE}.")
    user, at, hosts = parts.netloc.rpartition("@")
    username, _, password = user.partition(":")
    space, replicas, tls = query.get("space", "main"), query.get("replicas", "0"), query.get("tls", "")
    if not _SPACE.fullmatch(space):
        raise UsageError(f"space={space!r:.80} is not 1 to 64 letters, digits, dashes or underscores.")
    if replicas not in ("0", "1", "3", "5"):
        raise UsageError(f"replicas={replicas!r:.20} is not 1, 3 or 5, the numbers of which a majority is worth something.")
    if tls not in ("", "0", "1", "true", "false"):
        raise UsageError(f"tls={tls!r:.20} is neither true nor false.")
    return Where(
        [_host(one) for one in hosts.split(",")],
        unquote(username) or None if at else None,
        unquote(password) or None if at else None,
        space,
        int(replicas),
        tls in ("1", "true"),
        query.get("creds", ""),
    )


def _host(text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    except ValueError:
        host, port = "", 0
    if not host:
        raise UsageError(f"a NATS URL needs a host that can be read; {EXAMPLE}.")
    return host, port
