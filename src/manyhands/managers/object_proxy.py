"""Proxies of objects: the standard library's classes with our own way of calling underneath.

A proxy class says what can be called and how it looks; those of the standard library, of the program and of libraries made
for either go on working, because only what carries the call is replaced:

    class ListProxy(multiprocessing.managers.ListProxy, ObjectProxy)
                    what it looks like                  how a call travels

`ObjectProxy` comes before the standard library's `BaseProxy` in the order of inheritance and behind everything derived from
it, so a class's own methods stay in front. `composed` makes such a class of any proxy class that is not one yet.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Callable, Iterable
from functools import lru_cache
from multiprocessing import current_process
from typing import TYPE_CHECKING, Any, cast

from manyhands.errors import PayloadNotEncodable, UsageError
from manyhands.managers import homes, stdlib
from manyhands.managers.forgotten_import import supply_the_forgotten_name
from manyhands.managers.objects.table import ERROR, PROXY, QUEUE_PREFIX, RETURN, Made
from manyhands.managers.plain import XMLRPC, narrowed
from manyhands.managers.references import Reference

_AUTO = "auto"
"""Stands for AutoProxy in a pickled handle."""


if TYPE_CHECKING:
    from multiprocessing.managers import BaseProxy, Token
else:
    BaseProxy, Token = stdlib.BaseProxy, stdlib.Token


class MadeToken(Token):
    """A Token of something that was just made, which the first proxy of it takes over."""

    __slots__ = ("home", "made")

    def __init__(self, typeid: str, home: homes.Home, made: Made) -> None:
        super().__init__(typeid, home.address, made.ident)
        self.home = home
        self.made: Made | None = made


class ObjectProxy(BaseProxy):
    """A proxy of an object that a manyhands master serves; `manyhands.managers.BaseProxy`.

    Programs derive their own proxies from it as from the standard library's. A call goes straight to the object in the
    master's process and over the network elsewhere; both ways arguments and results are copies.
    """

    _manager: Any
    _token: Any
    _authkey: Any
    _serializer: str
    _is_stock = False
    """Whether the object is a standard-library master's: then everything is as the standard library does it."""
    _reference: Reference | None = None
    _queue: Any = None

    def _incref(self) -> None:
        # The standard library's __init__ calls this; and so does its hook in a forked child, where the reference finds out
        # by itself that it must dial: nothing may be sent from inside a fork.
        if self._reference is not None or self._queue is not None:
            return
        if self._is_stock or isinstance(self._manager, stdlib.BaseManager):
            self._is_stock = True
            super()._incref()  # type: ignore[misc]
            return
        token: Any = self._token
        made: Made | str = token.id
        home: homes.Home | None = None
        if isinstance(token, MadeToken):
            home = token.home
            if token.made is not None:
                made, token.made = token.made, None
        if home is None:
            home = getattr(self._manager, "_home", None)
        if home is None:
            # The process's own key is what BaseProxy takes when none came along.
            own = bytes(current_process().authkey)
            home = homes.find(token.address, None if bytes(self._authkey) == own else bytes(self._authkey))
        self._home = home
        self._registry = getattr(self._manager, "_registry", None) or {}
        if token.id.startswith(QUEUE_PREFIX):
            self._queue = home.queue(made)
        else:
            self._reference = home.reference(made)

    def _connect(self) -> None:
        if self._is_stock:
            super()._connect()  # type: ignore[misc]

    def _callmethod(self, methodname: str, args: Iterable[Any] = (), kwds: dict[str, Any] | None = None) -> Any:
        """Call a method of the object and return a copy of what it returned.

        Raises:
            Whatever the method raised, with its traceback over there as the cause.
            Whatever an argument raises while it is pickled; nothing was called.
            RemoteError: there is no such method, or its result cannot be sent.
            UnknownId: the object is gone.
            ServerGone, ServerUnavailable: the master is.
        """
        if self._is_stock:
            return super()._callmethod(methodname, tuple(args), kwds or {})
        if self._queue is not None:
            return getattr(self._queue, methodname)(*args, **(kwds or {}))
        if self._reference is None:
            self._incref()
        assert self._reference is not None
        args = tuple(args)
        is_narrow = self._serializer == XMLRPC
        if is_narrow:
            args, kwds = tuple(narrowed(list(args))), narrowed(kwds or {})
        try:
            kind, value = self._reference.call(methodname, args, kwds or {})
        except PayloadNotEncodable as unsent:
            cause = unsent.__cause__
            if cause is None:
                raise
            # As under the standard library: what the argument's own class raised.
            cause.add_note(f"The arguments of {methodname}() could not be sent to the master; nothing was called.")
            raise cause from None
        if kind == RETURN:
            return narrowed(value) if is_narrow else value
        if kind == PROXY:
            return self._proxy_of(value)
        error = _error(kind, value)
        if isinstance(error, queue.Empty | queue.Full):
            supply_the_forgotten_name(sys._getframe(1))
        try:
            raise error
        finally:
            del value, error  # else the exception and this frame would keep each other alive

    def _proxy_of(self, value: Any) -> Any:
        if isinstance(value[1], Made):
            made = value[1]
        else:
            typeid, ident, exposed = value
            made = Made(ident, tuple(exposed), typeid=typeid)
        return proxy_of(made, self._home, self._registry, self._manager)

    def __reduce__(self) -> Any:
        if self._is_stock:
            return super().__reduce__()
        spawning = stdlib.get_spawning_popen() is not None
        authkey = bytes(self._authkey) if spawning else None
        if self._reference is not None:
            self._reference.handed()
        elif self._queue is not None:
            self._queue.handed()
        token: Any = self._token
        if getattr(self, "_isauto", False):
            kind: Any = _AUTO
        else:
            kind = getattr(type(self), "_composed_of", type(self))
        exposed = getattr(self, "_exposed_", None)
        return rebuild, (kind, token.typeid, self._home.address, token.id, self._serializer, exposed, authkey)


