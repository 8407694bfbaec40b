"""The one place that knows nats-py: a connection that comes back, and its errors in our words."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from manyhands import _forks
from manyhands._chance import CHANCE
from manyhands.engines.nats.where import Where
from manyhands.errors import AuthenticationFailed, EngineUnavailable, ManyhandsError
from manyhands.retry import backoff_s

_log = logging.getLogger(__name__)

CONNECT_S = 5.0
_PING_EVERY_S, _PINGS_LOST = 2.0, 2
"""Silence of the server for some seconds is the end of a connection; nats-py's own default is four minutes."""
_BASE_S, _CAP_S = 0.05, 2.0
_PENDING_BYTES = 64 * 1024 * 1024

Take = Callable[[bytes, str], None]
"""Takes a message and the subject where its answer may go ("" for none)."""
TakeStatus = Callable[[str], None]
"""Takes NATS's own word, as "503": nobody listens on the subject of what was published with this reply address."""
NOBODY = "503"


class Unreachable(Exception):
    """NATS is not there, or did not answer in time: what was asked may have been done or not."""


class Nobody(Unreachable):
    """NATS is there, but nobody listens on that subject."""


class Denied(Exception):
    """NATS does not let us in, or not do this."""


class Driver:
    """One program's connection. Belongs to one event loop.

    Args:
        lost, found: called in the loop when the connection ended by itself, and when there is one again.
    """

    def __init__(self, where: Where, name: str, lost: Callable[[], None], found: Callable[[], None]) -> None:
        self._where = where
        self._name = name
        self._lost = lost
        self._found = found
        self._urls = [f"{'tls' if where.is_tls else 'nats'}://{_bracketed(host)}:{port}" for host, port in where.hosts]
        self._client: Client | None = None
        self._takes: dict[str, tuple[Take, TakeStatus]] = {}
        self._subscriptions: dict[str, Any] = {}
        self._coming_back: asyncio.Task[None] | None = None
        self._mail: deque[tuple[str, bytes, str]] = deque()
        self._posting: asyncio.Task[None] | None = None
        self._is_closed = False
        self.max_payload = 0
        self.version = ""
        self.cluster_size = 1
        self.is_alone = True
        """Whether the server is in no cluster."""
        self.has_jetstream = False
        _forks.watch(self)

    @property
    def is_up(self) -> bool:
        """Whether there is a connection as far as we know."""
        return self._client is not None and self._client.is_connected

    async def connect(self) -> None:
        """Connect to one of the servers.

        Raises:
            Unreachable: none answers.
            Denied: it does not let us in.
        """
        problem: Exception = Unreachable("no host was named")
        for url in CHANCE.sample(self._urls, len(self._urls)):
            client = Client()
            try:
                await asyncio.wait_for(self._connect(client, url), CONNECT_S)
            except (nats.errors.Error, OSError, TimeoutError, ssl.SSLError) as error:
                await _close(client)
                problem = translated(error)
                if isinstance(problem, Denied):
                    raise problem from error
                continue
            if client.is_closed:  # it broke while it was made, so nobody will be told of its end
                problem = Unreachable("the connection broke at once")
                continue
            self._client = client
            self._look(client)
            return
        raise problem

    async def _connect(self, client: Client, url: str) -> None:
        where = self._where
        options: dict[str, Any] = {}
        if where.username is not None:
            options |= {"user": where.username, "password": where.password or ""}
        if where.creds:
            options["user_credentials"] = where.creds

        async def closed() -> None:
            if client is self._client and not self._is_closed:
                self._on_lost()

        async def failed(error: Exception) -> None:
            _log.debug("nats-py: %r", error)

        await client.connect(
            url,
            name=self._name,
            allow_reconnect=False,  # every connection is made here, in one way
            max_reconnect_attempts=1,
            connect_timeout=int(CONNECT_S),
            ping_interval=_PING_EVERY_S,  # type: ignore[arg-type, unused-ignore]
            max_outstanding_pings=_PINGS_LOST,
            pending_size=_PENDING_BYTES,
            closed_cb=closed,
            error_cb=failed,
            **options,
        )
        for subject, takes in self._takes.items():
            self._subscriptions[subject] = await self._listen(client, subject, *takes)
        if self._takes:
            await client.flush(int(CONNECT_S))

    def _look(self, client: Client) -> None:
        info: dict[str, Any] = client._server_info
        self.max_payload = client.max_payload
        self.version = str(info.get("version", ""))
        scheme = "tls" if self._where.is_tls else "nats"
        told = [f"{scheme}://{one}" for one in info.get("connect_urls") or ()]
        self._urls += [url for url in told if url not in self._urls]
        self.cluster_size = max(1, len(told))
        self.is_alone = not info.get("cluster")
        self.has_jetstream = bool(info.get("jetstream"))

    def _on_lost(self) -> None:
        _log.warning("lost the NATS at %s; it is tried again", self._where.text)
        self._client = None
        self._subscriptions.clear()
        self._lost()
        self._coming_back = asyncio.get_running_loop().create_task(self._come_back(), name="manyhands-nats reconnect")

    async def _come_back(self) -> None:
        attempt = 0
        while not self._is_closed:
            try:
                await self.connect()
            except (Unreachable, Denied) as error:
                attempt += 1
                _log.debug("NATS is not reached: %s", error)
                await asyncio.sleep(backoff_s(attempt, base_s=_BASE_S, cap_s=_CAP_S, unit=0.5 + CHANCE.random() / 2))
            else:
                _log.info("reached the NATS at %s again", self._where.text)
                self._found()
                return

    async def subscribe(self, subject: str, take: Take, status: TakeStatus = lambda code: None) -> None:
        """Hear a subject from now, on every connection to come. Both are called in the loop, for each message."""
        self._takes[subject] = take, status
        if self._client is not None:
            with suppress(nats.errors.Error):
                self._subscriptions[subject] = await self._listen(self._client, subject, take, status)
                await self._client.flush(int(CONNECT_S))

    async def unsubscribe(self, subject: str) -> None:
        """Hear it no more."""
        self._takes.pop(subject, None)
        subscription = self._subscriptions.pop(subject, None)
        if subscription is not None:
            with suppress(nats.errors.Error):
                await subscription.unsubscribe()

    @staticmethod
    async def _listen(client: Client, subject: str, take: Take, status: TakeStatus) -> Any:
        async def on_message(message: Msg) -> None:
            code = message.headers.get("Status") if message.headers and not message.data else None
            if code is None:
                take(message.data, message.reply)
            else:
                status(code)

        return await client.subscribe(subject, cb=on_message, pending_msgs_limit=0, pending_bytes_limit=0)

    def _living(self) -> Client:
        """The connection. nats-py does not always call closed_cb (not when its last write fails), so it is looked at here;
        programs pulse, so soon enough.

        Raises:
            Unreachable: there is none.
        """
        client = self._client
        if client is not None and client.is_closed:
            self._on_lost()
            client = None
        if client is None:
            raise Unreachable("there is no connection")
        return client

    def post(self, subject: str, data: bytes, reply: str = "") -> None:
        """Send soon and in order, without waiting; while there is no connection it is dropped."""
        self._mail.append((subject, data, reply))
        if self._posting is None:
            self._posting = asyncio.get_running_loop().create_task(self._post_all(), name="manyhands-nats post")

    async def _post_all(self) -> None:
        try:
            while self._mail:
                subject, data, reply = self._mail.popleft()
                with suppress(Unreachable, Denied):
                    await self.publish(subject, data, reply=reply)
        finally:
            self._posting = None

    async def publish(self, subject: str, data: bytes, *, reply: str = "", headers: dict[str, str] | None = None) -> None:
        """Send and forget.

        Raises:
            Unreachable: there is no connection.
        """
        client = self._living()
        try:
            await client.publish(subject, data, reply=reply, headers=headers)
        except (nats.errors.Error, OSError) as error:
            raise translated(error) from error

    async def ask(self, subject: str, data: bytes, timeout_s: float, headers: dict[str, str] | None = None) -> bytes:
        """Send and wait for one answer.

        Raises:
            Nobody: nobody listens there.
            Unreachable: no answer within timeout_s, or no connection.
        """
        client = self._living()
        try:
            answer = await client.request(subject, data, timeout=timeout_s, headers=headers)
        except nats.errors.NoRespondersError as error:
            raise Nobody(f"nobody listens on {subject}") from error
        except (nats.errors.Error, OSError, asyncio.InvalidStateError) as error:
            raise translated(error) from error
        found: bytes = answer.data
        return found

    async def flush(self, timeout_s: float) -> None:
        """Wait until the server has everything that was published.

        Raises:
            Unreachable: it did not say so in time.
        """
        while self._posting is not None:
            await asyncio.sleep(0)
        client = self._living()
        try:
            await asyncio.wait_for(client.flush(), timeout_s)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise translated(error) from error

    async def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        _forks.forget(self)
        if self._coming_back is not None:
            self._coming_back.cancel()
        client, self._client = self._client, None
        if client is not None:
            await _close(client)

    def close_in_child(self) -> None:
        """In a forked child: close this end and leave the connection to the parent, whose death must be seen at once."""
        writer = getattr(getattr(self._client, "_transport", None), "_io_writer", None)
        sock = writer.get_extra_info("socket") if writer is not None else None
        if sock is not None:
            with suppress(OSError):
                os.close(sock.fileno())


async def _close(client: Client) -> None:
    with suppress(nats.errors.Error, OSError, TimeoutError):
        await client.close()


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def translated(error: Exception) -> Exception:
    """A driver's error in our words; its cause is for the caller to keep."""
    text = str(error) or type(error).__name__
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in text.lower():
        return Denied(text)
    return Unreachable(text.removeprefix("nats: "))


def as_engine_error(problem: Exception, text: str) -> ManyhandsError:
    """What the caller of the engine hears of a NATS that is not there or does not let us in."""
    if isinstance(problem, Denied):
        return AuthenticationFailed(
            f"the NATS at {text} does not let us in ({problem}); check the user and password in the URL and what that user "
            "may do."
        )
    return EngineUnavailable(
        f"the NATS at {text} does not answer ({problem}); check the address, that it runs, and that JetStream is enabled "
        "there (-js); it is tried again."
    )
