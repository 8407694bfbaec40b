"""What `manager.get_task_queue()` returns."""

from __future__ import annotations

import queue
import sys
import weakref
from collections.abc import Callable
from typing import Any

from manyhands.client.client import Client
from manyhands.client.queue import Queue
from manyhands.managers.forgotten_import import supply_the_forgotten_name


class QueueProxy(Queue):
    """A queue of the master, with `queue.Queue`'s methods; everything that `manyhands.Queue` can do besides.

    It differs from `manyhands.Queue` in one kindness: a program that catches `Queue.Empty` without importing `Queue` is
    handed that name when it is needed (see `forgotten_import`).
    """

    def __init__(self, client: Client, name: str, keeps: object = None) -> None:
        """The queue of that name.

        Args:
            keeps: what must live as long as this proxy: in the master, what stands for a queue of its caller's own.
        """
        super().__init__(client, name)
        self._keeps = keeps

    def when_dropped(self, drop: Callable[[str], object]) -> None:
        """Call drop with the queue's name when this proxy is no longer used."""
        weakref.finalize(self, drop, self.name).atexit = False

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """See `manyhands.Queue.get`."""
        try:
            return Queue.get(self, block, timeout)
        except queue.Empty:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def get_nowait(self) -> Any:
        """See `manyhands.Queue.get_nowait`."""
        try:
            return Queue.get_nowait(self)
        except queue.Empty:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def put(self, item: Any, block: bool = True, timeout: float | None = None, **options: Any) -> None:
        """See `manyhands.Queue.put`."""
        try:
            Queue.put(self, item, block, timeout, **options)
        except queue.Full:
            supply_the_forgotten_name(sys._getframe(1))
            raise

    def put_nowait(self, item: Any) -> None:
        """See `manyhands.Queue.put_nowait`."""
        try:
            Queue.put_nowait(self, item)
        except queue.Full:
            supply_the_forgotten_name(sys._getframe(1))
            raise
