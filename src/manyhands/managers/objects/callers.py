"""Threads for the calls of remote callers: one after another in the same thread, and no thread for who calls nothing.

    submit ──> the caller's line ──> its thread, or an idle one, or a new one
                                        │ line empty and nothing held
                                        v
                                     idle ──(IDLE_S without work)──> ends

A lock with an owner belongs to a thread, so a caller keeps its thread while it holds something. All others share what is
idle: a thousand connected clients need as many threads as calls that run or wait at this moment.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

IDLE_S = 10.0
"""A thread without work ends after this time."""

Caller = Hashable
Function = Callable[[], Any]
Done = Callable[[Any], None]
_log = logging.getLogger(__name__)


class _Line:
    """What one caller has asked and is not answered yet."""

    __slots__ = ("caller", "is_abandoned", "is_running", "jobs", "worker")

    def __init__(self, caller: Caller) -> None:
        self.caller = caller
        self.jobs: deque[tuple[Function, Done]] = deque()
        self.worker: _Worker | None = None
        self.is_running = False
        self.is_abandoned = False


class _Worker:
    """One thread and the lines that it is given, one at a time."""

    __slots__ = ("inbox", "line")

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[_Line | None] = queue.SimpleQueue()
        self.line: _Line | None = None
        """The line it is kept for; None while any may have it."""


class Callers:
    """Runs functions for callers; see the module's text. Thread-safe.

    Args:
        is_bound: whether a caller must keep its thread between calls.
    """

    def __init__(self, is_bound: Callable[[Caller], bool], *, idle_s: float = IDLE_S) -> None:
        self._is_bound = is_bound
        self._idle_s = idle_s
        self._lock = threading.Lock()
        self._lines: dict[Caller, _Line] = {}
        self._idle: list[_Worker] = []
        self._workers: set[_Worker] = set()
        self._is_stopped = False

    @property
    def n_threads(self) -> int:
        """How many threads there are now."""
        return len(self._workers)

    def is_idle(self, caller: Caller) -> bool:
        """Whether nothing of the caller's runs or waits to run."""
        line = self._lines.get(caller)
        return line is None or not line.is_running

    def submit(self, caller: Caller, function: Function, done: Done) -> None:
        """Run function() after what this caller submitted before, then done(what it returned), in the same thread.

        A function that raises is a bug of its maker: it is logged and done is not called.

        Raises:
            RuntimeError: the system has no more threads. Nothing was submitted.
        """
        with self._lock:
            if self._is_stopped:
                return
            line = self._lines.get(caller)
            if line is None:
                line = self._lines[caller] = _Line(caller)
            if line.is_running:
                line.jobs.append((function, done))
                return
            worker = line.worker
            if worker is None:
                try:
                    worker = self._idle.pop() if self._idle else self._start()
                except RuntimeError:
                    self._lines.pop(caller, None)
                    raise
            line.jobs.append((function, done))
            line.is_running = True
            line.worker, worker.line = worker, line
        worker.inbox.put(line)

    def abandon(self, caller: Caller) -> None:
        """Nobody waits for what the caller is running: it keeps its thread to the end, what comes next gets another one."""
        with self._lock:
            line = self._lines.get(caller)
            if line is None or not line.is_running:
                return
            line.is_abandoned = True
            waiting, line.jobs = line.jobs, deque()
            del self._lines[caller]
        for function, done in waiting:
            self.submit(caller, function, done)

    def stop(self) -> None:
        """Take no more; threads end as they become free. What they run is not waited for: it may wait for ever."""
        with self._lock:
            self._is_stopped = True
            workers = list(self._workers)
        for worker in workers:
            worker.inbox.put(None)

    def _start(self) -> _Worker:
        worker = _Worker()
        threading.Thread(target=self._run, args=(worker,), name="manyhands-caller", daemon=True).start()
        self._workers.add(worker)
        return worker

    def _run(self, worker: _Worker) -> None:
        while True:
            try:
                line = worker.inbox.get(timeout=self._idle_s)
            except queue.Empty:
                if self._retires(worker):
                    return
                continue
            if line is None:
                with self._lock:
                    self._workers.discard(worker)
                return
            while (job := self._next(worker, line)) is not None:
                function, done = job
                try:
                    done(function())
                except Exception:
                    _log.exception("answering a caller failed")
                del job, function, done  # nothing of a finished call is kept alive by an idle thread
            del line

    def _next(self, worker: _Worker, line: _Line) -> tuple[Function, Done] | None:
        with self._lock:
            if line.jobs:
                return line.jobs.popleft()
            line.is_running = False
            if line.is_abandoned or not self._is_bound(line.caller):
                self._free(worker, line)
            return None

    def _retires(self, worker: _Worker) -> bool:
        """Whether a thread that had no work for a while ends; one that is kept is asked again whether it still must be."""
        with self._lock:
            line = worker.line
            if not worker.inbox.empty() or (line is not None and (line.is_running or self._is_bound(line.caller))):
                return False
            if line is not None:
                self._free(worker, line)
            self._idle.remove(worker)
            self._workers.discard(worker)
            return True

    def _free(self, worker: _Worker, line: _Line) -> None:
        line.worker = worker.line = None
        if self._lines.get(line.caller) is line:
            del self._lines[line.caller]
        self._idle.append(worker)
