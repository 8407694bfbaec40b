"""The one place that knows redis-py: connections, the script's call, and its errors in our words."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.retry import Retry

from manyhands import _forks
from manyhands._chance import CHANCE
from manyhands.engines.redis.script import function, packed, source
from manyhands.engines.redis.where import Where
from manyhands.errors import AuthenticationFailed, EngineUnavailable

CONNECT_S = 5.0
ANSWER_S = 10.0
"""A server that has not answered by then counts as gone. A step takes milliseconds, a failing disk seconds."""
_REDIRECTS = 5


class Refusal(Exception):
    """Redis is there and refused this call; nothing of it was applied."""


class MemoryShort(Refusal):
    """Redis has no memory left for this; what frees some still works."""


class Unreachable(Exception):
    """Redis is not there, or not in a state in which it could answer: try again, perhaps elsewhere."""


class Elsewhere(Unreachable):
    """In a cluster: another node has the slot."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(f"the slot is at {host}:{port}")
        self.host = host
        self.port = port


class TooFew(Unreachable):
    """Redis is there without the replicas that the URL asks for."""


class Denied(Exception):
    """Redis does not let us in: the user, the password or the rights are wrong."""


def translated(error: Exception) -> Exception:
    """A driver's error in our words; its cause is for the caller to keep."""
    if isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError):
        return Denied(str(error))
    if isinstance(error, redis.exceptions.BusyLoadingError | redis.exceptions.ReadOnlyError):
        return Unreachable(str(error))
    if isinstance(error, redis.exceptions.MovedError):
        return Elsewhere(error.host, error.port)
    if isinstance(error, redis.exceptions.ResponseError):
        text = str(error)
        if text.startswith(("CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN", "LOADING", "READONLY", "UNBLOCKED")):
            return Unreachable(text)
        return MemoryShort(text) if isinstance(error, redis.exceptions.OutOfMemoryError) else Refusal(text)
    return Unreachable(str(error) or type(error).__name__)


class Wire:
    """One connection to the node that has the space's slot."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        _forks.watch(self)

    def ask(self, *words: str | bytes | int) -> Any:
        """One ordinary command and its answer.

        Raises:
            Refusal, Unreachable, Denied: as they say.
        """
        try:
            self._connection.send_command(*words)
            return self._connection.read_response()
        except redis.exceptions.RedisError as error:
            raise translated(error) from error

    def run(
        self, prefix: bytes, args: Sequence[bytes], *, is_relief: bool = False, then: Sequence[str] = ()
    ) -> tuple[list[Any], Any]:
        """One step, and what the server says to a command right behind it, in one trip.

        Args:
            is_relief: it puts nothing, and may run when memory is short.
            then: that command; its refusal is its answer.

        Raises:
            MemoryShort, Refusal: nothing was applied.
            Unreachable: it may have been applied or not.
        """
        command = packed([b"FCALL", function("relief" if is_relief else "step"), b"1", prefix, *args])
        if then:
            command += packed([word.encode() for word in then])
        try:
            answer, second = self._exchange(command, is_two=bool(then))
            if isinstance(answer, redis.exceptions.ResponseError) and "function not found" in str(answer).lower():
                self._connection.send_command("FUNCTION", "LOAD", "REPLACE", source())
                self._connection.read_response()
                answer, second = self._exchange(command, is_two=bool(then))
        except redis.exceptions.RedisError as error:
            raise translated(error) from error
        if isinstance(answer, Exception):
            raise translated(answer) from answer
        return answer, second

    def _exchange(self, command: Sequence[bytes], *, is_two: bool) -> tuple[Any, Any]:
        """Send, and read one answer or two; a refusal is an answer."""
        self._connection.send_packed_command(command, check_health=False)
        return self._answer(), self._answer() if is_two else None

    def _answer(self) -> Any:
        try:
            return self._connection.read_response()
        except redis.exceptions.ResponseError as refusal:
            return refusal

    def subscribe(self, channel: bytes) -> None:
        """Hear this channel from now; the connection is for `news` only."""
        answer = self.ask("SSUBSCRIBE", channel)
        if answer[0] != b"ssubscribe":
            raise Unreachable(f"SSUBSCRIBE was answered {answer!r:.100}")

    def news(self) -> bytes | None:
        """Wait for the next message of the channel; None for other news.

        Raises:
            Unreachable: the connection ended.
        """
        try:
            kind, _, payload = self._connection.read_response()
        except redis.exceptions.RedisError as error:
            raise translated(error) from error
        return payload if kind == b"smessage" else None

    def interrupt(self) -> None:
        """Make a thread that waits in `news` come back with Unreachable."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        _forks.forget(self)
        self._connection.disconnect()

    def close_in_child(self) -> None:
        """In a forked child: close this end and leave the connection to the parent, whose death must be seen at once."""
        sock = getattr(self._connection, "_sock", None)
        if sock is not None:
            with suppress(OSError):
                sock.close()


