"""Tasks from asyncio: sent with the engine's word that it has them, their results asked for by id."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from manyhands.aio.session import AioSession
from manyhands.errors import UsageError
from manyhands.tasks import Task

Fetch = Callable[[str, float | None], Awaitable[Any]]
"""AioClient.result."""


class AioCall:
    """A call of a task. `await` it for its result, as often as you like; `asyncio.ensure_future` makes a future of it."""

    def __init__(self, message_id: str, fetch: Fetch) -> None:
        self.id = message_id
        """By which any client finds the result."""
        self._fetch = fetch

    def __repr__(self) -> str:
        return f"<call {self.id}>"

    def __await__(self) -> Generator[Any, None, Any]:
        return self.result().__await__()

    async def result(self, timeout: float | None = None) -> Any:
        """What the task returned, waiting for it.

        Raises:
            TimeoutError: it has not ended after timeout seconds.
            Whatever it raised, with the remote traceback as the cause.
        """
        return await self._fetch(self.id, timeout)


async def submit(session: AioSession, fetch: Fetch, task: Task[..., Any], args: Any, kwargs: Any) -> AioCall:
    """Send a call of a task; returns when the engine has it.

    Raises:
        WrongArguments, PayloadNotEncodable, UsageError, PayloadTooLarge: see Task.make_message; nothing was sent.
        ServerUnavailable: it is not known whether the engine has it.
    """
    if not isinstance(task, Task):
        raise UsageError(f"{task!r} is no task; put @mh.task on the function, or give it to mh.aio.Executor(url=…).")
    message = task.make_message(
        session.codec, session.new_id(), args, kwargs, now=time.time(), limit_bytes=session.max_body_bytes
    )
    state = session.state
    await session.ask(state.put(state.queue(task.calls_queue), [message], 0.0))
    return AioCall(message.id, fetch)
