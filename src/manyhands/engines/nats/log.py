"""The space's stream as a log with one writer: appends that are fenced, reading it whole, and giving up its head.

The fence is JetStream's: every append says which number it believes to be the last (`Nats-Expected-Last-Sequence`), and
the stream's leader refuses it when another append came first. So whoever has written the newest claim is the owner, and
a deposed one finds out by its next append, however quick it is. An append whose answer is lost is sent again as it was: it
is then either new, or known by its `Nats-Msg-Id`, or refused, and what stands at its number says whose it is.

An entry that is too long for one message goes in several; the next claim makes one that was never finished void.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from manyhands._chance import CHANCE
from manyhands.engines.nats.checks import Found, check_version, examine, replicas_for
from manyhands.engines.nats.driver import Denied, Driver, Nobody, Unreachable
from manyhands.engines.nats.where import Where
from manyhands.errors import UsageError
from manyhands.retry import backoff_s

_log = logging.getLogger(__name__)

_API = "$JS.API."
_API_S, _ANSWER_S, _READ_S = 5.0, 2.0, 10.0
_FIRST, _LAST = 1, 2
_HEAD_BYTES = 512  # of a message: its headers, and the flag
_NOT_FOUND = (10059, 10037)  # of a stream, of a message
_WRONG_LAST = (10071, 10164)
_UNFIT = (10074, 10005, 10052)  # replicas that cannot be had
_READ_BYTES, _READ_MOST = 16 * 1024 * 1024, 1024

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Deposed(Exception):
    """Somebody else wrote to the log: this program is the owner no more."""


class Torn(Exception):
    """Its head was given up while it was read: read it again."""


class ApiError(Exception):
    """JetStream refused it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(str(error.get("description", error)))
        self.code = int(error.get("code", 0))
        self.err_code = int(error.get("err_code", 0))


class Log:
    """One space's stream."""

    def __init__(self, driver: Driver, where: Where) -> None:
        self._driver = driver
        self._where = where
        self._subject = f"{where.prefix}.log"
        self.last = 0
        """The number of the newest message, as far as we know."""

    async def _api(self, verb: str, body: dict[str, Any] | None = None, timeout_s: float = _API_S) -> dict[str, Any]:
        answer: dict[str, Any] = _decode(await self._driver.ask(_API + verb, _encode(body) if body else b"", timeout_s))
        if "error" in answer:
            raise ApiError(answer["error"])
        return answer

    # -- opening

    async def prepare(self) -> Found:
        """Make the stream if there is none, and judge it.

        Raises:
            UsageError: the server is too old, has no JetStream, or cannot keep what was asked for.
            Unreachable: JetStream does not answer (yet).
        """
        driver, where = self._driver, self._where
        check_version(driver.version, where.text)
        if driver.is_alone and not driver.has_jetstream:
            raise UsageError(
                f"the NATS at {where.text} has no JetStream, which keeps the queues; start nats-server with -js."
            )
        try:
            found = await self._api(f"STREAM.INFO.{where.stream}")
        except ApiError as error:
            if error.err_code not in _NOT_FOUND:
                raise Unreachable(str(error)) from error
            found = await self._create()
        return examine(driver.version, found["config"], where.replicas, where.text)

    async def _create(self) -> dict[str, Any]:
        where = self._where
        replicas = replicas_for(where.replicas, self._driver.cluster_size)
        config = {
            "name": where.stream,
            "description": "manyhands: queues of one space, as a log that one program at a time writes",
            "subjects": [self._subject],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "num_replicas": replicas,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "duplicate_window": 120_000_000_000,
        }
        try:
            return await self._api(f"STREAM.CREATE.{where.stream}", config)
        except ApiError as error:
            if error.err_code in _UNFIT:
                raise UsageError(
                    f"replicas={replicas} cannot be had at {where.text} ({error}); start as many servers with JetStream as "
                    "one cluster, or ask for fewer."
                ) from error
            raise Unreachable(str(error)) from error

    # -- reading

    async def read(self, take: Callable[[int, int, bytes], None]) -> None:
        """Read everything that is there.

        Args:
            take: called for each whole entry, with the numbers of its first and its last message.

        Raises:
            Torn: see there.
            Unreachable: it was not read to its end.
        """
        try:
            state = (await self._api(f"STREAM.INFO.{self._where.stream}"))["state"]
        except ApiError as error:
            raise Unreachable(str(error)) from error
        self.last = int(state["last_seq"])
        if state["messages"]:
            reading = _Reading(self._driver, self._where.stream, self.last, take)
            await reading.run()

    async def get(self, first: int, last: int) -> bytes:
        """The entry whose messages these are.

        Raises:
            Unreachable: it could not be read.
        """
        parts = []
        for number in range(first, last + 1):
            try:
                found = await self._api(f"STREAM.MSG.GET.{self._where.stream}", {"seq": number})
            except ApiError as error:
                raise Unreachable(str(error)) from error
            parts.append(base64.b64decode(found["message"]["data"])[1:])
        return b"".join(parts)

    # -- writing

    async def append(self, writer: str, data: bytes) -> tuple[int, int]:
        """Append one entry; returns the numbers of its first and last message when JetStream has all of it.

        Tries for as long as nobody answers; to give up, cancel it.

        Args:
            writer: who appends, unlike anybody before.

        Raises:
            Deposed: somebody else did; this entry is not in the log, or void there.
        """
        most, first = self._driver.max_payload - _HEAD_BYTES, self.last + 1
        for start in range(0, max(1, len(data)), most):
            flags = (_FIRST if start == 0 else 0) | (_LAST if start + most >= len(data) else 0)
            await self._append(writer, bytes((flags,)) + data[start : start + most])
        return first, self.last

    async def _append(self, writer: str, body: bytes) -> None:
        number = self.last + 1
        id_ = f"{writer}.{number}"
        headers = {
            "Nats-Expected-Last-Sequence": str(self.last),
            "Nats-Expected-Stream": self._where.stream,
            "Nats-Msg-Id": id_,
        }
        attempt = 0
        while True:
            try:
                answer: dict[str, Any] = _decode(await self._driver.ask(self._subject, body, _ANSWER_S, headers))
                error = answer.get("error")
                if error is None and answer["seq"] == number:
                    break
                if error is None or error.get("err_code") in _WRONG_LAST:
                    if await self._has(number, id_):
                        break
                    raise Deposed(f"another program wrote number {number} of {self._where.stream}")
                raise Unreachable(str(error.get("description", error)))
            except (Unreachable, Denied) as problem:
                attempt += 1
                if attempt == 5:
                    _log.warning("an append to %s is not answered (%s); it is tried again", self._where.stream, problem)
                await asyncio.sleep(backoff_s(attempt, base_s=0.05, cap_s=1.0, unit=0.5 + CHANCE.random() / 2))
        self.last = number

    async def _has(self, number: int, id_: str) -> bool:
        """Whether what stands at a number is the append with this id."""
        try:
            found = await self._api(f"STREAM.MSG.GET.{self._where.stream}", {"seq": number})
        except ApiError as error:
            if error.err_code in _NOT_FOUND:
                return False
            raise Unreachable(str(error)) from error
        headers = base64.b64decode(found["message"].get("hdrs", ""))
        return f"Nats-Msg-Id: {id_}\r\n".encode() in headers

    async def purge(self, last: int) -> None:
        """Give up everything up to this number.

        Raises:
            Unreachable: perhaps it was not; it can be asked for again.
        """
        try:
            await self._api(f"STREAM.PURGE.{self._where.stream}", {"seq": last + 1})
        except ApiError as error:
            raise Unreachable(str(error)) from error


