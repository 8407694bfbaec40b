"""From an address to a client."""

from __future__ import annotations

import secrets
from typing import NamedTuple

from manyhands.address import OWNED_SCHEMES, STORE_SCHEMES, parse_address, scheme_of, without_password
from manyhands.auth import Keyring
from manyhands.client.calling.session import CallSession
from manyhands.client.client import Client
from manyhands.codec import Codec
from manyhands.engines.base import Engine
from manyhands.engines.opening import open_engine
from manyhands.engines.remote.engine import CONNECT_TIMEOUT_S, RemoteEngine
from manyhands.errors import UsageError
from manyhands.settings import find_key, find_url


def connect(url: str | None = None, authkey: str | bytes | None = None, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Client:
    """Connect to a server, or open a store in this process.

    Args:
        url: `tcp://host:port`; else MANYHANDS_URL, else tcp://127.0.0.1:5959. A store's URL (`sqlite:///jobs.db`, `memory://`)
            opens that store here, without a server.
        authkey: the server's key; else MANYHANDS_AUTHKEY, else on loopback this user's kept key. A store's file
            needs one that is given, since it signs what others will read.
        timeout_s: how long to go on trying while nobody answers; a worker may be started before its server.

    Raises:
        UsageError: the address or the key cannot be used; the sentence says why.
        ServerUnavailable: nobody answered in time.
        AuthenticationFailed: the server has another key.
        EngineBusy, EngineCorrupt, EngineUnavailable: the store cannot be opened.
    """
    place = open_place(find_url(url), authkey, timeout_s=timeout_s)
    return _own(place.engine, place.keyring, place.url)


class Place(NamedTuple):
    """An engine that a URL leads to."""

    engine: Engine
    keyring: Keyring
    url: str
    """Of a server, under which other processes reach the same queues; "" of a store."""


def store_key(url: str, authkey: str | bytes | None) -> Keyring:
    """The keys for a store's URL.

    Raises:
        UsageError: there is none, and others will read what it signs.
    """
    if scheme_of(url) == "memory":  # nobody else can write there, so any key does
        return Keyring(authkey or secrets.token_bytes(32))
    return find_key(authkey, is_loopback=False, what=without_password(url)).keyring


def open_place(url: str, authkey: str | bytes | None, *, timeout_s: float = CONNECT_TIMEOUT_S) -> Place:
    """What a URL leads to, which the caller closes; raises as `connect`, but for what a server has to say to a session."""
    scheme = scheme_of(url)
    if scheme in STORE_SCHEMES:
        keyring = store_key(url, authkey)
        return Place(open_engine(url, timeout_s=timeout_s), keyring, "")
    address = parse_address(url)
    if address.is_any:
        raise UsageError(
            f"{url} means every interface of the server and cannot be dialled; use the server's name or address."
        )
    keyring = find_key(authkey, is_loopback=address.is_loopback, what=url).keyring
    return Place(RemoteEngine(address.url, keyring, connect_timeout_s=timeout_s), keyring, address.url)


def open_calls(url: str | None, authkey: str | bytes | None) -> tuple[CallSession, Engine]:
    """A session for calls at a server or a store that many share, and the engine to close behind it; raises as `connect`."""
    url = find_url(url)
    scheme = scheme_of(url)
    engine: Engine
    if scheme in STORE_SCHEMES and scheme not in OWNED_SCHEMES:
        keyring = store_key(url, authkey)
        engine = open_engine(url)
    else:
        address = parse_address(url)
        keyring = find_key(authkey, is_loopback=address.is_loopback, what=address.url).keyring
        engine = RemoteEngine(address.url, keyring)
    try:
        return CallSession(engine, Codec([(key.id, key.body) for key in keyring])), engine
    except BaseException:
        engine.close()
        raise


def _own(engine: Engine, keyring: Keyring, url: str) -> Client:
    """A client that closes its engine, also when it cannot even attach."""
    try:
        return Client(engine, keyring, url=url, owns_engine=True)
    except BaseException:
        engine.close()
        raise
