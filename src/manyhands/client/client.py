"""The client: one session for all threads of a process, and the queues, results and dead letters behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from manyhands._text import is_text
from manyhands.address import without_password
from manyhands.auth import Keyring
from manyhands.client import exits, handles
from manyhands.client.calling.futures import CallFuture
from manyhands.client.calling.session import CallSession
from manyhands.client.calling.tasks import TaskCalls, open_outcome
from manyhands.client.dead import DeadLetters
from manyhands.client.queue import Queue
from manyhands.client.session import ClientSession
from manyhands.clock import Clock, SystemClock
from manyhands.codec import Codec
from manyhands.engines.base import Engine
from manyhands.errors import ServerUnavailable, UsageError
from manyhands.events import FOREVER, Declare, Outcome, Result, Stats, StatsReply
from manyhands.model import CALLS
from manyhands.tasks import Task

_log = logging.getLogger(__name__)


class Client:
    """A process's way to an engine; safe in any number of threads, and after a fork the child opens a session of its own.

    Args:
        engine: where the queues live.
        keyring: the keys that sign and verify bodies.
        url: the address under which other processes reach the same queues; "" when there is none.
        reopen: makes an engine for a forked child, in which an engine of this process is only a copy that nobody serves;
            None when the engine itself may be attached to again there.
        owns_engine: whether `close` closes the engine as well.
        clock: from which tasks' delays count; the machine's, unless the engine has another.

    Raises:
        EngineUnavailable, AuthenticationFailed, ServerUnavailable: as the engine fails to attach.
    """

    def __init__(
        self,
        engine: Engine,
        keyring: Keyring,
        *,
        url: str = "",
        reopen: Callable[[], Engine] | None = None,
        owns_engine: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self._clock = clock or SystemClock()
        self.url = url
        self.engine = engine
        self._keyring = keyring
        self._codec = Codec([(key.id, key.body) for key in keyring])
        self._reopen = reopen
        self._owns_engine = owns_engine
        self.is_closed = False
        """Whether `close` was called; a closed client is of no further use."""
        self.shares_messages = True
        """Whether tasks may share messages; what a test's worker runs one by one must not."""
        self._inherited: Any = None
        self._reset()
        self.open()

    def __repr__(self) -> str:
        return (
            f"<manyhands.Client of {without_password(self.url) or self.engine.name}{', closed' if self.is_closed else ''}>"
        )

    def _reset(self) -> None:
        self.session: ClientSession | None = None
        """This process's session; None before it is opened, after close and at first in a forked child."""
        self._ended: ClientSession | None = None
        self._calls: CallSession | None = None
        self._tasks: TaskCalls | None = None
        self._opening = threading.Lock()
        self._threads = threading.local()
        self._watched: set[int] = set()

    def open(self) -> ClientSession:
        """This process's session, opened if need be.

        Raises:
            ServerUnavailable: the client was closed.
        """
        with self._opening:
            if self.session is None and not self.is_closed:
                self.session = ClientSession(self.engine, self._codec)
                self._watched.add(threading.main_thread().ident or 0)  # its end is the process's
                exits.opened(self)
                handles.open_clients.add(self)
            session = self.session
        if session is None:
            if self._ended is not None:
                self._ended.raise_gone()
            raise ServerUnavailable("This client was closed; connect again to go on.")
        return session

    # -- queues ----------------------------------------------------------------------------------------------------

    def queue(self, name: str, maxsize: int = 0) -> Queue:
        """The queue of that name, made when it is first used.

        Args:
            maxsize: the bound; 0 keeps the one it has, or none.

        Raises:
            UsageError: it already has another bound.
        """
        if not isinstance(name, str) or not name or not is_text(name):
            raise UsageError(f"A queue's name is a text that is not empty, not {name!r}.")
        if maxsize > 0:
            self.ask(Declare, name, maxsize)
        return Queue(self, name)

    def ask(self, make: Any, *args: Any, timeout_s: float = 0.0) -> Any:
        """Send one request, made as make(rid, *args), and return its answer."""
        session = self.session or self.open()
        with session.lock:
            call = session.state.call(make, *args)
        return session.ask(call, timeout_s)

    # -- tasks, results, dead letters ----------------------------------------------------------------------------

    def submit(self, what: Task[..., Any] | Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture[Any]:
        """Send a call of a task (`@mh.task`), or of any function, to the workers.

        A task is run even if this program has ended by then; a function's calls that nobody has begun are dropped a minute
        after that. Functions go to queue "default" (see Executor for others).

        Returns:
            A concurrent.futures.Future, with the call's `id` and its `progress`.

        Raises:
            WrongArguments, PayloadNotEncodable: an argument is not what its hint says, or no plain data; nothing was sent.
            PayloadTooLarge: over the engine's limit; nothing was sent.
            ServerUnavailable: the client was closed.
        """
        tasks = self._open_tasks()
        if isinstance(what, Task):
            return tasks.submit(what, args, kwargs, self._clock.utc())
        return tasks.functions.submit(what, args, kwargs)

    def flush(self) -> None:
        """Send what was submitted this moment; it would leave by itself a millisecond later."""
        calls = self._calls
        if calls is not None:
            calls.flush()

    def _open_tasks(self) -> TaskCalls:
        with self._opening:
            if self.is_closed:
                raise ServerUnavailable("This client was closed; connect again to go on.")
            if self._tasks is None:
                self._calls = CallSession(self.engine, self._codec)
                self._tasks = TaskCalls(self._calls, is_packing=self.shares_messages)
            return self._tasks

    def result(self, message_id: str, timeout: float | None = None) -> Any:
        """What the call with that message id returned, waiting for it.

        Raises:
            TimeoutError: there is none yet.
            UnknownId: there is no such message, or its result is no longer kept.
        """
        wait_s = FOREVER if timeout is None else timeout
        outcome = self.ask(Result, message_id, wait_s, timeout_s=wait_s)
        assert isinstance(outcome, Outcome)
        if outcome.value is None:
            raise TimeoutError(f"message {message_id} has no result after {timeout} s; it still waits or runs")
        if outcome.queue.endswith(CALLS):
            return open_outcome(self._codec, outcome, message_id)
        return self._codec.open_result(outcome.queue, outcome.id, outcome.value)

    def stats(self, *queues: str) -> StatsReply:
        """The numbers of the named queues, or of all, and who is connected."""
        reply = self.ask(Stats, list(queues))
        assert isinstance(reply, StatsReply)
        return reply

    def dead(self, queue: str = "") -> DeadLetters:
        """The dead letters of a queue, or of all queues."""
        return DeadLetters(self, self._codec, queue)

    # -- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session: this thread is done with what its gets returned, what it has not begun goes back. Idempotent."""
        self.end(exits.NORMAL)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end(exits.end_of(error))

    def end(self, how: exits.End, *, is_exit: bool = False) -> None:
        """Close; what this thread had is settled as its end says.

        Args:
            is_exit: whether the process ends with it.
        """
        with self._opening:
            self.is_closed = True
            session, self.session = self.session, None
            if session is not None:  # with the rest: a daemon thread that asks from here on finds how it ended
                session.is_exiting = is_exit
                self._ended = session
            calls, self._calls = self._calls, None
        if calls is not None:
            if n := calls.confirm():
                _log.warning("the engine does not answer; whether it has the last %d tasks is not known", n)
            calls.close()
        exits.closed(self)
        handles.open_clients.discard(self)
        if session is not None:
            session.close(how.kind, how.reason)
            if self._owns_engine:
                self.engine.close()

    def watch_thread(self, ident: int) -> None:
        """Settle the calling thread's leases when it ends."""
        if ident not in self._watched:
            self._watched.add(ident)
            self._threads.end = exits.ThreadEnd(self, ident)

    def thread_ended(self, ident: int, how: exits.End) -> None:
        """A thread that had used a queue is over."""
        self._watched.discard(ident)
        session = self.session
        if session is not None:
            session.end_consumer(ident, how.kind, how.reason)

    def forked(self) -> None:
        """In a forked child: forget the parent's session without a word to it; the next use opens one of our own."""
        self._inherited = (self.session, self._calls, self._threads)  # kept: its end must not run here, it is the parent's
        self._reset()
        if self._reopen is not None:
            self.engine = self._reopen()
            self._owns_engine = True

    # -- pickling --------------------------------------------------------------------------------------------------

    @property
    def key(self) -> bytes:
        """The key as it was given."""
        return self._keyring.raw

    def reduce_queue(self, name: str) -> tuple[Any, ...]:
        """How a queue of this client is pickled; see `handles`."""
        return handles.reduce_queue(self, self.key, name)
