"""`--pool async`: tasks that are coroutine functions run side by side in one event loop of the worker's process.

Others run in threads beside it, so that they do not hold up the loop. A time limit and a cancellation end a coroutine at its
next await.
"""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from manyhands._bridge import Mailbox, new_loop
from manyhands.model import Delivery, SettleKind, Settlement
from manyhands.worker.inside import Inside
from manyhands.worker.task_work import TaskWork, Work


class AsyncPool(Inside):
    """One event loop in a thread of its own, and threads for what is no coroutine function."""

    def __init__(self, *args: Any, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self._loop = new_loop()
        self._mailbox: Mailbox[tuple[str, Delivery]] = Mailbox(self._loop, self._begin_all)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._threads = ThreadPoolExecutor(self.size, thread_name_prefix="manyhands-hand")
        self._opening = threading.Lock()
        self._stop = asyncio.Event()
        self._serves = threading.Event()
        self._loop_thread = threading.Thread(target=self._run_loop, name="manyhands-loop", daemon=True)
        self._loop_thread.start()
        self._serves.wait()

    def begin(self, queue_name: str, delivery: Delivery) -> None:
        self._mailbox.post((queue_name, delivery))

    def cancel(self, token: int) -> None:
        self._in_loop(lambda: self._cancel([token]))

    def give_up(self) -> None:
        self._in_loop(lambda: self._cancel(list(self._tasks)))

    def end(self) -> None:
        self._in_loop(self._stop.set)
        self._loop_thread.join()
        self._threads.shutdown(wait=not self.running, cancel_futures=True)

    def _in_loop(self, function: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # it has ended
            return

    # -- in the loop's thread

    def _run_loop(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._serves.set()
            await self._stop.wait()
            self._cancel(list(self._tasks))

    def _begin_all(self, items: list[tuple[str, Delivery]]) -> None:
        for queue_name, delivery in items:
            task = self._group.create_task(self._work_on(queue_name, delivery), name=f"manyhands-{delivery.token}")
            self._tasks[delivery.token] = task

    def _cancel(self, tokens: list[int]) -> None:
        for token in tokens:
            if token in self._tasks:
                self._tasks[token].cancel()

    async def _work_on(self, queue_name: str, delivery: Delivery) -> None:
        settlement = Settlement(delivery.token, SettleKind.NACK, reason="its worker was stopped while it ran")
        n_run = 0
        try:
            with self._opening:
                work = self.runner.open(queue_name, delivery)
            if isinstance(work, Settlement):
                settlement = work
            else:
                settlement = await self._outcome(work)
                n_run = work.n_ended
        except asyncio.CancelledError:
            pass  # by us: the delivery goes back, where a cancelled call ends
        finally:
            self._tasks.pop(delivery.token, None)
            self.finish(settlement, n_run)

    async def _outcome(self, work: Work) -> Settlement:
        if not (isinstance(work, TaskWork) and work.is_async):
            self.runs_in_a_thread(work)
            await self._loop.run_in_executor(self._threads, _run_all, work)
            self.report_rest(work)
            return work.settlement()
        started = time.perf_counter()
        try:
            async with asyncio.timeout(work.timeout_s or None):
                await work.run_async()
        except TimeoutError:
            return work.will(0)
        work.took(time.perf_counter() - started)
        return work.settlement()


def _run_all(work: Work) -> None:
    started = time.perf_counter()
    work.run(0, work.n)
    work.took(time.perf_counter() - started)
