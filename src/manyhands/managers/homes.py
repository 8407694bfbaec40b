"""The masters that this process knows, by address: what a proxy that arrives from elsewhere finds its way with.

A pickled proxy is plain data: a master's address and an object's ident. Where it is rebuilt, it uses the manager that is
there already (the master itself, or a connection to it). Only where there is none, it connects by itself; its key is then
the one that came with it (to a child being started), one that this process or its parent has used for that address, or the
process's own.

The keys in use travel to children as multiprocessing's own key does, in the process's configuration: so a proxy in a task
of a Pool, or in an item, works under fork, spawn and forkserver, whatever key the manager was given.
"""

from __future__ import annotations

import threading
from multiprocessing import process
from typing import Any, Protocol

from manyhands.auth import Keyring
from manyhands.errors import UsageError
from manyhands.managers.objects.table import Made
from manyhands.managers.references import Reference
from manyhands.managers.stdlib import AuthenticationString

Address = tuple[str, int]
_KEYS = "manyhands keys"
_LOCAL = frozenset({"", "0.0.0.0", "localhost", "127.0.0.1"})


class Home(Protocol):
    """A master as a proxy needs it."""

    @property
    def address(self) -> Address:
        """Where other processes reach it."""
        ...

    @property
    def authkey(self) -> bytes:
        """Its key; goes along only to a child being started."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether it can still be used."""
        ...

    def reference(self, made: Made | str) -> Reference:
        """A way to call an object: one that was just made here, or one known by its ident.

        Raises:
            UnknownId, ServerUnavailable: it is gone (where that is known at once).
        """
        ...

    def queue(self, made: Made | str) -> Any:
        """The proxy of an engine's queue."""
        ...

    def methods(self, ident: str) -> tuple[str, ...]:
        """What a proxy of an object may call."""
        ...


class _Homes:
    def __init__(self) -> None:
        self.by_address: dict[Address, Home] = {}
        self.lock = threading.RLock()


_homes = _Homes()


def normal(address: Any) -> Address:
    """An address with one spelling for this machine."""
    host, port = address
    return ("127.0.0.1" if host in _LOCAL else host), port


def add(home: Home, keyring: Keyring) -> None:
    """Proxies that lead to its address are its own from now on; children of this process know its key."""
    address = normal(home.address)
    with _homes.lock:
        known = _homes.by_address.get(address)
        if known is None or not known.is_open or not getattr(known, "is_master", False):
            _homes.by_address[address] = home
    _known_keys()[address] = AuthenticationString(keyring.raw)


def remove(home: Home) -> None:
    """It was closed."""
    with _homes.lock:
        for address, known in list(_homes.by_address.items()):
            if known is home:
                del _homes.by_address[address]


def find(address: Any, authkey: bytes | None = None) -> Home:
    """The master at that address, connected to if need be.

    Raises:
        ServerUnavailable, AuthenticationFailed: it cannot be connected to.
        UsageError: several masters may be meant.
    """
    address = normal(address)
    with _homes.lock:
        home = _homes.by_address.get(address)
        if home is not None and home.is_open:
            return home
        # Addresses differ by where one stands: a master says 127.0.0.1, its workers say 192.0.2.7. The port is the same.
        found = {one for own, one in _homes.by_address.items() if one.is_open and _may_be_one(own, address)}
        if len(found) > 1:
            raise UsageError(
                f"A proxy arrived whose master is at {address}, and this program is connected to several masters on that "
                f"port ({', '.join(sorted(str(one.address) for one in found))}); let each master have a port of its own."
            )
        if found:
            return found.pop()
        from manyhands.managers.connection import Connection

        keys = _known_keys()
        shared = set(map(bytes, keys.values()))
        key = authkey or keys.get(address) or (shared.pop() if len(shared) == 1 else process.current_process().authkey)
        return Connection(address, Keyring(bytes(key)))


def _may_be_one(ours: Address, theirs: Address) -> bool:
    return ours[1] == theirs[1] and "127.0.0.1" in (ours[0], theirs[0])


def _known_keys() -> dict[Address, Any]:
    """By address, in what multiprocessing hands to every child."""
    config: dict[str, Any] | None = getattr(process.current_process(), "_config", None)
    if config is None:
        return {}
    keys: dict[Address, Any] = config.setdefault(_KEYS, {})
    return keys
