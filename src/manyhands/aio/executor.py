"""The Executor for asyncio: the same calls, awaited.

Calls go through the threaded call session, which reads and packs in threads of its own; the loop hears of a result by one
callback. What may block (opening, the end, taking results of a map) is done in a thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, TypeVar

from manyhands.client.calling.futures import CallFuture
from manyhands.errors import UsageError
from manyhands.executor import Executor as Plain

T = TypeVar("T")
_END: Any = object()


class Call(Generic[T]):
    """A submitted call. `await` it for its result, as often as you like; a wait that is cancelled cancels the call."""

    def __init__(self, future: CallFuture[T]) -> None:
        self.future = future
        """The concurrent.futures.Future behind it."""

    def __await__(self) -> Generator[Any, None, T]:
        return self._result().__await__()

    def __repr__(self) -> str:
        return f"<Call {self.future!r}>"

    async def _result(self) -> T:
        if not self.future.done():
            loop = asyncio.get_running_loop()
            over = loop.create_future()
            self.future.add_done_callback(lambda _: _tell(loop, over))
            try:
                await over
            except asyncio.CancelledError:
                await self.cancel()
                raise
        return self.future.result()

    def done(self) -> bool:
        """Whether it was cancelled or has ended."""
        return self.future.done()

    async def cancel(self, running: bool = False) -> bool:
        """As `CallFuture.cancel`."""
        return await asyncio.to_thread(self.future.cancel, running)

    async def id(self) -> str:
        """The call's id: any client finds its result by it, for as long as it is kept."""
        return await asyncio.to_thread(lambda: self.future.id)


class Executor:
    """manyhands.Executor for asyncio; takes the same arguments. An async context manager.

    async with mh.aio.Executor(url="tcp://…") as executor:
        print(await executor.submit(pow, 2, 10))
        async for result in executor.map(work, items):
            …
    """

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        self._plain = Plain(max_workers, **options)
        self._is_open = False

    async def __aenter__(self) -> Executor:
        """Open it: connect, or start the embedded server."""
        await asyncio.to_thread(self._plain.open)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError | KeyboardInterrupt):  # asyncio.run makes the first of Ctrl-C
            await asyncio.to_thread(self._plain.break_off)
        else:
            await self.shutdown(cancel_futures=error is not None)

    async def shutdown(self, *, cancel_futures: bool = False) -> None:
        """Take no more calls; return when the pending ones have ended and nothing is left."""
        await asyncio.to_thread(self._plain.shutdown, True, cancel_futures=cancel_futures)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Call[T]:
        """Run fn(*args, **kwargs) in a worker; raises as Executor.submit does. `await` what it returns."""
        self._check()
        return Call(self._plain.submit(fn, *args, **kwargs))

    async def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int | None = None,
        buffersize: int | None = None,
    ) -> AsyncIterator[T]:
        """fn over the iterables, in order, as Executor.map; the iterables are taken in a thread."""
        self._check()
        mapping = await asyncio.to_thread(
            self._plain.mapping, fn, iterables, timeout=timeout, chunksize=chunksize, buffersize=buffersize
        )
        batches = mapping.batches()
        taking: asyncio.Task[Any] | None = None
        try:
            while True:
                taking = asyncio.create_task(asyncio.to_thread(_next, batches), name="manyhands-map")
                batch = await asyncio.shield(taking)
                if batch is _END:
                    return
                for one in batch:
                    yield one
        finally:
            # Its thread waits for a part in the iterator, so this cancels past it.
            await asyncio.to_thread(mapping.close)
            if taking is not None:
                await asyncio.gather(taking, return_exceptions=True)

    def _check(self) -> None:
        if not self._is_open:
            raise UsageError("This executor is not open; use it in `async with mh.aio.Executor(…) as executor:`.")


def _next(batches: Iterator[list[Any]]) -> Any:
    return next(batches, _END)


def _tell(loop: asyncio.AbstractEventLoop, over: asyncio.Future[None]) -> None:
    def end() -> None:
        if not over.done():
            over.set_result(None)

    if not loop.is_closed():
        loop.call_soon_threadsafe(end)
