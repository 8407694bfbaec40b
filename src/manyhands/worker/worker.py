"""A worker: a crew or a pool, the signals that end it, and what tells people how it is.

    SIGTERM, Ctrl-C        lease no more; running calls have grace_s; then their children are ended; exit code 0
    the same once more     end the children now; what they ran goes back
    SIGHUP                 replace every child by a fresh one (so does a changed file, with reload)

What is not run any more goes back to its queue: unbegun calls at once and charged nothing, calls that had to be ended
charged as one delivery.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import BaseContext
from types import FrameType
from typing import TYPE_CHECKING, Any, Protocol

from manyhands.address import STORE_SCHEMES, Address, parse_address, scheme_of, without_password
from manyhands.auth import Keyring
from manyhands.engines.base import Engine
from manyhands.errors import ManyhandsError, UsageError
from manyhands.settings import find_key, find_url
from manyhands.tasks import REGISTRY, Home, live_at
from manyhands.worker.crew import ChildInfo, Crew
from manyhands.worker.reloading import Watcher

if TYPE_CHECKING:
    from manyhands.worker.health import Health

log = logging.getLogger(__name__)

GRACE_S = 30.0
POOLS = ("process", "thread", "async")


class Hands(Protocol):
    """What does the work: a crew of processes, or a pool inside this one."""

    error: ManyhandsError | None
    heard_mono: float

    @property
    def failure(self) -> str: ...

    @property
    def has_been_ready(self) -> bool: ...

    @property
    def heartbeat_s(self) -> float: ...

    @property
    def children(self) -> list[ChildInfo]: ...

    def start(self) -> None: ...

    def replace(self) -> None: ...

    def drain(self, grace_s: float) -> None: ...

    def wait(self, timeout_s: float | None = None) -> bool: ...

    def close(self) -> None: ...


class Worker:
    """Runs the calls and tasks of some queues until it is told to stop.

    Args:
        url: the server, `tcp://host:port`; else MANYHANDS_URL, else tcp://127.0.0.1:5959. A store's URL
            (`sqlite:///jobs.db`) opens that store in this process, which then owns it.
        queues: as programs name them, in order of preference: a later one is served when the earlier are empty.
        authkey: the server's key; else MANYHANDS_AUTHKEY, else on loopback this user's kept key.
        concurrency: how many calls run at a time; by default one for each core this process may use.
        pool: "process": children of their own, the only kind in which a time limit or a cancellation can end a call;
            "thread": threads of this process; "async": coroutine functions run side by side in one event loop.
        imports: modules that register tasks, imported by each child.
        grace_s: how long running calls have when the worker is told to stop.
        initializer, initargs: called once in each child before its first call.
        mp_context: start children by this multiprocessing context, spawn or forkserver, instead of as fresh interpreters.
        max_tasks_per_child: a child is replaced after so many calls; None is never.
        max_memory_bytes: a child that uses more is replaced, and the call that it runs ends with it; None is no limit.
        tasks_only: refuse everything but registered tasks; then nothing that arrives is ever unpickled.
        healthz: where to answer GET /healthz, "127.0.0.1:8080"; None is nowhere.
        reload: replace the children when a file of the imported modules' projects changes; for development.
        name: who this is, for people; by default the host's name and the process id.

    Raises:
        UsageError: an argument cannot be used; the sentence says why.
        UnsupportedFeature: a memory limit on a platform that does not tell.
    """

    def __init__(
        self,
        url: str | None = None,
        queues: Sequence[str] = ("default",),
        *,
        authkey: str | bytes | None = None,
        concurrency: int | None = None,
        pool: str = "process",
        imports: Sequence[str] = (),
        grace_s: float = GRACE_S,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        mp_context: BaseContext | None = None,
        max_tasks_per_child: int | None = None,
        max_memory_bytes: int | None = None,
        tasks_only: bool = False,
        healthz: str | None = None,
        reload: bool = False,
        name: str = "",
    ) -> None:
        if pool not in POOLS:
            raise UsageError(f"There is no pool of the kind {pool!r}; use one of {', '.join(POOLS)}.")
        if isinstance(queues, str):
            raise UsageError(f"queues is a sequence of names, such as ({queues!r},), not one text.")
        if concurrency is not None and concurrency < 1:
            raise UsageError(f"concurrency is how many calls run at a time, at least 1, not {concurrency}.")
        if pool != "process" and (max_memory_bytes or max_tasks_per_child or mp_context is not None or reload):
            raise UsageError(
                f"The pool {pool!r} has no children that could be limited or replaced; leave max_memory_bytes, "
                "max_tasks_per_child, mp_context and reload out, or use the pool 'process'."
            )
        if mp_context is not None and mp_context.get_start_method() == "fork":
            raise UsageError(
                "mp_context is fork, and a copy of a process with threads may hang at a lock that one of them held; "
                "leave it out, or pass multiprocessing.get_context('forkserver') or 'spawn'."
            )
        self.url = find_url(url)
        self.queues = tuple(queues)
        self.pool = pool
        self.concurrency = concurrency or cores()
        self.name = name or f"{socket.gethostname()}:{os.getpid()} worker"
        self.grace_s = grace_s
        self.health_url = ""
        """Where /healthz is answered, once `run` does; "" is nowhere."""
        self.max_tasks_per_child = max_tasks_per_child or 0
        self.max_memory_bytes = max_memory_bytes or 0
        self._authkey = authkey
        self._imports = list(imports)
        self._initializer, self._initargs = initializer, initargs
        self._mp_context = mp_context
        self._tasks_only = tasks_only
        self._healthz = healthz
        self._reload = reload
        self._hands: Hands | None = None
        self._is_draining = False
        self._stops = 0
        # Not an Event: a signal handler may come while this thread holds an Event's lock.
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()

    # -- running

    def run(self, *, on_start: Callable[[], None] = lambda: None, on_stop: Callable[[], None] = lambda: None) -> None:
        """Work until `stop` is called or, in the main thread, a signal comes; nothing is left running afterwards.

        Args:
            on_start: called once, when the server was reached and the first child is ready.
            on_stop: called once, when it was told to stop.

        Raises:
            AuthenticationFailed: the server has another key.
            ProtocolError: what answers there is no manyhands server, or none of this version.
            UsageError: no child can work: an import or the initializer failed before any could.
            EngineBusy, EngineCorrupt, EngineUnavailable: a store that cannot be opened.
            AddressInUse: another program listens where /healthz was to be answered.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._signals())
            hands = self._open(stack)
            stack.callback(hands.close)
            self._hands = hands
            if self._healthz is not None:
                from manyhands.worker.health import HealthServer  # an HTTP server is 4 MB that few workers need

                server = HealthServer(self._healthz, self._health)
                stack.callback(server.close)
                self.health_url = server.url
            if self._reload:
                watcher = Watcher(self._imports, self._on_files)
                stack.callback(watcher.close)
            if self._stops:  # a signal came before there was anything to stop
                return
            hands.start()
            self._watch_over(hands, on_start, on_stop)
        if hands.error is not None:
            raise hands.error

    def stop(self, grace_s: float | None = None) -> None:
        """Lease no more and end, as SIGTERM does; from any thread. Called again, it ends running calls at once."""
        self._stops += 1
        self._is_draining = True
        hands = self._hands
        if hands is not None:
            hands.drain(0.0 if self._stops > 1 else self.grace_s if grace_s is None else grace_s)
        self._tell()

    @property
    def is_draining(self) -> bool:
        """Whether it was told to stop."""
        return self._is_draining

    @property
    def children(self) -> list[ChildInfo]:
        """The processes (or threads, or slots) that there are now."""
        return self._hands.children if self._hands is not None else []

    def _watch_over(self, hands: Hands, on_start: Callable[[], None], on_stop: Callable[[], None]) -> None:
        has_started = has_stopped = False
        slice_s = 0.5 if sys.platform == "win32" else None  # there a signal does not end a wait
        while not hands.wait(0.0):
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=slice_s)
            if hands.has_been_ready and not has_started:
                has_started = True
                on_start()
            if self._is_draining and not has_stopped:
                has_stopped = True
                on_stop()
            if hands.failure and not hands.has_been_ready and not self._is_draining:
                # Nothing ever worked here: somebody has to change something, and a loop would only hide it.
                hands.close()
                raise UsageError(f"The worker cannot work: {hands.failure}{_remedy(hands.failure)}")

    def _tell(self) -> None:
        self._news.put(None)

    def _open(self, stack: contextlib.ExitStack) -> Hands:
        scheme = scheme_of(self.url)
        engine: Engine | None = None
        if scheme in STORE_SCHEMES:
            if scheme == "memory":
                raise UsageError(
                    "memory:// would be this worker's own, where nobody puts anything; give the server's address."
                )
            keyring = find_key(self._authkey, is_loopback=False, what=without_password(self.url)).keyring
            engine, address = _serve_here(self.url, keyring, stack)
        else:
            address = parse_address(self.url)
            if address.is_any:
                raise UsageError(
                    f"{self.url} means every interface of the server and cannot be dialled; use its name or address."
                )
            keyring = find_key(self._authkey, is_loopback=address.is_loopback, what=self.url).keyring
        if self.pool != "process":
            stack.callback(live_at, live_at(Home(address.url, keyring.raw)))
            return self._pool_inside(address, keyring, engine)
        return Crew(
            address,
            keyring,
            queues=self.queues,
            size=self.concurrency,
            engine=engine,
            context=self._mp_context,
            initializer=self._initializer,
            initargs=self._initargs,
            max_tasks_per_child=self.max_tasks_per_child,
            max_memory_bytes=self.max_memory_bytes,
            imports=self._imports,
            tasks_only=self._tasks_only,
            is_home=True,
            name=self.name,
            grace_s=self.grace_s,
            on_change=self._tell,
        )

    def _pool_inside(self, address: Address, keyring: Keyring, engine: Engine | None) -> Hands:
        from manyhands.worker.async_pool import AsyncPool  # the event loop costs what few workers need
        from manyhands.worker.thread_pool import ThreadPool

        for module in self._imports:
            try:
                importlib.import_module(module)
            except Exception as error:
                raise UsageError(f"The module {module!r} cannot be imported ({type(error).__name__}: {error}).") from error
        self._refuse_limits()
        if self._initializer is not None:
            self._initializer(*self._initargs)
        kind = ThreadPool if self.pool == "thread" else AsyncPool
        return kind(
            address,
            keyring,
            queues=self.queues,
            size=self.concurrency,
            engine=engine,
            tasks_only=self._tasks_only,
            name=self.name,
            on_change=self._tell,
        )

    def _refuse_limits(self) -> None:
        """Say at the start which tasks have a time limit that nothing could keep here."""
        for name in REGISTRY.names():
            task = REGISTRY.get(name)
            if task is None or task.__module__ not in self._imports or task.settings.queue not in self.queues:
                continue
            if not task.settings.timeout_s:
                continue
            if self.pool == "thread" or not task.is_async:
                raise UsageError(
                    f"Task {name} of queue {task.settings.queue!r} has timeout_s={task.settings.timeout_s:g}, and a thread "
                    "cannot be stopped; use the pool 'process', leave that queue to such a worker, or make the task look at "
                    "mh.current().cancelled() and drop its timeout_s."
                )

    # -- signals

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle the signals that end a worker, where this is the main thread; put back what was there before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers: dict[str, Callable[[int, FrameType | None], None]] = {
            "SIGINT": self._on_stop,
            "SIGTERM": self._on_stop,
            "SIGBREAK": self._on_stop,
            "SIGHUP": self._on_hangup,
        }
        before = {
            number: signal.signal(number, handler)
            for name, handler in handlers.items()
            if (number := getattr(signal, name, None)) is not None
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        self.stop()

    def _on_hangup(self, signum: int, frame: FrameType | None) -> None:
        if self._hands is not None:
            self._hands.replace()

    def _on_files(self, files: list[str]) -> None:
        log.info("%s changed; the children are replaced", ", ".join(files[:3]) + (" and others" if len(files) > 3 else ""))
        if self._hands is not None:
            self._hands.replace()

    def _health(self) -> Health:
        hands = self._hands
        assert hands is not None
        children = hands.children
        from manyhands.worker.health import Health

        return Health(
            now=time.monotonic(),
            heard_mono=hands.heard_mono,
            heartbeat_s=hands.heartbeat_s,
            wanted=self.concurrency,
            ready=sum(child.state == "ready" for child in children),
            busy=sum(child.is_busy for child in children),
            is_draining=self._is_draining,
            failure=hands.failure,
            silent_s=max((child.silent_s for child in children if child.state == "ready"), default=0.0),
        )


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _serve_here(url: str, keyring: Keyring, stack: contextlib.ExitStack) -> tuple[Engine, Address]:
    """Open a store in this process and serve it on loopback, where the children find it."""
    from manyhands.engines.opening import open_engine  # neither is needed in a worker of a server
    from manyhands.server import SocketServer

    engine = open_engine(url)
    stack.callback(engine.close)
    server = SocketServer(engine, host="127.0.0.1", port=0, keyring=keyring)
    server.start()
    stack.callback(server.stop)
    return engine, server.address


def _remedy(failure: str) -> str:
    """What to do where the reason does not say it."""
    if not failure.startswith("ModuleNotFoundError"):
        return ""
    return f"; install what has that module, or start the worker in its folder (this is {os.getcwd()})."
