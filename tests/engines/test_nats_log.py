"""The log and its fence, at a real server: who may append, what a lost answer leaves, and what is void."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from manyhands.engines.nats import NatsEngine
from manyhands.engines.nats.driver import Driver, Unreachable
from manyhands.engines.nats.entries import FORMAT, Entry, encode
from manyhands.engines.nats.log import Deposed, Log, Torn
from manyhands.engines.nats.where import parse
from manyhands.errors import UsageError
from nats_server import NatsServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), sync="2m")
    server.start()
    yield server
    server.stop()


def nothing() -> None:
    pass


@asynccontextmanager
async def two_logs(server: NatsServer) -> AsyncIterator[tuple[Log, Log, Driver]]:
    """Two programs' logs over one stream, and the first one's driver."""
    where = parse(f"{server.url}?space={secrets.token_hex(8)}")
    drivers = [Driver(where, "test", nothing, nothing) for _ in range(2)]
    logs = [Log(driver, where) for driver in drivers]
    for driver, log in zip(drivers, logs, strict=True):
        await driver.connect()
        await log.prepare()
    try:
        yield logs[0], logs[1], drivers[0]
    finally:
        for driver in drivers:
            await driver.close()


async def content(log: Log) -> list[tuple[int, int, bytes]]:
    entries: list[tuple[int, int, bytes]] = []
    await log.read(lambda first, last, data: entries.append((first, last, data)))
    return entries


def test_the_append_of_a_deposed_owner_is_refused_however_quick_it_is(server: NatsServer) -> None:
    async def run() -> None:
        async with two_logs(server) as (old, new, _):
            await old.append("old", b"1")
            await new.read(lambda *_: None)
            await new.append("new", b"claim")
            with pytest.raises(Deposed):
                await old.append("old", b"2")
            assert [data for _, _, data in await content(new)] == [b"1", b"claim"]

    asyncio.run(run())


Ask = Callable[..., Awaitable[bytes]]


@pytest.mark.parametrize("is_done", [True, False])
def test_an_append_whose_answer_is_lost_stands_once(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, is_done: bool
) -> None:
    async def run() -> None:
        async with two_logs(server) as (log, _, driver):
            ask: Ask = driver.ask
            lost: list[str] = []

            async def losing(subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None = None) -> bytes:
                if headers is not None and not lost:
                    lost.append(subject)
                    if is_done:
                        await ask(subject, data, timeout_s, headers)
                    raise Unreachable("the answer was lost")
                return await ask(subject, data, timeout_s, headers)

            monkeypatch.setattr(driver, "ask", losing)
            assert await log.append("me", b"1") == (1, 1)
            assert await log.append("me", b"2") == (2, 2)
            assert await content(log) == [(1, 1, b"1"), (2, 2, b"2")]

    asyncio.run(run())


def test_an_append_whose_answer_is_lost_and_which_another_overtook_is_not_taken_for_done(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with two_logs(server) as (old, new, driver):
            ask: Ask = driver.ask

            async def late(subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None = None) -> bytes:
                if headers is not None and not new.last:
                    await new.append("new", b"claim")
                    raise Unreachable("the answer was lost")
                return await ask(subject, data, timeout_s, headers)

            monkeypatch.setattr(driver, "ask", late)
            with pytest.raises(Deposed):
                await old.append("old", b"1")

    asyncio.run(run())


def test_an_entry_that_was_never_finished_is_void(server: NatsServer) -> None:
    async def run() -> None:
        async with two_logs(server) as (old, new, driver):
            long = bytes(driver.max_payload * 2)
            await old.append("old", long)
            await old._append("old", b"\x01the first part of what is never finished")
            await new.read(lambda *_: None)
            await new.append("new", b"claim")
            entries = await content(new)
            assert [(first, last, len(data)) for first, last, data in entries] == [(1, 3, len(long)), (5, 5, 5)]
            assert await new.get(1, 3) == long

    asyncio.run(run())


def test_what_was_given_up_is_gone_and_the_rest_is_read(server: NatsServer) -> None:
    async def run() -> None:
        async with two_logs(server) as (log, other, _):
            for n in range(100):
                await log.append("me", b"%d" % n)
            await log.purge(90)
            assert [int(data) for _, _, data in await content(other)] == list(range(90, 100))
            assert other.last == 100

    asyncio.run(run())


def test_a_reading_whose_beginning_was_given_up_meanwhile_is_not_trusted(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read may have been taken back by an entry that is not there any more."""

    async def run() -> None:
        async with two_logs(server) as (reader, owner, driver):
            for n in range(100):
                await owner.append("owner", b"%d" % n)
            publish = driver.publish
            asked: list[str] = []

            async def late(subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
                asked.append(subject)
                if len(asked) == 2:  # the second batch of the reading
                    await owner.purge(60)
                await publish(subject, data, reply=reply, headers=headers)

            monkeypatch.setattr(driver, "publish", late)
            with pytest.raises(Torn):
                await content(reader)
            assert len(await content(reader)) == 40

    asyncio.run(run())


def test_a_log_of_a_newer_version_is_refused_and_left_as_it_is(server: NatsServer) -> None:
    url = f"{server.url}?space={secrets.token_hex(8)}"

    async def write() -> None:
        driver = Driver(parse(url), "test", nothing, nothing)
        await driver.connect()
        log = Log(driver, parse(url))
        await log.prepare()
        await log.append("newer", encode(Entry(FORMAT + 1, "newer", 1, 1)))
        await driver.close()

    asyncio.run(write())
    with pytest.raises(UsageError, match="newer manyhands"):
        NatsEngine(url)


def test_more_replicas_than_servers_are_refused_with_a_sentence(server: NatsServer) -> None:
    async def run() -> None:
        where = parse(f"{server.url}?space={secrets.token_hex(8)}&replicas=3")
        driver = Driver(where, "test", nothing, nothing)
        await driver.connect()
        try:
            with pytest.raises(UsageError, match="replicas=3 cannot be had"):
                await Log(driver, where).prepare()
        finally:
            await driver.close()

    asyncio.run(run())
