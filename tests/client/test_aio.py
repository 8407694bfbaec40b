"""The asyncio client keeps the same promises, natively on the wire."""

from __future__ import annotations

import asyncio
import queue as stdlib_queue
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

import manyhands.aio
from manyhands.aio import AioClient
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import AuthenticationFailed, ServerGone, ServerUnavailable, SessionTaken, ShutDown, UsageError
from manyhands.events import Attach

from .conftest import KEY, Place, numbers, until

Body = Callable[[AioClient, AioClient], Coroutine[Any, Any, None]]


@pytest.fixture
def run(remote_place: Place) -> Callable[[Body], None]:
    """Runs a body with two clients, and checks that nothing of them is left."""

    def run(body: Body) -> None:
        async def main() -> None:
            first = await manyhands.aio.connect(remote_place.url, KEY)
            second = await manyhands.aio.connect(remote_place.url, KEY)
            async with asyncio.timeout(20):
                try:
                    await body(first, second)
                finally:
                    await first.close()
                    await second.close()
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(main(), debug=False)

    return run


def test_items_come_out_as_they_went_in(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        items = [1, "two", {"three": 3}, b"x" * 500_000]
        for item in items:
            await client.queue("q").put(item)
        assert await client.queue("q").qsize() == 4
        queue = other.queue("q")
        assert [await queue.get() for _ in items] == items

    run(body)


def test_no_thread_is_started(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        await client.queue("q").put(1)
        await other.queue("q").get()
        names = {thread.name for thread in threading.enumerate()}
        assert not names & {"manyhands-client", "manyhands-flusher", "asyncio_0"}

    run(body)


def test_a_waiting_get_is_one_parked_request_and_blocks_nobody(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        waiting = asyncio.create_task(client.queue("q").get())
        await client.queue("r").put("meanwhile")
        assert await client.queue("r").get() == "meanwhile"
        await other.queue("q").put("now")
        assert await waiting == "now"

    run(body)


def test_timeouts_and_empty(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue = client.queue("q")
        with pytest.raises(stdlib_queue.Empty):
            await queue.get(timeout=0)
        started = time.monotonic()
        with pytest.raises(stdlib_queue.Empty):
            await queue.get(timeout=0.1)
        assert time.monotonic() - started >= 0.1
        with pytest.raises(ValueError, match="non-negative"):
            await queue.get(timeout=-1)

    run(body)


def test_a_get_that_is_cancelled_loses_nothing(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue = client.queue("q")
        for _ in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(queue.get(), 0.01)
        await other.queue("q").put("there")
        assert await asyncio.wait_for(queue.get(), 5) == "there"

    run(body)


def test_the_consumer_is_the_queue_object(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        await other.queue("q").put_many([1, 2, 3])
        one, two = client.queue("q"), client.queue("q")
        assert await asyncio.wait_for(one.get(), 5) == 1
        assert await asyncio.wait_for(two.get(), 5) == 2
        (stats,) = (await other.stats("q")).queues
        assert (stats.leased - stats.unbegun, stats.done_total) == (2, 0)
        assert await one.get() == 3
        (stats,) = (await other.stats("q")).queues
        assert stats.done_total == 1

    run(body)


def test_receive_acks_at_its_end_and_gives_back_when_it_raises(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        await other.queue("q").put("a")
        with pytest.raises(KeyError):
            async with client.queue("q").receive() as received:
                raise KeyError(received.value)
        async with client.queue("q").receive() as received:
            assert (received.value, received.attempt) == ("a", 2)
        await client.queue("q").join()

    run(body)


def test_many_tasks_receive_from_one_queue_object(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue, results = client.queue("q"), client.queue("r")

        async def work() -> None:
            try:
                while True:
                    async with queue.receive() as received:
                        await results.put(received.value * 2)
            except ShutDown:
                pass

        workers = [asyncio.create_task(work()) for _ in range(10)]
        await other.queue("q").put_many(range(500))
        collector = other.queue("r")
        got = sorted([await collector.get(timeout=10) for _ in range(500)])
        assert got == [2 * n for n in range(500)]
        await other.queue("q").join()
        await other.queue("q").shutdown()
        await asyncio.gather(*workers)

    run(body)


def test_a_put_inside_a_receive_block_is_stored_once_when_the_task_runs_again(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        await other.queue("q").put("task")
        for attempt in (1, 2):
            try:
                async with client.queue("q").receive():
                    await client.queue("r").put("result")
                    if attempt == 1:
                        raise OSError("after the put")
            except OSError:
                pass
        assert await other.queue("r").get(timeout=5) == "result"
        assert await other.queue("r").qsize() == 0

    run(body)


def test_a_refused_put_is_raised_at_the_end_of_its_block(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        await other.queue("q").put("task")
        results = client.queue("r")
        await results.qsize()
        with pytest.raises(ShutDown):  # noqa: PT012 - the block is what raises
            async with client.queue("q").receive():
                await other.queue("r").shutdown()
                await results.put("too late")
        async with client.queue("q").receive(timeout=5) as received:
            assert received.attempt == 2

    run(body)


def test_iteration_ends_on_shutdown_and_counts_each_step(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue = client.queue("q")
        await queue.put_many(range(5))
        await queue.shutdown()
        assert [item async for item in other.queue("q")] == list(range(5))
        await queue.join()

    run(body)


def test_task_done_and_too_many_of_them(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue = client.queue("q")
        await queue.put(1)
        await queue.get()
        await queue.task_done()
        await other.queue("q").join()
        with pytest.raises(ValueError, match="task_done"):
            await queue.task_done()

    run(body)


def test_a_bounded_queue_is_full(run: Callable[[Body], None]) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        queue = client.queue("q", maxsize=1)
        await queue.put(1)
        assert (await queue.full(), await other.queue("q").maxsize()) == (True, 1)
        with pytest.raises(stdlib_queue.Full):
            await queue.put(2, timeout=0.05)
        with pytest.raises(UsageError, match="maxsize"):
            await other.queue("q", maxsize=2).get(timeout=0)

    run(body)


def test_a_close_acks_what_get_returned(remote_place: Place) -> None:
    async def main() -> None:
        async with await manyhands.aio.connect(remote_place.url, KEY) as client:
            await client.queue("q").put_many([1, 2])
            assert await client.queue("q").get() == 1

    asyncio.run(main())
    stats = numbers(remote_place.client())
    assert (stats.done_total, stats.ready) == (1, 1)


def test_an_exception_gives_back_what_get_returned(remote_place: Place) -> None:
    async def main() -> None:
        async with await manyhands.aio.connect(remote_place.url, KEY) as client:
            await client.queue("q").put(1)
            await client.queue("q").get()
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError):
        asyncio.run(main())
    assert remote_place.client().queue("q").get(timeout=5) == 1


def test_a_lost_connection_gives_back_what_get_returned(remote_place: Place) -> None:
    async def main() -> None:
        client = await manyhands.aio.connect(remote_place.url, KEY)
        await client.queue("q").put(1)
        await client.queue("q").get()
        await client._session.cut()

    asyncio.run(main())
    other = remote_place.client()
    until(lambda: numbers(other).ready == 1)


def test_the_client_reconnects_and_a_waiting_get_waits_on(remote_place: Place) -> None:
    async def main() -> None:
        client = await manyhands.aio.connect(remote_place.url, KEY)
        waiting = asyncio.create_task(client.queue("q").get(timeout=10))
        await client.queue("r").put(1)
        transport = client._session._connection._transport
        assert transport is not None
        transport.abort()
        await client.queue("q").put("after the cut")
        assert await waiting == "after the cut"
        await client.close()

    asyncio.run(main())


def test_a_gets_timeout_is_exact_once_the_server_is_known_to_be_gone(
    remote_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.aio.queue.GRACE_S", 60.0)  # what it adds for a server that may still answer

    async def main() -> None:
        client = await manyhands.aio.connect(remote_place.url, KEY)
        waiting = asyncio.create_task(client.queue("q").get(timeout=0.3))
        await client.queue("r").put(1)
        assert remote_place.server is not None
        await asyncio.to_thread(remote_place.server.stop)
        async with asyncio.timeout(10):
            with pytest.raises(ServerGone):
                await waiting
            with pytest.raises(ServerGone):
                await client.queue("q").get(timeout=0.1)
        await client.close()

    asyncio.run(main())


def test_a_wrong_key_and_an_absent_server_are_said_clearly(remote_place: Place) -> None:
    async def main() -> None:
        with pytest.raises(AuthenticationFailed):
            await manyhands.aio.connect(remote_place.url, "another key")
        with pytest.raises(ServerUnavailable, match="check that the master is started"):
            await manyhands.aio.connect("tcp://127.0.0.1:1", KEY, timeout_s=0.2)

    asyncio.run(main())


def test_a_session_that_another_program_took_for_itself_ends_with_an_error(
    run: Callable[[Body], None], remote_place: Place
) -> None:
    async def body(client: AioClient, other: AioClient) -> None:
        session = client._session._connection.wire._session
        thief = RemoteEngine(remote_place.url, remote_place.keyring)
        await asyncio.to_thread(thief.attach, Attach(session), lambda _: None)
        try:
            for _ in range(2):
                with pytest.raises(SessionTaken, match="Another program uses this program's session"):
                    await client.queue("q").get(timeout=15)
        finally:
            await asyncio.to_thread(thief.close)

    run(body)
