"""`BaseManager`: the class that master and worker programs derive their own manager from."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from multiprocessing import process, util
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from manyhands.address import parse_address
from manyhands.auth import Keyring
from manyhands.errors import ProtocolError, TaskFailed, UnsupportedFeature, UsageError
from manyhands.managers import homes, stdlib
from manyhands.managers.connection import CONNECT_S, Connection
from manyhands.managers.object_proxy import AutoProxy, proxy_of
from manyhands.managers.plain import PICKLE, SERIALIZERS
from manyhands.managers.registry import Entry, check_registration, names_of
from manyhands.managers.remote_errors import CallableFailed
from manyhands.managers.responsiveness import SWITCH_INTERVAL_S
from manyhands.managers.serving import Server, ServingHere
from manyhands.managers.stdlib import AuthenticationString, State
from manyhands.managers.where import checked_address, engine_url
from manyhands.settings import find_key

if TYPE_CHECKING:
    from manyhands.managers.engine_queues import EngineQueues
    from manyhands.managers.master import Master
    from manyhands.managers.stock_master import StockMasterLink

_IN_MEMORY = "memory://"


class BaseManager:
    """Drop-in for `multiprocessing.managers.BaseManager`.

    What a callable returns is used through proxies: a `queue.Queue` as a queue of the engine, anything else as an object
    that stays in the master. On the master, `start()` serves from a thread of this process until `shutdown()` or the end of
    the program. What is served is really here: lambdas may be registered, no `__main__` guard is needed, and a registered
    queue may be used like its proxy. A worker calls `connect()`.

    Args:
        address: (host, port); '' as host means every interface, port 0 any free one; None is a free port on loopback. Or an
            engine URL (`tcp://host:5959`, `sqlite:///jobs.db`), where the queues live then, without a server here.
        authkey: the same str or bytes on both sides; None is the current process's key, which its children share. For an
            engine URL the key is that of its server or store, as `manyhands.connect` finds it.
        serializer: 'pickle'; or 'xmlrpclib', which narrows what is sent to the plain data that XML-RPC knows.
        ctx: taken for the standard library's sake; there is no child process to start.
        shutdown_timeout: likewise.
        store: where the queues live: "memory://", or "sqlite:///jobs.db" to outlive the master.
        switch_interval_s: how often Python switches threads while this manager serves, so that a computing master still
            answers its workers; None leaves the interpreter's setting alone.

    Raises:
        UsageError: the key is empty or of another type, or the address is no (host, port).
    """

    _registry: dict[str, Entry] = {}  # noqa: RUF012 - each subclass copies it at its first register(), as in the standard library

    def __init__(
        self,
        address: tuple[str, int] | str | None = None,
        authkey: str | bytes | None = None,
        serializer: str = "pickle",
        ctx: object = None,
        *,
        shutdown_timeout: float = 1.0,
        store: str = _IN_MEMORY,
        switch_interval_s: float | None = SWITCH_INTERVAL_S,
    ) -> None:
        if serializer not in SERIALIZERS:
            raise UsageError(
                f"serializer={serializer!r} is unknown; leave it out, or write one of {', '.join(SERIALIZERS)}."
            )
        self._serializer = serializer
        self._ctx = ctx
        self._shutdown_timeout = shutdown_timeout
        self._state = State()
        self._state.value = self._state.INITIAL
        self._process: ServingHere | None = None
        self._url = engine_url(address)
        if self._url is not None and store != _IN_MEMORY:
            raise UsageError(f"address={address!r} says already where the queues live; leave store={store!r} out.")
        self._host, self._port = ("", 0) if self._url is not None else checked_address(address)
        self._given_key = authkey
        self._keyring = Keyring(process.current_process().authkey if authkey is None else authkey)
        self._authkey = AuthenticationString(self._keyring.raw)
        self._store = store
        self._switch_interval_s = switch_interval_s
        self._master: Master | None = None
        self._connection: Connection | None = None
        self._elsewhere: StockMasterLink | EngineQueues | None = None
        self._finalizer: Callable[[], object] | None = None
        self._is_over = threading.Event()

    # -- the standard library's interface

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Callable[..., Any] | None = None,  # noqa: A002 - the standard library's name
        proxytype: Callable[..., Any] | None = None,
        exposed: Iterable[str] | None = None,
        method_to_typeid: Mapping[str, str] | None = None,
        create_method: bool = True,
    ) -> None:
        """Offer (with a callable, on the master) or name (without one, in a worker) something under a typeid.

        What is registered after start() is offered too.

        Args:
            callable: called on the master for each proxy that is asked for; what it returns is served.
            proxytype: a proxy class of either library or derived from one; None is what fits: a queue's or object's own.
            exposed: the methods that may be called; None is those of the proxytype, else all public ones.
            method_to_typeid: methods whose result stays on the master and is used through a proxy of that typeid.
            create_method: whether the manager gets a method named like the typeid.

        Raises:
            UsageError: the typeid is no name, or `callable` is the queue itself and not something that returns it.
        """
        if proxytype in (AutoProxy, stdlib.AutoProxy):
            proxytype = None  # what fits the object
        entry = check_registration(typeid, callable, proxytype, exposed, method_to_typeid)
        if "_registry" not in cls.__dict__:
            cls._registry = cls._registry.copy()
        cls._registry[typeid] = entry
        if create_method:

            def create(self: BaseManager, /, *args: Any, **kwds: Any) -> Any:
                return self._proxy(typeid, args, kwds)

            create.__name__ = typeid
            create.__doc__ = f"A proxy of what the master offers as {typeid!r}."
            setattr(cls, typeid, create)

    def start(self, initializer: Callable[..., object] | None = None, initargs: tuple[Any, ...] = ()) -> None:
        """Serve from a thread of this process until shutdown().

        Args:
            initializer: called here, in the calling thread, before anybody is served.
            initargs: its arguments.

        Raises:
            AddressInUse: another program has the port; the sentence names it.
            multiprocessing.ProcessError: it was started, connected or shut down before.
            TypeError: the initializer cannot be called.
        """
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if self._url is not None:
            self._start_at(self._url, initializer, initargs)
            return
        master = self._bind()
        try:
            if initializer is not None:
                initializer(*initargs)
            master.start()
        except BaseException:
            self._end()
            raise
        self._process = ServingHere(self)

    def get_server(self) -> Server:
        """Bind now, and serve in the calling thread with `get_server().serve_forever()`."""
        if self._url is not None:
            raise UsageError(f"The queues of this manager live at {self._url}, so there is nothing to serve; use start().")
        return Server(self, self._bind())

    def connect(self) -> None:
        """Connect to the master, trying again for 10 s while nothing answers there.

        A master that runs the standard library's managers is talked to in its own way; what it cannot promise is said in the
        log, at INFO.

        Raises:
            ServerUnavailable: nobody answered in that time; the sentence says what to check.
            AuthenticationFailed: the master has another key.
            multiprocessing.ProcessError: it was started, connected or shut down before.
        """
        self._check_unused("connect")
        if self._url is not None:
            self._connect_at(self._url)
        else:
            self._connect_to_master()
        self._state.value = self._state.STARTED

    def _connect_to_master(self) -> None:
        started = time.monotonic()
        try:
            self._connection = Connection((self._host, self._port), self._keyring, self._serializer)
            return
        except ProtocolError as error:
            if not getattr(error, "is_stock", False):
                raise
        if self._serializer != PICKLE:
            raise UnsupportedFeature(
                f"The master at {self.address} runs the standard library's managers, and serializer={self._serializer!r} "
                "works with a master of manyhands.managers only; leave it out on both sides."
            )
        from manyhands.managers.stock_master import StockMasterLink  # a few milliseconds that nobody else needs

        kind, left_s = type(self), max(0.0, CONNECT_S - (time.monotonic() - started))
        address = homes.normal((self._host, self._port))
        self._elsewhere = StockMasterLink(address, self._keyring, lambda: kind._registry, timeout_s=left_s)

    def shutdown(self) -> None:
        """On the master: tell every worker, and stop. In a worker: leave the master. Idempotent."""
        self._end()

    def join(self, timeout: float | None = None) -> None:
        """Wait until this manager was shut down, at most timeout seconds."""
        self._is_over.wait(timeout)

    @property
    def address(self) -> Any:
        """Where the master listens; on the master the real port, once it serves. Or the engine URL."""
        if self._url is not None:
            return self._url
        if self._master is not None:
            return (self._host or "0.0.0.0", self._master.port)
        return (self._host, self._port)

    def __enter__(self) -> Self:
        if self._master is None and self._connection is None and self._elsewhere is None:
            self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.shutdown()

    def __getattr__(self, name: str) -> Any:
        names = ", ".join(names_of(type(self)._registry)) or "nothing"
        raise AttributeError(
            f"{type(self).__name__!r} has no attribute {name!r}; registered here: {names}. "
            f"Call {type(self).__name__}.register({name!r}) first, with the name that the master uses.",
            name=name,
            obj=self,
        )

    def _number_of_objects(self) -> int:
        """How many objects somebody refers to."""
        return int(self._home_or_error("_number_of_objects").ask_table("number_of_objects"))

    def _debug_info(self) -> str:
        """A line for each object with its references, and one with what it is."""
        return str(self._home_or_error("_debug_info").ask_table("debug_info"))

    def __reduce__(self) -> Any:
        raise UsageError(
            "A manager cannot be sent to another process; send its address and let that process connect() with the same "
            "authkey, or send a proxy as an argument of a Process."
        )

    # -- inside

    def _bind(self) -> Master:
        self._check_unused("start")
        kind = type(self)
        from manyhands.managers.master import Master  # the server and its event loop: 40 ms that no worker needs

        master = Master(
            host=self._host,
            port=self._port,
            keyring=self._keyring,
            store=self._store,
            entries=lambda: kind._registry,
            switch_interval_s=self._switch_interval_s,
            serializer=self._serializer,
        )
        self._master = master
        self._state.value = self._state.STARTED
        # At exit, not when the manager is collected: a collector runs in any thread and inside any lock.
        self._finalizer = util.Finalize(None, master.stop, exitpriority=0)
        return master

    def _start_at(self, url: str, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
        from manyhands.managers.engine_queues import start_at

        self._check_unused("start")
        kind = type(self)
        self._elsewhere = start_at(url, self._given_key, lambda: kind._registry, self._serializer, initializer, initargs)
        self._state.value = self._state.STARTED

    def _connect_at(self, url: str) -> None:
        from manyhands.managers.engine_queues import connect_at

        kind = type(self)
        self._elsewhere = connect_at(url, self._given_key, lambda: kind._registry, self._serializer)
        if self._elsewhere is None:
            where = parse_address(url)
            self._host, self._port = where
            self._keyring = find_key(self._given_key, is_loopback=where.is_loopback, what=url).keyring
            self._connect_to_master()

    def _check_unused(self, what: str) -> None:
        if self._is_over.is_set():
            raise multiprocessing.ProcessError(f"{what}() comes after shutdown(); make a new {type(self).__name__}.")
        if self._master is not None:
            raise multiprocessing.ProcessError(f"{what}() comes second: this manager already serves at {self.address}.")
        if self._connection is not None or self._elsewhere is not None:
            raise multiprocessing.ProcessError(f"{what}() comes second: this manager is connected to {self.address}.")

    @property
    def _home(self) -> Master | Connection | None:
        return self._master if self._master is not None else self._connection

    def _home_or_error(self, what: str) -> Master | Connection:
        if self._is_over.is_set():
            raise UsageError(f"{what}() was called after shutdown(), when nothing is served any more.")
        home = self._home
        if home is None:
            raise UsageError(f"{what}() was called too early; call start() on the master or connect() in a worker first.")
        return home

    def _proxy(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Any:
        if self._elsewhere is not None and not self._is_over.is_set():
            return self._elsewhere.proxy(typeid, args, kwds)
        home = self._home_or_error(typeid)
        try:
            made = home.create(typeid, args, kwds)
        except TaskFailed as error:
            raise CallableFailed(str(error), **error.facts) from error.__cause__
        return proxy_of(made, home, type(self)._registry, self)

    def _end(self) -> None:
        finalizer, self._finalizer = self._finalizer, None
        if finalizer is not None:
            finalizer()
        if self._connection is not None:
            self._connection.close()
        if self._elsewhere is not None:
            self._elsewhere.close()
        self._state.value = self._state.SHUTDOWN
        self._is_over.set()

    def _unbind(self, master: Master) -> None:
        """A server that was bound and never served is given up: the manager may start another one."""
        if self._master is master:
            finalizer, self._finalizer = self._finalizer, None
            if finalizer is not None:
                finalizer()
            self._master = None
            self._state.value = self._state.INITIAL
