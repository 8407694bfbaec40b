"""A real server, a scripted producer and a scripted parent around real child processes."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from manyhands.auth import Keyring
from manyhands.calls import bodies, outcomes
from manyhands.codec import PICKLED_CALLS, Codec
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import from_code
from manyhands.events import Attach, Collect, Collected, Failed, Put, Reply, Request
from manyhands.model import Ended, Kind, Message, Options, SettleKind, result_id
from manyhands.worker.block import ParentBlock
from manyhands.worker.settings import ChildSettings, as_bytes, command

KEY = "a key of these tests"
QUEUE = "mail()"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
DEADLINE_S = 30.0


def until(is_so: Callable[[], Any], what: str, deadline_s: float = DEADLINE_S) -> Any:
    """Wait for something, and say what never came."""
    end = time.monotonic() + deadline_s
    while not (found := is_so()):
        assert time.monotonic() < end, f"it never came: {what}"
        time.sleep(0.002)
    return found


class Session:
    """A session of the test's own: what it asked, and all that it was told."""

    def __init__(self, url: str, name: str) -> None:
        self.id = secrets.token_hex(16)
        self.told: list[Reply] = []
        self._rid = 0
        self._engine = RemoteEngine(url, Keyring(KEY))
        self._port = self._engine.attach(Attach(self.id, name), self.told.extend)

    def rid(self) -> int:
        self._rid += 1
        return self._rid

    def send(self, *requests: Request) -> None:
        self._port.send(requests)

    def ask(self, request: Any) -> Any:
        """Send it and wait for its reply."""
        self.send(request)
        reply = until(lambda: self.reply_to(request.rid), f"the reply to {request}")
        if isinstance(reply, Failed):
            raise from_code(reply.code, reply.text, reply.facts)
        return reply

    def reply_to(self, rid: int) -> Reply | None:
        return next((reply for reply in list(self.told) if getattr(reply, "rid", 0) == rid), None)

    def heard(self, kind: type) -> list[Any]:
        return [reply for reply in list(self.told) if type(reply) is kind]

    def close(self) -> None:
        self._engine.close()


class Producer(Session):
    """Puts calls and reads what becomes of them."""

    def __init__(self, url: str) -> None:
        super().__init__(url, "producer")
        self.stream = secrets.token_hex(16)
        self.codec = Codec([(key.id, key.body) for key in Keyring(KEY)])
        self.results: dict[tuple[str, int], Any] = {}
        """By message and call: the value, or the exception."""
        self.ended: list[Ended] = []
        self.times: list[tuple[int, float]] = []
        self._seq = 0
        self._ack = 0
        self._collecting = 0
        self._calls: dict[str, int] = {}

    def put(self, *messages: Message, queue: str = QUEUE) -> None:
        self._seq += 1
        self.ask(Put(self.rid(), queue, self._seq, self._seq, list(messages)))

    def call(
        self,
        function: Callable[..., Any],
        *calls: tuple[Any, ...],
        timeout_s: float = 0.0,
        setup: bodies.Setup | None = None,
        python: str = PYTHON,
        queue: str = QUEUE,
        max_deliveries: int = 3,
    ) -> Message:
        """A message as a client makes one; several calls are a pack."""
        message_id = secrets.token_hex(8)
        found = bodies.to_function(function, python, timeout_s=timeout_s, setup=setup)
        arguments = [bodies.argument(found.before + args, {}) for args in calls]
        prefix = bodies.Prefix(found.head)
        if len(arguments) == 1 and isinstance(arguments[0], bodies.Pickled):
            body = prefix.encode_alone(arguments[0], python)
        else:
            body = prefix.encode(arguments)  # type: ignore[arg-type]
        seal = self.codec.seal(queue, message_id, PICKLED_CALLS, body, Kind.CALL)
        self._calls[message_id] = len(calls)
        options = Options(reply_to=self.stream, calls=len(calls) if len(calls) > 1 else 0)
        return Message(message_id, body, seal, Kind.CALL, max_deliveries=max_deliveries, options=options)

    def submit(self, function: Callable[..., Any], *calls: tuple[Any, ...], **options: Any) -> str:
        message = self.call(function, *calls, **options)
        self.put(message, queue=options.get("queue", QUEUE))
        return message.id

    def collect(self) -> None:
        """Read what has ended since."""
        if not self._collecting:
            self._collecting = self.rid()
            self.send(Collect(self._collecting, self.stream, self._ack))
        reply = self.reply_to(self._collecting)
        if isinstance(reply, Collected):
            self._collecting = 0
            self._ack = reply.number
            for ended in reply.ended:
                self._note(ended)

    def _note(self, ended: Ended) -> None:
        self.ended.append(ended)
        pack, _, part = ended.id.partition(".")
        first = ended.first + int(part or 0)
        if ended.value is None:
            for index in range(first, first + ended.n):
                self.results[pack, index] = from_code(ended.code, ended.text)
            return
        n = ended.n if self._calls[pack] > 1 and not part else 0
        _, start = self.codec.verify_result(QUEUE, result_id(ended.id, ended.first, n), ended.value, Kind.CALL)
        read = outcomes.read([ended.value], start)
        self.times += read.times
        for index, value in enumerate(read.values):
            assert (pack, first + index) not in self.results, "one call, two results"
            self.results[pack, first + index] = read.failed.get(index, value)

    def wait(self, message_id: str, deadline_s: float = DEADLINE_S) -> list[Any]:
        """The outcomes of all calls of a message."""
        n = self._calls[message_id]

        def have() -> bool:
            self.collect()
            return all((message_id, index) in self.results for index in range(n))

        until(have, f"the results of {message_id}", deadline_s)
        return [self.results[message_id, index] for index in range(n)]


