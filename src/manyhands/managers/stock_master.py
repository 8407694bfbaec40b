"""A worker's connection to a master that still runs the standard library's `multiprocessing.managers`.

Everything is the standard library's own: its requests, its proxies, its pickles. Added is what a client alone can add: each
handshake has a deadline, a lost connection is one clear error and is dialled anew at the next call, an interrupted call
leaves no answer behind for the next one, and `except Queue.Empty` without the import is helped (`forgotten_import`). What
needs the master's help is not there and said once: a task is lost with its worker (docs/adr/0081-a-stock-master.md).
"""

from __future__ import annotations

import logging
import queue
import sys
import time
from collections.abc import Callable, Mapping
from functools import lru_cache
from multiprocessing import managers
from typing import Any, cast

from manyhands._chance import CHANCE
from manyhands.address import Address
from manyhands.auth import Keyring
from manyhands.client.session import GONE_S
from manyhands.errors import ManyhandsError, ProtocolError, ServerGone, ServerUnavailable, UsageError
from manyhands.managers.forgotten_import import supply_the_forgotten_name
from manyhands.managers.object_proxy import ObjectProxy
from manyhands.managers.registry import Entry
from manyhands.managers.stock_dialling import ConnectionLost, MasterConnection, dial
from manyhands.retry import backoff_s

_log = logging.getLogger(__name__)

_ANSWER_S = 5.0
"""A master that was given a time limit with the call, and says nothing for so much longer, is frozen or gone."""
_RETRY_BASE_S, _RETRY_CAP_S = 0.05, 1.0
_TIMEOUT_AT = {"get": 1, "put": 2, "acquire": 1, "wait": 0}
"""Where the standard library's methods have their timeout among the positional arguments."""