def rebuild(
    kind: Any,
    typeid: str,
    address: homes.Address,
    ident: str,
    serializer: str,
    exposed: tuple[str, ...] | None,
    authkey: bytes | None,
) -> Any:
    """A proxy that arrived in pickled form."""
    token = Token(typeid, address, ident)
    if kind == _AUTO:
        return AutoProxy(token, serializer, authkey=authkey, exposed=exposed)
    return composed(kind)(token, serializer, authkey=authkey, exposed=exposed)


def proxy_of(made: Made, home: homes.Home, registry: Any, manager: Any) -> Any:
    """The proxy that a typeid is registered with, or the one that fits what was made."""
    from manyhands.managers.standard_proxies import STANDARD

    entry = registry.get(made.typeid) or STANDARD.get(made.typeid)
    proxytype = entry.proxytype if entry is not None else None
    if made.ident.startswith(QUEUE_PREFIX) and proxytype is None:
        return home.queue(made)
    if proxytype is None and made.shape:
        proxytype = STANDARD[made.shape].proxytype
    token = MadeToken(made.typeid, home, made)
    serializer = getattr(manager, "_serializer", "pickle")
    authkey = getattr(manager, "_authkey", None)
    make = as_ours(proxytype)
    return make(token, serializer, manager=manager, authkey=authkey, exposed=made.exposed)


def as_ours(proxytype: Callable[..., Any] | None) -> Callable[..., Any]:
    """A proxy class, composed with ours if need be; a function that makes proxies stays as it is."""
    if proxytype is None or proxytype is stdlib.AutoProxy:
        return AutoProxy
    kind: Any = proxytype
    if isinstance(kind, type) and issubclass(kind, BaseProxy):
        return cast(Callable[..., Any], composed(kind))  # type: ignore[arg-type]
    return proxytype


@lru_cache(maxsize=1024)
def composed(kind: Any) -> Any:
    """The proxy class with our way of calling."""
    if issubclass(kind, ObjectProxy):
        return kind
    if not issubclass(kind, BaseProxy):
        raise UsageError(f"{kind.__name__} is no proxy class; derive it from manyhands.managers.BaseProxy.")
    names = {"_composed_of": kind, "__module__": kind.__module__, "__doc__": kind.__doc__, "__qualname__": kind.__qualname__}
    return type(kind.__name__, (kind, ObjectProxy), names)


@lru_cache(maxsize=1024)
def _made_type(name: str, exposed: tuple[str, ...]) -> type[ObjectProxy]:
    names: dict[str, Any] = {method: _forwarding(method) for method in exposed}
    return type(name, (ObjectProxy,), {**names, "_exposed_": exposed})


def _forwarding(method: str) -> Callable[..., Any]:
    def forward(self: Any, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(method, args, kwds)

    forward.__name__ = forward.__qualname__ = method
    return forward


def MakeProxyType(name: str, exposed: Iterable[str]) -> type[ObjectProxy]:  # noqa: N802 - the standard library's name
    """A proxy class with these methods; the same class for the same arguments."""
    return _made_type(name, tuple(exposed))


def AutoProxy(  # noqa: N802 - the standard library's name
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Iterable[str] | None = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> ObjectProxy:
    """A proxy that shows what the object exposes, asking the master if need be."""
    if exposed is None:
        home = getattr(manager, "_home", None) or homes.find(token.address, authkey)
        exposed = home.methods(token.id)
    kind: Any = MakeProxyType(f"AutoProxy[{token.typeid}]", tuple(exposed or ()))
    proxy = kind(token, serializer, manager=manager, authkey=authkey, incref=incref)
    proxy._isauto = True
    return cast(ObjectProxy, proxy)


def _error(kind: str, value: Any) -> Exception:
    if kind == ERROR:
        error, where = value
        if where and isinstance(error, BaseException):
            error.__cause__ = stdlib.RemoteTraceback(where)
        return cast(Exception, error)
    error = stdlib.convert_to_error(kind, value)
    return cast(Exception, error)
