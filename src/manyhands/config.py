"""`manyhands.serve`: what a caller says, put together with the defaults.

Secure without being asked: on loopback a key is found or made; beyond loopback a key must be given, and since this version
does not encrypt, that must be accepted in so many words.
"""

from __future__ import annotations

import logging
from typing import NamedTuple

from manyhands.address import DEFAULT_URL, parse_address
from manyhands.engines.opening import open_engine
from manyhands.errors import UnsupportedFeature, UsageError
from manyhands.model import Durability
from manyhands.server import SocketServer
from manyhands.serving import Server
from manyhands.settings import SHORT_BYTES, FoundKey, find_key

log = logging.getLogger(__name__)


class Opened(NamedTuple):
    """A server that serves, and what to say about it."""

    server: Server
    key: FoundKey
    durability: Durability


def serve(
    url: str = DEFAULT_URL,
    authkey: str | bytes | None = None,
    store: str = "memory://",
    *,
    tls: object = None,
    insecure: bool = False,
) -> Server:
    """Serve named queues from a background thread of this process.

    Args:
        url: where to listen; port 0 is any free one, `tcp://0.0.0.0:5959` every interface. `Server.url` is what to dial.
        authkey: the key, str or bytes; else MANYHANDS_AUTHKEY, else on loopback this user's kept key.
        store: where the queues live: `memory://`, or `sqlite:///jobs.db` to outlive this process.
        tls: nothing but None in this version.
        insecure: whether to serve beyond this machine without encryption, on a network that is trusted.

    Raises:
        UsageError: an argument cannot be used, or beyond loopback the key or `insecure` is missing.
        UnsupportedFeature: `tls`.
        AddressInUse: another process has the port; the sentence names it where the system tells.
        EngineBusy, EngineCorrupt, EngineUnavailable: the store cannot be opened.
    """
    return open_server(url, authkey, store=store, tls=tls, insecure=insecure).server


def open_server(
    url: str, authkey: str | bytes | None = None, *, store: str, tls: object = None, insecure: bool = False
) -> Opened:
    """What `serve` does, for a caller that also wants to say where the key came from and what an acknowledgement means."""
    address = parse_address(url)
    if tls:
        raise UnsupportedFeature(
            "tls is not in this version of manyhands; leave it out, and beyond loopback use a VPN or an SSH tunnel, or "
            "insecure=True on a network you trust."
        )
    if not address.is_loopback and not insecure:
        raise UsageError(
            f"Serving {url} lets everybody on that network read what is sent, because this version does not encrypt; pass "
            "insecure=True (--insecure) if the network is trusted, or listen on 127.0.0.1 and use a VPN or an SSH tunnel."
        )
    key = find_key(authkey, is_loopback=address.is_loopback, what=url)
    if key.is_short and not address.is_loopback:
        log.info("The key of %s has fewer than %d bytes and can be guessed; use a longer one", url, SHORT_BYTES)
    engine = open_engine(store)
    try:
        socket_server = SocketServer(engine, host=address.host, port=address.port, keyring=key.keyring, is_insecure=insecure)
        return Opened(Server(engine, socket_server, key.keyring), key, engine.durability)
    except BaseException:
        engine.close()
        raise
