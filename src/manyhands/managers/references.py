"""What keeps an object of the master alive for a proxy, and the way its calls take.

    proxy ──> LocalReference ──> Objects, in the calling thread      in the master's own process
    proxy ──> RemoteReference ──> Link ──TCP──> Gate ──> Objects     elsewhere, also in a forked child of the master

A proxy that was pickled, or that a fork has copied, is on its way to another process, whose reference comes only when it is
rebuilt there. So giving up such a one says that the object shall linger.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from manyhands.codec import decode, encode
from manyhands.errors import PayloadNotEncodable, ServerGone
from manyhands.managers.objects.served import Served
from manyhands.managers.objects.table import ERROR, RETURN, UNSERIALIZABLE, Objects

if TYPE_CHECKING:
    from manyhands.managers.link import Link

_ATOMS = frozenset({int, str, bytes, float, bool, type(None), complex})


class _Forks:
    """How often this process has forked."""

    count = 0

    def note(self) -> None:
        self.count += 1


forks = _Forks()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_parent=forks.note)


class RemoteReference:
    """An object of a master in another process.

    Args:
        is_counted: whether the master has counted a reference for this one already (it came as an answer).
    """

    def __init__(self, link: Link, ident: str, *, is_counted: bool) -> None:
        self.ident = ident
        self._link = link
        self._is_handed = False
        self._forks = forks.count
        self._session = link.opened(ident, is_counted=is_counted)

    def call(self, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> tuple[str, Any]:
        """See `Link.invoke`."""
        self.renew()
        return self._link.invoke(self.ident, method, args, kwds)

    def renew(self) -> None:
        """In a forked child, whose session is another one: refer to the object in it."""
        if self._session is not self._link.session:
            self._session = self._link.opened(self.ident, is_counted=False)

    def handed(self) -> None:
        """A proxy of it is pickled."""
        self._is_handed = True
        self._link.handed(self.ident)

    def __del__(self) -> None:
        # Perhaps in a collector's hands, inside any lock: it is only noted here.
        self._link.closed(self._session, self.ident, lingers=self._is_handed or self._forks != forks.count)


class LocalReference:
    """An object of this very process. Arguments and results are copied by pickling, as if it were another's.

    Args:
        link: for a forked child, in which the object is only a copy.
        is_over: whether the manager was shut down.
    """

    def __init__(self, objects: Objects, served: Served, link: Link, is_over: Callable[[], bool]) -> None:
        self.ident = served.ident
        self._objects = objects
        self._served = served
        self._link = link
        self._is_over = is_over
        self._pid = os.getpid()
        self._forks = forks.count
        self._is_handed = False
        self._elsewhere: RemoteReference | None = None
        objects.opened(served)

    def call(self, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> tuple[str, Any]:
        """Call the object in this thread; the answer as `Objects.call` gives it, but for copies instead of values."""
        self.renew()
        if self._elsewhere is not None:
            return self._elsewhere.call(method, args, kwds)
        if self._is_over():
            raise ServerGone("This manager was shut down, and what it served ended with it; make a new manager.")
        if args and not all(type(arg) in _ATOMS for arg in args):
            args = copied(args)
        if kwds:
            kwds = copied(kwds)
        kind, value = self._objects.call_served(("", threading.get_ident()), self._served, method, args, kwds)
        if kind == RETURN and type(value) not in _ATOMS:
            try:
                value = copied(value)
            except PayloadNotEncodable as error:
                return UNSERIALIZABLE, f"{error}\n"
        elif kind == ERROR:
            return kind, (value, "")
        return kind, value

    def renew(self) -> None:
        """In a forked child, where the object is elsewhere: refer to it there."""
        if os.getpid() == self._pid:
            return
        if self._elsewhere is None:
            self._elsewhere = RemoteReference(self._link, self.ident, is_counted=False)
        else:
            self._elsewhere.renew()

    def handed(self) -> None:
        """A proxy of it is pickled."""
        self._is_handed = True

    def __del__(self) -> None:
        if os.getpid() != self._pid:
            return
        if self._is_handed or self._forks != forks.count:
            self._objects.linger(self._served)
        self._objects.closed(self._served)


Reference = LocalReference | RemoteReference


def copied(value: Any) -> Any:
    """What another process would get.

    Raises:
        PayloadNotEncodable: it cannot be pickled.
    """
    return decode(*encode(value))
