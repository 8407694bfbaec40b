"""The client for asyncio, natively on the wire: no thread, and a waiting get is one parked request.

    client = await manyhands.aio.connect()
    queue = client.queue("tasks")
    async with queue.receive() as received:
        ...

The consumer of an implicit lease is the Queue object, not the asyncio task: `asyncio.wait_for` may run a get in a task of
its own. Where several tasks take from one queue at once, each uses `receive`, or a Queue object of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from manyhands.aio.client import AioClient, connect
from manyhands.aio.queue import AioQueue

if TYPE_CHECKING:
    from manyhands.aio.executor import Executor as Executor

__all__ = ["AioClient", "AioQueue", "Executor", "connect"]


def __getattr__(name: str) -> Any:
    if name != "Executor":
        raise AttributeError(f"module 'manyhands.aio' has no attribute {name!r}")
    from manyhands.aio.executor import Executor  # what the others do without

    return Executor
