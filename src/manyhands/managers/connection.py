"""A process's connection to a master elsewhere."""

from __future__ import annotations

from typing import Any

from manyhands.auth import Keyring
from manyhands.client.client import Client
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import UnsupportedFeature
from manyhands.managers import homes
from manyhands.managers.answering import TABLE
from manyhands.managers.link import Link
from manyhands.managers.objects.table import QUEUE_PREFIX, RETURN, Made
from manyhands.managers.plain import PICKLE, XMLRPC, narrowed
from manyhands.managers.proxies import QueueProxy, XmlQueueProxy
from manyhands.managers.references import RemoteReference

CONNECT_S = 10.0


class Connection:
    """A Home: one process's session at its master.

    Raises:
        ServerUnavailable: nobody answered within 10 s.
        AuthenticationFailed: the master has another key.
    """

    def __init__(self, address: tuple[str, int], keyring: Keyring, serializer: str = PICKLE) -> None:
        self.address = address
        self.authkey = keyring.raw
        self.serializer = serializer
        engine = RemoteEngine(homes.normal(address), keyring, connect_timeout_s=CONNECT_S)
        self.link = Link(Client(engine, keyring, url=engine.address.url, owns_engine=True))
        homes.add(self, keyring)

    @property
    def is_open(self) -> bool:
        return not self.link.client.is_closed

    def reference(self, made: Made | str) -> RemoteReference:
        """See `homes.Home`; whether the object is still there turns out at the first call."""
        if isinstance(made, Made):
            return RemoteReference(self.link, made.ident, is_counted=True)
        return RemoteReference(self.link, made, is_counted=False)

    def queue(self, made: Made | str) -> QueueProxy:
        """See `homes.Home`."""
        ident = made if isinstance(made, str) else made.ident
        kind = XmlQueueProxy if self.serializer == XMLRPC else QueueProxy
        # One with a name of its own that was just asked for needs no reference.
        is_own = isinstance(made, str) or made.is_counted
        return kind(self.link.client, ident.removeprefix(QUEUE_PREFIX), self, self.reference(made) if is_own else None)

    def create(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Made:
        """See `Link.create`."""
        if self.serializer == XMLRPC:
            args, kwds = tuple(narrowed(list(args))), narrowed(kwds)
        return self.link.create(typeid, args, kwds)

    def methods(self, ident: str) -> tuple[str, ...]:
        """See `homes.Home`."""
        return tuple(self.ask_table("get_methods", ident))

    def ask_table(self, what: str, *args: Any) -> Any:
        """What the master's table of objects says of itself: number_of_objects, debug_info, get_methods."""
        self.link.tell_closed()
        kind, value = self.link.invoke(TABLE, what, args)
        if kind != RETURN:
            raise UnsupportedFeature(f"The master has no answer to {what!r}: {value}")
        return value

    def close(self) -> None:
        """Leave the master. Idempotent."""
        homes.remove(self)
        self.link.close()
