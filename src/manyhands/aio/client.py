"""The asyncio client: a session at a server, and the queues behind it."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from manyhands._text import is_text
from manyhands.address import STORE_SCHEMES, parse_address, scheme_of
from manyhands.aio.queue import AioQueue
from manyhands.aio.session import AioSession
from manyhands.aio.tasks import AioCall, submit
from manyhands.client.calling.tasks import open_outcome
from manyhands.client.connecting import store_key
from manyhands.client.exits import NORMAL, end_of
from manyhands.errors import UsageError
from manyhands.events import FOREVER, Outcome, Result, Stats, StatsReply
from manyhands.model import CALLS
from manyhands.settings import find_key, find_url
from manyhands.tasks import Task

CONNECT_TIMEOUT_S = 10.0


async def connect(
    url: str | None = None, authkey: str | bytes | None = None, *, timeout_s: float = CONNECT_TIMEOUT_S
) -> AioClient:
    """Connect to a server from the running loop, or open a store in this process; address and key are found as by
    `manyhands.connect`.

    Raises:
        UsageError: the address or the key cannot be used; the sentence says why.
        ServerUnavailable: nobody answered in time.
        AuthenticationFailed: the server has another key.
        EngineBusy, EngineCorrupt, EngineUnavailable: the store cannot be opened.
    """
    url = find_url(url)
    if scheme_of(url) in STORE_SCHEMES:
        session = AioSession(url, store_key(url, authkey))
        await session.open(timeout_s)
        return AioClient(session, "")
    address = parse_address(url)
    session = AioSession(address, find_key(authkey, is_loopback=address.is_loopback, what=address.url).keyring)
    await session.open(timeout_s)
    return AioClient(session, address.url)


class AioClient:
    """One session for all tasks of a loop; an async context manager. Without `close`, what it had goes back."""

    def __init__(self, session: AioSession, url: str) -> None:
        self._session = session
        self.url = url
        """Of a server; "" of a store."""

    def queue(self, name: str, maxsize: int = 0) -> AioQueue:
        """The queue of that name, made when it is first used; each call returns a consumer of its own.

        Args:
            maxsize: the bound; 0 keeps the one it has, or none. A conflicting one is a UsageError at the first use.
        """
        if not isinstance(name, str) or not name or not is_text(name):
            raise UsageError(f"A queue's name is a text that is not empty, not {name!r}.")
        return AioQueue(self._session, name, maxsize)

    async def submit(self, task: Task[..., Any], /, *args: Any, **kwargs: Any) -> AioCall:
        """Send a call of a task (`@mh.task`) to the workers; returns when the engine has it.

        Returns:
            What gives the result when it is awaited, with the call's `id`.

        Raises:
            WrongArguments, PayloadNotEncodable: an argument is not what its hint says, or no plain data; nothing was sent.
            PayloadTooLarge: over the engine's limit; nothing was sent.
        """
        return await submit(self._session, self.result, task, args, kwargs)

    async def result(self, message_id: str, timeout: float | None = None) -> Any:
        """What the call with that message id returned, waiting for it.

        Raises:
            TimeoutError: there is none yet.
            UnknownId: there is no such message, or its result is no longer kept.
        """
        wait_s = FOREVER if timeout is None else timeout
        outcome = await self._ask(Result, message_id, wait_s, timeout_s=wait_s)
        assert isinstance(outcome, Outcome)
        if outcome.value is None:
            raise TimeoutError(f"message {message_id} has no result after {timeout} s; it still waits or runs")
        if outcome.queue.endswith(CALLS):
            return open_outcome(self._session.codec, outcome)
        return self._session.codec.open_result(outcome.queue, outcome.id, outcome.value)

    async def stats(self, *queues: str) -> StatsReply:
        """The numbers of the named queues, or of all, and who is connected."""
        reply = await self._ask(Stats, list(queues))
        assert isinstance(reply, StatsReply)
        return reply

    async def close(self) -> None:
        """End the session: what gets returned is done, what was not begun goes back. Idempotent."""
        await self._session.close(NORMAL)

    async def __aenter__(self) -> AioClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close(end_of(error))

    async def _ask(self, make: Any, *args: Any, timeout_s: float = 0.0) -> Any:
        return await self._session.ask(self._session.state.call(make, *args), timeout_s)