class Driver:
    """Finds the node that has the space and opens connections to it."""

    def __init__(self, where: Where) -> None:
        self._where = where
        self.prefix = f"manyhands:{{{where.space}}}".encode()
        self._node: tuple[str, int] | None = None

    def open(self, *, is_patient: bool = False) -> Wire:
        """A new connection.

        Args:
            is_patient: reads wait for ever (for news) instead of ANSWER_S.

        Raises:
            Unreachable: none of the hosts answers.
            Denied: it does not let us in.
        """
        hosts = [self._node] if self._node else CHANCE.sample(self._where.hosts, len(self._where.hosts))
        problem: Exception = Unreachable("no host was named")
        for host, port in hosts:
            try:
                if self._where.sentinel and self._node is None:
                    host, port = self._master(host, port)
                return self._at_slot(host, port, is_patient)
            except Unreachable as error:
                problem = error
        self.look_around()
        raise problem

    def look_around(self) -> None:
        """The node may have lost its slot or its office: ask the named hosts again."""
        self._node = None

    def _at_slot(self, host: str, port: int, is_patient: bool) -> Wire:
        """Follow a cluster's redirections to the node that has the space's slot."""
        for _ in range(_REDIRECTS):
            wire = Wire(self._connect(host, port, None if is_patient else ANSWER_S))
            try:
                wire.ask("EXISTS", self.prefix + b":g")
            except Elsewhere as elsewhere:
                wire.close()
                host, port = elsewhere.host or host, elsewhere.port
                continue
            except Refusal as refusal:
                wire.close()
                raise Unreachable(str(refusal)) from refusal
            except BaseException:
                wire.close()
                raise
            self._node = host, port
            return wire
        raise Unreachable("the cluster sends us from node to node")

    def _master(self, host: str, port: int) -> tuple[str, int]:
        wire = Wire(self._connect(host, port, CONNECT_S, is_sentinel=True))
        try:
            found = wire.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._where.sentinel)
        except Refusal as refusal:
            raise Unreachable(str(refusal)) from refusal
        finally:
            wire.close()
        if not found:
            raise Unreachable(f"the Sentinel at {host}:{port} knows no master named {self._where.sentinel!r}")
        return found[0].decode(), int(found[1])

    def _connect(self, host: str, port: int, answer_s: float | None, *, is_sentinel: bool = False) -> Connection:
        kind = SSLConnection if self._where.is_tls else Connection
        connection = kind(
            host=host,
            port=port,
            db=0 if is_sentinel else self._where.db,
            username=None if is_sentinel else self._where.username,
            password=None if is_sentinel else self._where.password,
            socket_connect_timeout=CONNECT_S,
            socket_timeout=answer_s,
            socket_keepalive=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
        )
        try:
            connection.connect()
        except redis.exceptions.RedisError as error:
            connection.disconnect()
            raise translated(error) from error
        return connection


def as_engine_error(problem: Exception, text: str) -> Exception:
    """What the caller of the engine hears of a Redis that is not there or does not let us in."""
    if isinstance(problem, Denied):
        return AuthenticationFailed(
            f"the Redis at {text} does not let us in ({problem}); check the user and password in the URL and what that user "
            "may do."
        )
    if isinstance(problem, TooFew):
        return EngineUnavailable(f"the Redis at {text} has too few replicas: {problem}")
    return EngineUnavailable(
        f"the Redis at {text} does not answer ({problem}); check the address and that it runs; it is tried again."
    )
