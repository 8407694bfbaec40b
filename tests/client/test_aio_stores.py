"""The asyncio client opens stores itself, and keeps there what it promises at a server."""

from __future__ import annotations

import asyncio
import queue as stdlib_queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

import manyhands as mh
import manyhands.aio
from manyhands.aio import AioClient
from manyhands.aio.store import StoreConnection
from manyhands.errors import EngineBusy, EngineUnavailable, ServerUnavailable, UsageError
from redis_server import RedisServer

from .conftest import KEY

Body = Callable[[AioClient], Coroutine[Any, Any, None]]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("valkey"), fsync="everysec")
    server.start()
    yield server
    server.stop()


@pytest.fixture(params=["memory", "sqlite", "valkey"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "memory":
        return "memory://"
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.db'}"
    server: RedisServer = request.getfixturevalue("valkey")
    return f"{server.url}?space={tmp_path.name}"


def run(url: str, body: Body) -> None:
    """A body with a client of its own; nothing of it is left."""
    before = set(threading.enumerate())

    async def main() -> None:
        async with asyncio.timeout(30):
            async with await manyhands.aio.connect(url, KEY) as client:
                await body(client)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())
    assert not [thread for thread in set(threading.enumerate()) - before if thread.is_alive()]


@mh.task(queue="jobs")
def double(n: int) -> int:
    return 2 * n


def test_items_come_out_as_they_went_in(url: str) -> None:
    async def body(client: AioClient) -> None:
        items = [1, "two", {"three": 3}, b"x" * 300_000]
        queue = client.queue("q")
        for item in items:
            await queue.put(item)
        await queue.put_many([5, 6])
        await queue.put(0, priority=9)
        assert await queue.qsize() == 7
        assert await client.queue("q").get() == 0
        other = client.queue("q")
        assert [await other.get() for _ in items] == items
        assert await other.get_many(5) == [5, 6]
        with pytest.raises(stdlib_queue.Empty):
            await other.get(timeout=0.05)

    run(url, body)


def test_a_waiting_get_is_woken_and_needs_no_thread(url: str) -> None:
    async def body(client: AioClient) -> None:
        queues = [client.queue(f"q{n}") for n in range(50)]
        n_threads = threading.active_count()
        getting = [asyncio.create_task(queue.get()) for queue in queues]
        await asyncio.sleep(0)
        assert threading.active_count() == n_threads
        for n, queue in enumerate(queues):
            await queue.put(n)
        assert await asyncio.gather(*getting) == list(range(50))

    run(url, body)


def test_waiting_costs_no_processor(url: str) -> None:
    async def body(client: AioClient) -> None:
        getting = asyncio.create_task(client.queue("q").get())
        await asyncio.sleep(0.2)
        before = time.thread_time()
        await asyncio.sleep(1.0)
        assert time.thread_time() - before < 0.1
        await client.queue("q").put(1)
        assert await getting == 1

    run(url, body)


def test_a_cancelled_get_loses_nothing(url: str) -> None:
    """Cancelled at every moment around the arrival of an item: each item comes exactly once."""

    async def body(client: AioClient) -> None:
        got: list[int] = []
        for n in range(60):
            queue = client.queue("q")
            getting = asyncio.create_task(queue.get())
            for _ in range(n % 4):
                await asyncio.sleep(0)
            await client.queue("q").put(n)
            for _ in range(n % 7):
                await asyncio.sleep(0)
            getting.cancel()
            try:
                got.append(await getting)
            except asyncio.CancelledError:
                got.append(await queue.get(timeout=10))
            await queue.task_done()
        assert got == list(range(60))
        assert await client.queue("q").qsize() == 0

    run(url, body)


def test_a_block_that_raises_gives_its_item_back(url: str) -> None:
    async def body(client: AioClient) -> None:
        await client.queue("q").put("x")
        with pytest.raises(OSError, match="disk"):
            async with client.queue("q").receive(timeout=5):
                raise OSError("no disk")
        async with client.queue("q").receive(timeout=5) as again:
            assert (again.value, again.attempt) == ("x", 2)
        await client.queue("q").join()

    run(url, body)


def test_tasks_are_sent_and_their_results_awaited(url: str) -> None:
    async def body(client: AioClient) -> None:
        call = await client.submit(double, 21)
        with pytest.raises(TimeoutError):
            await client.result(call.id, timeout=0)
        (numbers,) = (await client.stats("jobs()")).queues
        assert numbers.ready == 1

    run(url, body)


def test_what_was_put_and_taken_is_settled_when_the_client_closes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def first(client: AioClient) -> None:
        await client.queue("q").put_many([1, 2, 3])
        assert await client.queue("q").get() == 1

    async def second(client: AioClient) -> None:
        assert await client.queue("q").get_many(5) == [2, 3]

    run(url, first)
    run(url, second)


def test_two_programs_meet_at_a_valkey_and_a_worker_runs_their_task(valkey: RedisServer) -> None:
    url = f"{valkey.url}?space=meet"

    async def body(client: AioClient) -> None:
        getting = asyncio.create_task(client.queue("q").get())
        await asyncio.sleep(0.05)
        with mh.connect(url, KEY) as other:
            other.queue("q").put("from another thread's client")
            assert await getting == "from another thread's client"

    run(url, body)


def test_a_valkey_that_is_gone_is_told_and_one_that_comes_back_is_found(tmp_path: Path) -> None:
    server = RedisServer(tmp_path)
    server.start()
    try:

        async def body(client: AioClient) -> None:
            queue = client.queue("q")
            await queue.put("before")
            getting = asyncio.create_task(client.queue("empty").get())
            await asyncio.sleep(0)
            server.kill()
            server.start()
            assert await queue.get(timeout=20) == "before"
            await client.queue("empty").put("after")
            assert await asyncio.wait_for(getting, 20) == "after"

        run(server.url, body)
    finally:
        server.stop()


def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path) -> None:
    path = f"sqlite:///{tmp_path / 'jobs.db'}"

    async def main() -> None:
        with pytest.raises(UsageError, match="key"):
            await manyhands.aio.connect(path)
        with pytest.raises(EngineUnavailable):
            await manyhands.aio.connect("redis://127.0.0.1:1", KEY, timeout_s=0.1)
        async with await manyhands.aio.connect(path, KEY):
            with pytest.raises(EngineBusy):
                await manyhands.aio.connect(path, KEY)
        client = await manyhands.aio.connect(path, KEY)
        await client.close()
        await client.close()
        with pytest.raises(ServerUnavailable, match="closed"):
            await client.queue("q").put(1)

    asyncio.run(main())


def test_an_opening_that_is_cancelled_leaves_nothing_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled while the thread is in the middle of it, and once it has the store open already."""
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    opening, go = threading.Event(), threading.Event()
    real = StoreConnection._open

    def slow(self: StoreConnection, timeout_s: float) -> None:
        opening.set()
        assert go.wait(10)
        real(self, timeout_s)

    async def main() -> None:
        monkeypatch.setattr(StoreConnection, "_open", slow)
        connecting = asyncio.create_task(manyhands.aio.connect(url, KEY))
        while not opening.is_set():
            await asyncio.sleep(0.005)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        go.set()

    asyncio.run(main())  # waits for its threads
    monkeypatch.undo()

    async def body(client: AioClient) -> None:
        await client.queue("q").put(1)

    run(url, body)