class ChildAtWork:
    """A child's process, as a parent has it."""

    def __init__(self, url: str, parent: str, **changes: Any) -> None:
        self.block = ParentBlock()
        settings = self.make_settings(url, parent, self.block.path)
        self.session = settings.session
        self.life: socket.socket | None = None
        options: dict[str, Any] = {}
        if sys.platform != "win32":
            self.life, theirs = socket.socketpair()
            self.life.setblocking(False)
            options["pass_fds"] = (theirs.fileno(),)
            changes.setdefault("life_fd", theirs.fileno())
        self.settings = msgspec.structs.replace(settings, **changes)
        self.process = subprocess.Popen(command(), stdin=subprocess.PIPE, stderr=subprocess.PIPE, **options)
        if self.life is not None:
            theirs.close()
        self._errors: list[bytes] = []
        self._reader = threading.Thread(target=self._read_errors, daemon=True)
        self._reader.start()
        self.tell(as_bytes(self.settings))

    @staticmethod
    def make_settings(url: str, parent: str, block: str) -> ChildSettings:
        host, _, port = url.removeprefix("tcp://").rpartition(":")
        return ChildSettings(
            host=host,
            port=int(port),
            keys=[KEY.encode()],
            session=secrets.token_hex(16),
            parent=parent,
            block=block,
            queues=["mail"],
            name="child",
            sys_path=[path or os.getcwd() for path in sys.path],
        )

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        self._errors.extend(self.process.stderr)

    def tell(self, word: bytes) -> None:
        assert self.process.stdin is not None
        with contextlib.suppress(OSError):
            self.process.stdin.write(word)
            self.process.stdin.flush()

    def notices(self) -> bytes:
        assert self.life is not None
        try:
            return self.life.recv(100)
        except BlockingIOError:
            return b""

    def wait(self, deadline_s: float = DEADLINE_S) -> int:
        return self.process.wait(deadline_s)

    @property
    def errors(self) -> str:
        """What it wrote on stderr; it has ended."""
        self._reader.join(DEADLINE_S)
        return b"".join(self._errors).decode()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(DEADLINE_S)
        for stream in (self.process.stdin, self.process.stderr):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        if self.life is not None:
            self.life.close()
        self.block.close()


__all__ = ["DEADLINE_S", "KEY", "QUEUE", "ChildAtWork", "Iterator", "Producer", "Session", "SettleKind", "until"]
