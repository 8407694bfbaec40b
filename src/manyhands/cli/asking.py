"""The connection that the asking commands share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from manyhands.address import OWNED_SCHEMES, scheme_of
from manyhands.errors import UnknownId, UsageError
from manyhands.model import QueueStats, halves, name_of
from manyhands.settings import find_url

if TYPE_CHECKING:
    from manyhands.client import Client

CONNECT_S = 3.0
"""How long a command tries: long enough for a server that is just starting, short enough for a person who waits."""


@contextmanager
def connected(url: str | None, authkey: bytes | None) -> Iterator[Client]:
    """A client for one command.

    Raises:
        UsageError: the address is a store's. Opening it here would take it from the server that owns it.
        ServerUnavailable, AuthenticationFailed: see connect.
    """
    url = find_url(url)
    if scheme_of(url) in OWNED_SCHEMES:
        raise UsageError(
            f"{url} is a store; ask the server that has it (tcp://…), or start one: manyhands serve --store {url}"
        )
    from manyhands.client.connecting import connect  # not at the top: a worker's parent is small without a client

    with connect(url, authkey, timeout_s=CONNECT_S) as client:
        yield client


def require_queue(client: Client, name: str) -> list[QueueStats]:
    """The numbers of a queue that must be there, of its items and of its calls, as far as there are any: looking must not
    make one.

    Raises:
        UnknownId: there is no such queue; the sentence says which there are.
    """
    queues = {each.name: each for each in client.stats().queues}
    found = [queues[half] for half in halves(name) if half in queues]
    if not found:
        names = sorted({name_of(each) for each in queues})
        there = f"there are: {', '.join(names)}" if names else "there are none yet"
        raise UnknownId(f"There is no queue {name!r} here; {there}.")
    return found
