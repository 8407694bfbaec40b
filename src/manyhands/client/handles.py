"""How a queue travels: as plain data, its server's address and its name.

To a child that is being started the key goes along. In a message it does not: whoever receives the message has a client
already, and that one is used when it leads to the same server. Addresses differ by where one stands: the master itself
says 127.0.0.1, its workers say 192.0.2.7, and the port is what they agree on. So:

    a client of this process with that very address             that one
    exactly one with that port, and one side says loopback      that one: the same server, seen from another machine
    none                                                        a new client, with the key that all clients here share
"""

from __future__ import annotations

import multiprocessing.context
import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from manyhands.address import Address, parse_address
from manyhands.errors import UsageError

if TYPE_CHECKING:
    from manyhands.client.client import Client
    from manyhands.client.queue import Queue

open_clients: weakref.WeakSet[Client] = weakref.WeakSet()
"""This process's clients with an open session."""
_elsewhere: dict[str, Client] = {}
"""Those that were made here for a queue that had arrived."""


def reduce_queue(client: Client, key: bytes, name: str) -> tuple[Any, ...]:
    """How a queue of this client is pickled.

    Raises:
        UsageError: there is no address under which another process could reach it.
    """
    if not client.url:
        raise UsageError(
            f"queue {name!r} lives in this process only and cannot be sent to another; serve it with manyhands.serve "
            "and connect there by its url"
        )
    is_for_own_child = multiprocessing.context.get_spawning_popen() is not None
    return queue_at, (client.url, key if is_for_own_child else None, name)


def queue_at(url: str, authkey: bytes | None, name: str) -> Queue:
    """An unpickled queue.

    Raises:
        UsageError: several clients of this process may be meant, or no key is known.
    """
    client = _elsewhere.get(url)
    if client is None or client.is_closed:
        client = None if authkey is not None else choose(url, list(open_clients))
        if client is None:
            from manyhands.client.connecting import connect

            client = _elsewhere[url] = connect(url, authkey=authkey or _shared_key(open_clients))
    return client.queue(name)


def choose(url: str, clients: Iterable[Client]) -> Client | None:
    """The client that leads to the server which somebody else calls url; None if there is none."""
    known = {client.url: client for client in clients if client.url}
    if url in known:
        return known[url]
    address = parse_address(url)
    found = [client for own, client in known.items() if _may_be_one(address, parse_address(own))]
    if len(found) > 1:
        raise UsageError(
            f"A queue arrived that its sender reaches at {url}, and this program is connected to several servers on that "
            f"port ({', '.join(client.url for client in found)}); send the queue's name instead, or let each server have a "
            "port of its own."
        )
    return found[0] if found else None


def _may_be_one(theirs: Address, ours: Address) -> bool:
    return theirs.port == ours.port and (theirs.is_loopback or ours.is_loopback)


def _shared_key(clients: Iterable[Client]) -> bytes | None:
    keys = {client.key for client in clients if client.url}
    return keys.pop() if len(keys) == 1 else None
