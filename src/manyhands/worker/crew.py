"""A set of children and their control plane: one thread, one session at the engine, no signals and no output.

    program ── want, drain, kill ──> inbox ┐
    engine ── Recall, Stop, Pong ──> inbox ┼─> the crew's thread ──> Supervisor (pure) ──> start, fence, kill, report
    children ── their ends, notices ───────┘        waits for all of them at once, and for nothing else

While nothing happens the thread sleeps until the next heartbeat.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import secrets
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import connection as mp_connection
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from manyhands import _forks
from manyhands._chance import CHANCE
from manyhands.address import Address, parse_address
from manyhands.auth import Keyring
from manyhands.calls.bodies import to_setup
from manyhands.engines.base import Engine, Port
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import ManyhandsError, ServerUnavailable, UsageError
from manyhands.events import Attach, Pong, Recall, Reply, Stop
from manyhands.model import CALLS
from manyhands.worker.effects import Effect, Fence, Kill, Say, Send, Start, Tell, Watch, Weigh
from manyhands.worker.limits import memory_meter
from manyhands.worker.members import Members
from manyhands.worker.minding import Look, State
from manyhands.worker.settings import LIMIT, READY, ChildSettings
from manyhands.worker.starting import starter
from manyhands.worker.supervising import Supervisor

log = logging.getLogger(__name__)

_SESSION_BYTES = 16
_UNHEARD_S = 0.25
"""Where children cannot speak (Windows), their blocks are looked at so often while any is there."""


class ChildInfo(NamedTuple):
    """A child as people and tests see it."""

    pid: int
    session: str
    state: str
    """"starting", "ready", "leaving" or "killed"."""
    is_busy: bool
    """Whether it runs a call."""
    n_run: int
    """How many calls it has finished."""
    silent_s: float = 0.0
    """For how long it has waited for work and heard nothing from the engine."""


class Crew:
    """Children that lease, run and settle, and the thread that looks after them. Thread-safe.

    Args:
        address: where the children connect.
        keyring: as the server's.
        queues: as users name them, in order of preference.
        size: how many children `start` starts.
        engine: where the crew's own session is attached; None: the server at `address`.
        context: how children are started; None: as fresh interpreters.
        initializer, initargs: called once in each child before its first call.
        max_tasks_per_child: a child is replaced after so many calls; 0 is never.
        max_memory_bytes: a child that uses more is replaced, with the call that it runs; 0 is no limit.
        imports: modules that each child imports first.
        tasks_only: whether children refuse whatever is no registered task.
        is_home: whether tasks that are submitted in a child go to `address`, too.
        name: who this is, for people; a child's name ends in its number.
        grace_s: how long a child that is replaced may go on with its call.
        on_change: called in the crew's thread when a child became ready, could not work or ended, and at the end.

    Raises:
        PayloadNotEncodable: the initializer or its arguments cannot be pickled.
        UnsupportedFeature: a memory limit on a platform that does not tell.
    """

    def __init__(
        self,
        address: str | Address,
        keyring: Keyring,
        *,
        queues: Sequence[str],
        size: int,
        engine: Engine | None = None,
        context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks_per_child: int = 0,
        max_memory_bytes: int = 0,
        imports: Sequence[str] = (),
        tasks_only: bool = False,
        is_home: bool = False,
        name: str = "",
        grace_s: float = 30.0,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        if size < 1:
            raise UsageError(f"A worker needs at least one child, not {size}.")
        if not queues:
            raise UsageError("A worker needs at least one queue to work for.")
        self.address = parse_address(address) if isinstance(address, str) else address
        self.size = size
        self.session = secrets.token_hex(_SESSION_BYTES)
        self.error: ManyhandsError | None = None
        """Why the crew could not reach its engine; it has ended then."""
        self.heard_mono = 0.0
        """When the engine answered last; 0.0: never."""
        self._engine = engine
        self._owns_engine = engine is None
        self._keyring = keyring
        self._name = name or f"{socket.gethostname()}:{os.getpid()} worker"
        settings = ChildSettings(
            host=self.address.host,
            port=self.address.port,
            keys=keyring.raws,
            session="",
            parent=self.session,
            block="",
            queues=list(queues),
            name=self._name,
            imports=list(imports),
            sys_path=[path or os.getcwd() for path in sys.path],
            initializer=to_setup("", initializer, initargs).code if initializer is not None else b"",
            max_tasks=max_tasks_per_child,
            tasks_only=tasks_only,
            is_home=is_home,
        )
        self._supervisor = Supervisor(
            [queue + CALLS for queue in queues],
            new_session=lambda: secrets.token_hex(_SESSION_BYTES),
            unit=CHANCE.random,
            max_memory_bytes=max_memory_bytes,
            grace_s=grace_s,
        )
        self._members = Members(settings, starter(context))
        self._memory_of = memory_meter() if max_memory_bytes else None
        self._on_change = on_change
        self._inbox: deque[Callable[[float], list[Effect]]] = deque()
        self._wake_reader, self._wake_writer = mp_connection.Pipe(duplex=False)
        self._is_woken = False
        self._port: Port | None = None
        self._ended = threading.Event()
        self._is_foreign = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="manyhands-crew", daemon=True)
        self._is_started = self._is_draining = False

    # -- what the program asks

    def start(self, n: int | None = None) -> None:
        """Have n children, all of them if not given; called again with a larger n, more are started."""
        n = self.size if n is None else min(n, self.size)
        with self._lock:
            if not self._is_started:
                self._is_started = True
                if self._engine is None:
                    self._engine = RemoteEngine(self.address.url, self._keyring, connect_timeout_s=math.inf, name=self._name)
                _forks.watch(self)
                self._thread.start()
        self._post(lambda now: self._supervisor.want(n, now))

    def replace(self) -> None:
        """Let each child finish its call and leave, with a fresh one in its place at once."""
        self._post(self._supervisor.replace)

    def drain(self, grace_s: float) -> None:
        """Lease no more, let running calls end within grace_s, give the rest back, and end. A second call may shorten it."""
        if self._is_foreign:
            return
        self._is_draining = True
        self._post(lambda now: self._supervisor.drain(now, grace_s))
        if self._port is None and self._owns_engine and self._engine is not None:
            self._engine.close()  # ends its tries to connect

    def kill(self) -> None:
        """End at once: what runs is given back, charged as any call whose process was killed."""
        self.drain(0.0)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no process, thread or file of the crew is left, after `drain`; whether that is so."""
        if not self._is_started:
            return True
        if not self._ended.wait(timeout_s):
            return False
        if self._thread.ident is not None:
            self._thread.join()
        return True

    def close(self, grace_s: float = 0.0) -> None:
        """Drain, and wait for the end. Idempotent."""
        with self._lock:
            was_started, self._is_started = self._is_started, True
        if not was_started:
            self._close_all()
            self._ended.set()
        elif not self._is_foreign:
            self.drain(grace_s)
            if threading.current_thread() is not self._thread:
                self.wait()

    @property
    def children(self) -> list[ChildInfo]:
        """The children that there are now."""
        found = []
        now = time.monotonic()
        for number, pid, look in self._members.census():
            child = self._supervisor.children.get(number)
            state = child.state if child is not None else State.KILLED
            session = child.session if child is not None else ""
            found.append(ChildInfo(pid, session, state.name.lower(), look.is_busy, look.seen.n_run, look.silent_s(now)))
        return found

    @property
    def failure(self) -> str:
        """Why children cannot work, as the last of them said; "" when they can."""
        return self._supervisor.failure

    @property
    def heartbeat_s(self) -> float:
        """How often the engine is heard of while all is well."""
        return self._supervisor.heartbeat_s

    @property
    def has_been_ready(self) -> bool:
        """Whether any child ever could work."""
        return self._supervisor.has_been_ready

    # -- from other threads

    def _post(self, event: Callable[[float], list[Effect]]) -> None:
        self._inbox.append(event)
        if not self._is_woken:
            self._is_woken = True
            with contextlib.suppress(OSError):  # it has ended
                self._wake_writer.send_bytes(b"\0")

    def _take(self, replies: Sequence[Reply]) -> None:
        """The sink of the crew's session."""
        for reply in replies:
            if isinstance(reply, Pong):
                self.heard_mono = time.monotonic()
            elif isinstance(reply, Recall | Stop):
                self._post(partial(self._asked, reply))

    def _asked(self, event: Recall | Stop, now: float) -> list[Effect]:
        if isinstance(event, Recall):
            return self._supervisor.is_recalled(event, self._members.look, now)
        return self._supervisor.is_stopped(event, self._members.look)

    def close_in_child(self) -> None:
        """After a fork (see _forks): the children are the parent's. Their processes close their copies themselves."""
        self._is_foreign = True

    # -- the crew's thread

    def _run(self) -> None:
        try:
            if self._attach():
                self._changed()
                while not self._supervisor.is_over:
                    self._turn()
        except ManyhandsError as error:
            self.error = error
        except Exception:
            log.exception("A bug in the worker's parent; its children are ended")
            raise
        finally:
            self._close_all()
            self._ended.set()
            self._changed()

    def _attach(self) -> bool:
        engine = self._engine
        assert engine is not None
        try:
            self._port = engine.attach(
                Attach(self.session, f"{self._name}, parent", is_here=not self._owns_engine), self._take
            )
        except ServerUnavailable as error:
            if not self._is_draining:
                self.error = error
            return False
        self.heard_mono = time.monotonic()
        self._supervisor.has_attached(self._port.attached.limits.heartbeat_s, time.monotonic())
        return True

    def _turn(self) -> None:
        """Wait for something, and deal with all that there is."""
        self._wait()
        now = time.monotonic()
        self._hear(now)
        while self._inbox:
            self._do(self._inbox.popleft()(now))
        self._do(self._supervisor.tick(now, self._members.look, self._members.will))
        self._bury(now)

    def _wait(self) -> None:
        due = self._supervisor.due()
        if not self._members.are_heard():
            due = min(math.inf if due is None else due, time.monotonic() + _UNHEARD_S)
        timeout_s = None if due is None else max(0.0, due - time.monotonic())
        ready = mp_connection.wait([self._wake_reader, *self._members.handles()], 0 if self._inbox else timeout_s)
        if self._wake_reader in ready:
            while self._wake_reader.poll():
                self._wake_reader.recv_bytes()
            # Lowered before the inbox is looked at: what is posted from here on wakes again, at worst for nothing.
            self._is_woken = False

    def _hear(self, now: float) -> None:
        for number, said in self._members.notices():
            if READY in said:
                self._do(self._supervisor.is_ready(number, now))
                self._changed()
            if LIMIT in said:
                self._do(self._supervisor.has_limit(number, now))

    def _bury(self, now: float) -> None:
        """Deal with the children that have ended."""
        for number, said, death, look in self._members.bury():
            if READY in said:  # it was so before it ended
                self._do(self._supervisor.is_ready(number, now))
            self._do(self._supervisor.has_ended(number, death, look, now))
            self._changed()

    def _changed(self) -> None:
        if self._on_change is not None:
            self._on_change()

    # -- effects

    def _do(self, effects: Sequence[Effect]) -> None:
        fences: list[Fence] = []
        for effect in effects:
            match effect:
                case Send(request):
                    assert self._port is not None
                    with contextlib.suppress(ServerUnavailable):  # the session is another program's; it was said
                        self._port.send([request])
                case Start(number):
                    death = self._members.start(effect)
                    if death is not None:
                        self._do(self._supervisor.has_ended(number, death, Look(), time.monotonic()))
                        self._changed()
                case Fence():
                    fences.append(effect)
                case Weigh(number):
                    self._weigh(number)
                case Say(level, text):
                    log.log(level, "%s", text)
                case Kill() | Tell() | Watch():
                    self._members.do(effect)
        for number, returned, look in self._members.fence(fences):
            self._do(self._supervisor.has_fenced(number, returned, look, time.monotonic()))

    def _weigh(self, number: int) -> None:
        pid = self._members.pid(number)
        if pid and self._memory_of is not None:
            look = self._members.look(number)
            self._do(self._supervisor.has_weighed(number, self._memory_of(pid), look, time.monotonic()))

    # -- the end

    def _close_all(self) -> None:
        """Leave nothing: no process, no file, no connection."""
        self._members.close()
        if self._port is not None:
            self._port.detach()
        if self._owns_engine and self._engine is not None:
            self._engine.close()
        self._wake_writer.close()
        self._wake_reader.close()
        _forks.forget(self)