class StockMasterLink:
    """One worker process's way to such a master.

    Args:
        entries: what the manager class has registered; read at each call.
        timeout_s: how long to go on trying while nobody answers.

    Raises:
        ServerUnavailable: nobody answered in that time.
        AuthenticationFailed: the master has another key.
    """

    def __init__(
        self, address: tuple[str, int], keyring: Keyring, entries: Callable[[], Mapping[str, Entry]], *, timeout_s: float
    ) -> None:
        self._entries = entries
        self._where = Address(*address).url
        self._is_closed = False
        self._registered: dict[str, Entry] = {}
        manager: Any = type("StockManager", (managers.SyncManager,), {})(address, keyring.raw)
        self._connect(address, keyring.raw, timeout_s)
        manager._Client = dial
        manager._state.value = managers.State.STARTED  # type: ignore[attr-defined]
        self._manager = manager
        _log.info(
            "The master at %s runs the standard library's multiprocessing.managers: a task is lost with the worker that has "
            "it, and when the master restarts its workers must connect anew. Its import line can be changed to "
            "manyhands.managers, too.",
            self._where,
        )

    def _connect(self, address: tuple[str, int], authkey: bytes, timeout_s: float) -> None:
        """What its `BaseManager.connect` does, with a time limit."""
        started = time.monotonic()
        attempt = 0
        while True:
            attempt += 1
            try:
                with dial(address, authkey) as connection:
                    connection.patience_s = _ANSWER_S
                    managers.dispatch(connection, None, "dummy")  # type: ignore[attr-defined]
                return
            except ConnectionLost as error:
                wait_s = backoff_s(attempt, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S, unit=CHANCE.random())
                if time.monotonic() + wait_s >= started + timeout_s:
                    raise ServerUnavailable(
                        f"No master answers at {self._where} after {time.monotonic() - started:.1f} s ({error}); check that "
                        "it is started, that the address is right, and that no firewall is in between.",
                        host=address[0],
                        port=address[1],
                    ) from error
                time.sleep(wait_s)
            except (ManyhandsError, managers.RemoteError):
                raise
            except Exception as error:
                raise ProtocolError(
                    f"The master at {self._where} answers what cannot be read here ({type(error).__name__}); if it was "
                    "started with serializer='xmlrpclib', leave that out."
                ) from error

    def proxy(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        """What the master makes of that typeid, as the standard library's proxy of it.

        Raises:
            UsageError: the connection was given up.
            ServerGone: the master has ended.
            multiprocessing.managers.RemoteError: its callable raised, or it offers nothing of that name.
        """
        if self._is_closed:
            raise UsageError(f"{typeid}() was called after shutdown(), when the master was left.")
        manager = self._manager
        self._register()
        try:
            token, exposed = manager._create(typeid, *args, **kwds)
            proxytype: Any = type(manager)._registry[typeid][-1]
            if proxytype is managers.AutoProxy:  # type: ignore[attr-defined]
                proxytype = _auto_proxy(typeid, tuple(exposed))
            elif isinstance(proxytype, type) and issubclass(proxytype, managers.BaseProxy):
                proxytype = _guarded(cast("Any", proxytype))
            proxy = proxytype(token, "pickle", manager=manager, authkey=manager._authkey, exposed=exposed)
            with dial(token.address, bytes(manager._authkey)) as connection:
                managers.dispatch(connection, None, "decref", (token.id,))  # type: ignore[attr-defined]
        except ConnectionLost as error:
            raise _gone(self._where, str(error)) from error
        return proxy

    def close(self) -> None:
        """Ask the master for nothing more. Each thread's connection ends with its last proxy. Idempotent."""
        self._is_closed = True

    def _register(self) -> None:
        """Tell the standard library's class of what ours has registered meanwhile."""
        for typeid, entry in self._entries().items():
            if self._registered.get(typeid) is not entry:
                self._registered[typeid] = entry
                is_stock = isinstance(entry.proxytype, type) and issubclass(entry.proxytype, managers.BaseProxy)
                type(self._manager).register(
                    typeid,
                    proxytype=entry.proxytype if is_stock else None,
                    exposed=entry.exposed,
                    method_to_typeid=entry.method_to_typeid,
                    create_method=False,
                )


class _Guarded:
    """Mixed into a proxy class of the standard library."""

    _plain: type
    """What a process without manyhands, or a child, rebuilds it as."""
    _token: Any
    _tls: Any
    _id: str

    @property
    def _Client(self) -> Callable[..., MasterConnection]:  # noqa: N802
        return dial

    @_Client.setter
    def _Client(self, value: object) -> None:  # noqa: N802
        """The standard library's constructor sets its own, which waits for ever."""

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006 - the standard library's
        limit_s = _limit_s(methodname, args, kwds)
        gives_up_at = time.monotonic() + (GONE_S if limit_s is None else limit_s)
        attempt = 0
        while True:
            try:
                return self._call_once(methodname, args, kwds, limit_s)
            except ConnectionLost as error:
                self._hang_up()
                attempt += 1
                wait_s = backoff_s(attempt, base_s=_RETRY_BASE_S, cap_s=_RETRY_CAP_S, unit=CHANCE.random())
                # Only a get may be made again: nobody knows whether a put or a method of the program's was done.
                if methodname != "get" or time.monotonic() + wait_s >= gives_up_at:
                    raise _gone(Address(*self._token.address).url, str(error)) from error
                time.sleep(wait_s)
                if limit_s is not None:
                    limit_s = max(0.0, gives_up_at - time.monotonic())
                    args, kwds = (True, limit_s), {}
            except (queue.Empty, queue.Full):
                supply_the_forgotten_name(sys._getframe(1))
                raise
            except managers.RemoteError as error:
                if f"KeyError: {self._id!r}" in str(error):
                    raise _gone(
                        Address(*self._token.address).url, "it was restarted and knows this proxy no more"
                    ) from error
                raise
            except Exception:
                raise
            except BaseException:  # Ctrl-C: the answer that is still to come must not be the next call's
                self._hang_up()
                raise

    def _call_once(self, methodname: str, args: Any, kwds: Any, limit_s: float | None) -> Any:
        if not hasattr(self._tls, "connection"):
            self._connect()  # type: ignore[attr-defined]
        self._tls.connection.patience_s = None if limit_s is None else limit_s + _ANSWER_S
        return super()._callmethod(methodname, args, kwds)  # type: ignore[misc]

    def _hang_up(self) -> None:
        connection = getattr(self._tls, "connection", None)
        if connection is not None:
            del self._tls.connection
            connection.close()

    def __reduce__(self) -> Any:
        # As the standard library's own, also where ours stands in front: it may go into a dict of that master.
        reduced: Any = super().__reduce__()
        rebuild, (kind, token, serializer, kwds) = reduced
        if kind is type(self):
            kind = self._plain
            if kind is managers.BaseProxy:
                kind, kwds["exposed"] = managers.AutoProxy, getattr(self, "_exposed_", None)  # type: ignore[attr-defined]
        return rebuild, (kind, token, serializer, kwds)


@lru_cache(maxsize=256)
def _guarded(kind: Any) -> Any:
    bases = (base for base in kind.__mro__ if issubclass(base, managers.BaseProxy) and not issubclass(base, ObjectProxy))
    return type(kind.__name__, (_Guarded, kind), {"_plain": next(bases), "_is_stock": True})


@lru_cache(maxsize=256)
def _auto_proxy(typeid: str, exposed: tuple[str, ...]) -> Any:
    kind = _guarded(managers.MakeProxyType(f"AutoProxy[{typeid}]", exposed))  # type: ignore[attr-defined]
    kind._isauto = True
    return kind


def _limit_s(methodname: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> float | None:
    """How long the call may take by its own arguments; None is for ever."""
    at = _TIMEOUT_AT.get(methodname)
    if at is None:
        return 0.0 if methodname in ("get_nowait", "put_nowait") else None
    if at and not kwds.get("block", args[at - 1] if len(args) >= at else True):
        return 0.0
    limit_s = kwds.get("timeout", args[at] if len(args) > at else None)
    return limit_s if isinstance(limit_s, int | float) else None


def _gone(where: str, why: str) -> ServerGone:
    return ServerGone(
        f"The master at {where}, which runs the standard library, cannot be asked any more ({why}); "
        "make a new manager and connect() when it is there again."
    )
