"""The address that a manager is given: (host, port) as the standard library takes it, or an engine's URL."""

from __future__ import annotations

from manyhands.address import scheme_of, without_password
from manyhands.errors import UnsupportedFeature, UsageError

_EXAMPLE = "write it like ('', 5000) on the master and ('192.0.2.7', 5000) on a worker"


def engine_url(address: object) -> str | None:
    """The address if it is an engine URL; None if it is of another kind."""
    if not isinstance(address, str) or "://" not in address:
        return None
    try:
        scheme_of(address)
    except UsageError as error:
        raise type(error)(f"address={without_password(address)!r}: {error}") from None
    return address


def checked_address(address: object) -> tuple[str, int]:
    """Host and port; None is any free port on loopback.

    Raises:
        UsageError: it is neither.
        UnsupportedFeature: a Unix socket or a named pipe.
    """
    match address:
        case None:
            return ("127.0.0.1", 0)
        case (str(host), int(port)) if 0 <= port <= 65535:
            return (host, port)
        case str():
            raise UnsupportedFeature(
                f"address={address!r}: Unix sockets and pipes are not in this version of manyhands; {_EXAMPLE}."
            )
    raise UsageError(f"address={address!r} is no (host, port); {_EXAMPLE}.")
