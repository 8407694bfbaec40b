"""Proxies inside the calls of standard-library peers: a proxy of ours there is one of theirs, and the other way round.

The standard library pickles a proxy as `RebuildProxy(proxy class, Token(typeid, address, ident), serializer, …)`. One that
leads to this master becomes the master's own proxy of that object, which needs no connection and no key; and a proxy of
ours that is in an answer becomes one that the peer can rebuild, with the address at which the peer has reached this master.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from manyhands.errors import ManyhandsError
from manyhands.managers.object_proxy import AutoProxy as OurAutoProxy
from manyhands.managers.object_proxy import ObjectProxy, composed
from manyhands.managers.objects import Objects
from manyhands.managers.objects.table import QUEUE_METHODS, QUEUE_PREFIX
from manyhands.managers.proxies import QueueProxy
from manyhands.managers.stdlib import theirs

Address = tuple[str, int]


class Passing:
    """One master's.

    Args:
        address: where this process reaches the master.
    """

    def __init__(self, objects: Objects, address: Callable[[], Address]) -> None:
        self._objects = objects
        self._address = address
        self.names: dict[tuple[str, str], Any] = {("multiprocessing.managers", "RebuildProxy"): self._arrived}
        """What stands for global names in a peer's pickle."""

    def reducer(self, address: Address) -> Callable[[Any], Any]:
        """How a reply to a peer that has reached this master at that address is pickled, where it is not as usual."""

        def reduce(obj: Any) -> Any:
            if isinstance(obj, ObjectProxy):
                return self._leaving(obj, address)
            if isinstance(obj, QueueProxy):
                return _rebuilt(theirs.AutoProxy, obj.name, address, QUEUE_PREFIX + obj.name, QUEUE_METHODS)
            return NotImplemented

        return reduce

    def _arrived(self, kind: Any, token: Any, serializer: str, kwds: dict[str, Any]) -> Any:
        if not self._is_ours(token):
            return theirs.RebuildProxy(kind, token, serializer, kwds)
        own = theirs.Token(token.typeid, self._address(), token.id)
        make = OurAutoProxy if kind is theirs.AutoProxy else composed(kind)
        return make(own, serializer, exposed=kwds.get("exposed"))

    def _is_ours(self, token: Any) -> bool:
        if token.id.startswith(QUEUE_PREFIX):
            return bool(token.address[1] == self._address()[1])
        try:
            self._objects.find(token.id)
        except ManyhandsError:
            return False
        return True

    def _leaving(self, proxy: Any, address: Address) -> Any:
        if proxy._is_stock or proxy._home.address[1] != self._address()[1]:
            return NotImplemented
        reference = proxy._reference or proxy._queue
        reference.handed()  # it must live until the peer's own reference is here
        token = proxy._token
        own = getattr(type(proxy), "_composed_of", None)  # the program's own class, which the peer has too
        for kind in filter(None, (own, *type(proxy).__mro__)):
            if kind is own or (kind.__module__ == theirs.__name__ and kind is not theirs.BaseProxy):
                return _rebuilt(kind, token.typeid, address, token.id, None)
        return _rebuilt(theirs.AutoProxy, token.typeid, address, token.id, proxy._exposed_)


def _rebuilt(kind: Any, typeid: str, address: Address, ident: str, exposed: tuple[str, ...] | None) -> Any:
    kwds = {"exposed": exposed} if exposed is not None else {}
    return theirs.RebuildProxy, (kind, theirs.Token(typeid, address, ident), "pickle", kwds)
