"""Where an executor's calls go: a session through which they are sent, and what else has to live for them to be run.

    local    engine in this process <── CallSession           remote    CallSession ──TCP──> a server and its workers
                  ^
             SocketServer on loopback <──TCP── children, started by a Crew as they are needed

It ends when the executor is shut down, is garbage, or the program ends, and then not before its last call has ended.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, NamedTuple

from manyhands.auth import Keyring
from manyhands.calls import bodies
from manyhands.client.calling.cancelling import cancel_all, stop_all
from manyhands.client.calling.functions import FunctionCalls
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.state import engine_queue
from manyhands.codec import Codec
from manyhands.engines.base import Engine
from manyhands.engines.opening import open_engine
from manyhands.errors import WorkerCrashed
from manyhands.executor import ending
from manyhands.settings import find_key

if TYPE_CHECKING:
    from manyhands.worker.crew import Crew

log = logging.getLogger(__name__)

_MEMORY = "memory://"


class Terms(NamedTuple):
    """What an executor was called with."""

    max_workers: int
    mp_context: BaseContext | None
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    max_tasks_per_child: int
    url: str | None
    authkey: str | bytes | None
    store: str | None
    queue: str
    keep_result_s: float


def open_home(terms: Terms) -> Home:
    """Open what the terms say.

    Raises:
        UsageError, ServerUnavailable, AuthenticationFailed, EngineBusy, …: as connecting or opening the store does.
    """
    if terms.url is not None:
        return _open_remote(terms)
    return _open_local(terms)


class Home:
    """Calls through a session, and how what is behind it ends.

    Args:
        close: ends what is behind the session, after it.
        is_kept: whether calls go on when this program has left.
    """

    def __init__(self, calls: FunctionCalls, close: Callable[[], None], *, is_kept: bool = False) -> None:
        self.calls = calls
        self.session = session = calls.session
        self.broken: Exception | None = None
        """Why no call can be run."""
        self.is_full = True
        """Whether `grow` has nothing to do any more."""
        self._close = close
        self._is_kept = is_kept
        self._ending = threading.Lock()
        self._is_closed = False
        self._closer: threading.Thread | None = None
        session.on_setup_failed = self.breaks
        ending.opened(self)

    def grow(self) -> None:
        """There may be more calls than children."""

    def breaks(self, error: BaseException) -> None:
        """No call can be run: fail them all, and every later one."""
        if self.broken is None:
            self.broken = error if isinstance(error, Exception) else WorkerCrashed(str(error))
            self.session.refuse(self.broken)
            self.session.fail_all(self.broken)

    # -- the end

    def shut_down(self, *, wait: bool, cancel_futures: bool) -> None:
        """Take no more calls, and end when the pending ones have."""
        if cancel_futures:
            self.session.refuse(RuntimeError(ending.refusal()))
            for feed in self.session.feeds:
                feed.cease()
            cancel_all(self.session, [future for future in self.session.pending() if not self._is_begun(future)])
        if wait:
            self.end()
        else:
            self._end_behind()

    def _is_begun(self, future: CallFuture[Any]) -> bool:
        """Whether not even to try to cancel it: workers elsewhere may be away for ever, so there the engine decides."""
        return False

    def forsake(self) -> None:
        """The executor is garbage: its pending calls are finished all the same."""
        self._end_behind()

    def _end_behind(self) -> None:
        with self._ending:
            if self._closer is None and not self._is_closed:
                self.session.refuse(RuntimeError(ending.refusal()))
                self._closer = threading.Thread(target=self.end, name="manyhands-executor-end", daemon=True)
                self._closer.start()

    def end(self) -> None:
        """Take no more calls, wait until the last has ended, and close everything. Idempotent."""
        self.session.refuse(RuntimeError(ending.refusal()))
        for feed in self.session.feeds:
            feed.finish()
        if not self._is_closed:
            self.session.wait_until_idle()
        self._close_once()

    def break_off(self) -> None:
        """End now, as Ctrl-C asks: what waits is cancelled and what runs is stopped. Waits for no call. Idempotent.

        Calls whose results are kept for other programs (`keep_result_s`) go on where workers of a cluster run them.
        """
        if self._is_closed:
            return
        self.session.refuse(RuntimeError(ending.refusal()))
        for feed in self.session.feeds:
            feed.cease()
        pending = self.session.pending()
        if not self._is_kept:
            stop_all(self.session, pending)
        for future in pending:
            future.cancel_quietly()
        self._close_once()

    def _close_once(self) -> None:
        with self._ending:
            if self._is_closed:
                return
            self._is_closed = True
            self.session.close()
            self._close()
        ending.closed(self)


def _open_remote(terms: Terms) -> Home:
    from manyhands.client.connecting import open_calls

    setup = None
    if terms.initializer is not None:
        setup = bodies.to_setup(ending.new_id(), terms.initializer, terms.initargs)
    session, engine = open_calls(terms.url, terms.authkey)
    return Home(_calls(session, terms, setup), engine.close, is_kept=terms.keep_result_s > 0)


def _calls(session: CallSession, terms: Terms, setup: bodies.Setup | None = None) -> FunctionCalls:
    return FunctionCalls(session, engine_queue(terms.queue), keep_result_s=terms.keep_result_s, setup=setup)


class LocalHome(Home):
    """Children of this process, behind an embedded server."""

    def __init__(self, calls: FunctionCalls, crew: Crew, size: int, close: Callable[[], None]) -> None:
        super().__init__(calls, close)
        self._crew = crew
        self._size = size
        self._n_started = 0
        self._growing = threading.Lock()
        self.is_full = False
        self.session.width = size

    def grow(self) -> None:
        """Start children while there are more calls than children."""
        if self.is_full:
            return
        with self._growing:
            wanted = min(self._size, max(1, self.session.n_pending))
            if wanted > self._n_started:
                self._n_started = wanted
                self.is_full = wanted == self._size
                self._crew.start(wanted)

    def _is_begun(self, future: CallFuture[Any]) -> bool:
        # Those at the front are running, or a child that is being started is about to take them.
        return future.running()

    def crew_changed(self) -> None:
        """A child became ready, failed or ended."""
        crew = self._crew
        if crew.failure and not crew.has_been_ready:
            self.breaks(WorkerCrashed(f"No child can work: {crew.failure}"))


def _open_local(terms: Terms) -> Home:
    from manyhands.server import SocketServer
    from manyhands.worker.crew import Crew

    store = terms.store or _MEMORY
    if store == _MEMORY and terms.authkey is None:
        keyring = Keyring(secrets.token_bytes(32))  # nobody else has business there
    else:
        keyring = find_key(terms.authkey, is_loopback=True, what=store).keyring
    engine: Engine = open_engine(store)
    server = None
    try:
        server = SocketServer(engine, port=0, keyring=keyring)
        server.start()
        session = CallSession(engine, Codec([(key.id, key.body) for key in keyring]))
    except BaseException:
        if server is not None:
            server.stop("The executor could not be opened.")
        engine.close()
        raise
    home: LocalHome | None = None
    crew = Crew(
        server.address,
        keyring,
        queues=[terms.queue],
        size=terms.max_workers,
        engine=engine,
        context=terms.mp_context,
        initializer=terms.initializer,
        initargs=terms.initargs,
        max_tasks_per_child=terms.max_tasks_per_child,
        on_change=lambda: home.crew_changed() if home is not None else None,
    )

    def close() -> None:
        crew.close(0.0)
        server.stop("The executor was shut down.")
        engine.close()

    home = LocalHome(_calls(session, terms), crew, terms.max_workers, close)
    return home
