"""`--pool thread`: calls run in threads of the worker's process, for work that waits or releases the interpreter's lock."""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

from manyhands.model import Delivery, Settlement
from manyhands.worker.inside import Inside
from manyhands.worker.pacing import claim
from manyhands.worker.task_work import Work

REPORT_S = 0.02
"""Finished calls of a pack wait no longer for the others of it, but for the one that runs."""


class ThreadPool(Inside):
    """As many threads as calls may run at a time."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._inbox: queue.SimpleQueue[tuple[str, Delivery] | None] = queue.SimpleQueue()
        self._opening = threading.Lock()
        # Daemons: a call that never ends must not keep a worker that was stopped.
        self._threads = [
            threading.Thread(target=self._serve, name=f"manyhands-hand-{number}", daemon=True) for number in range(self.size)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, queue_name: str, delivery: Delivery) -> None:
        self._inbox.put((queue_name, delivery))

    def cancel(self, token: int) -> None:
        """A thread cannot be stopped; the call may look at `mh.current().cancelled()`."""

    def give_up(self) -> None:
        """Threads go on until the process ends; their deliveries go back with the session."""

    def end(self) -> None:
        for _ in self._threads:
            self._inbox.put(None)
        if not self.running:
            for thread in self._threads:
                thread.join()

    def _serve(self) -> None:
        while (item := self._inbox.get()) is not None:
            queue_name, delivery = item
            with self._opening:
                work = self.runner.open(queue_name, delivery)
            if isinstance(work, Settlement):
                self.finish(work, 0)
            else:
                self.runs_in_a_thread(work)
                self._run_all(work)
                self.report_rest(work)
                self.finish(work.settlement(), work.n_ended)

    def _run_all(self, work: Work) -> None:
        """Run its calls, a few at a time while they are short, so that what has ended can be reported."""
        at, step = 0, 1
        reported = time.monotonic()
        while at < work.n and not work.is_stopped:
            started = time.perf_counter()
            end = min(at + step, work.n)
            work.run(at, end)
            seconds = time.perf_counter() - started
            work.took(seconds)
            step = claim(end - at, seconds)
            at = end
            if at < work.n:
                if self.is_draining:
                    return  # the rest goes back with the settlement
                if time.monotonic() - reported >= REPORT_S:
                    reported = time.monotonic()
                    if (outcome := work.report()) is not None:
                        self.report(work.token, *outcome)