class _Reading:
    """One reading of the whole stream, in batches that fit the connection."""

    def __init__(self, driver: Driver, stream: str, last: int, take: Callable[[int, int, bytes], None]) -> None:
        self._driver = driver
        self._stream = stream
        self._last = last
        self._take = take
        self._at = 0
        self._first = 0
        self._parts: list[bytes] | None = None
        self._wanted = 0
        self._bytes = 0
        self._count = 0
        self._is_torn = False
        self._failure: Exception | None = None
        """What take raised."""
        self._turned = asyncio.Event()

    async def run(self) -> None:
        """Raises: as `Log.read`."""
        driver = self._driver
        inbox = f"_INBOX.manyhands.{CHANCE.getrandbits(96):024x}"
        await driver.subscribe(inbox, self._on_message, self._on_status)
        try:
            config = {"ack_policy": "none", "deliver_policy": "all", "mem_storage": True, "num_replicas": 1}
            config["inactive_threshold"] = 30_000_000_000
            body = _encode({"stream_name": self._stream, "config": config})
            created = _decode(await driver.ask(f"{_API}CONSUMER.CREATE.{self._stream}", body, _API_S))
            if "error" in created:
                raise Unreachable(str(created["error"].get("description")))
            name = created["name"]
            while self._at < self._last:
                self._wanted = self._batch()
                self._turned.clear()
                asked = _encode({"batch": self._wanted, "no_wait": True})
                await driver.publish(f"{_API}CONSUMER.MSG.NEXT.{self._stream}.{name}", asked, reply=inbox)
                try:
                    await asyncio.wait_for(self._turned.wait(), _READ_S)
                except TimeoutError as error:
                    raise Unreachable("the log was not read to its end") from error
                if self._is_torn:
                    raise Torn
                if self._failure is not None:
                    raise self._failure
            with suppress(Nobody, Unreachable):
                await driver.ask(f"{_API}CONSUMER.DELETE.{self._stream}.{name}", b"", _API_S)
        finally:
            await driver.unsubscribe(inbox)

    def _batch(self) -> int:
        if not self._count:
            return 16
        return max(1, min(_READ_MOST, int(_READ_BYTES * self._count / max(1, self._bytes))))

    def _on_message(self, data: bytes, reply: str) -> None:
        # $JS.ACK.stream.consumer.deliveries.number.… ; with a domain and an account hash there are two tokens more.
        tokens = reply.split(".")
        number = int(tokens[5] if len(tokens) == 9 else tokens[7])
        if self._at and number != self._at + 1:
            self._is_torn = True
            self._turned.set()
            return
        self._at = number
        self._count += 1
        self._bytes += len(data)
        self._wanted -= 1
        if number <= self._last:
            self._part(number, data)
        if not self._wanted or number >= self._last:
            self._turned.set()

    def _part(self, number: int, data: bytes) -> None:
        flags = data[0]
        if flags & _FIRST:  # one that was never finished is void
            self._first, self._parts = number, []
        if self._parts is None:  # the rest of one whose beginning was given up
            return
        self._parts.append(data[1:])
        if flags & _LAST:
            whole, self._parts = b"".join(self._parts), None
            try:
                self._take(self._first, number, whole)
            except Exception as error:
                self._failure = error
                self._turned.set()

    def _on_status(self, code: str) -> None:
        self._turned.set()
