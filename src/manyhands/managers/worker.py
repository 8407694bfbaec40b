"""A worker's connection to its master."""

from __future__ import annotations

from collections import deque
from typing import Any

from manyhands.auth import Keyring
from manyhands.client.client import Client
from manyhands.codec import encode
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import ProtocolError
from manyhands.events import Create, Created, Drop
from manyhands.managers.proxies import QueueProxy
from manyhands.model import Message

CONNECT_S = 10.0


class MasterLink:
    """One worker process's session at its master.

    Raises:
        ServerUnavailable: nobody answered within 10 s.
        AuthenticationFailed: the master has another key.
    """

    def __init__(self, host: str, port: int, keyring: Keyring) -> None:
        engine = RemoteEngine((host, port), keyring, connect_timeout_s=CONNECT_S)
        self._client = Client(engine, keyring, url=engine.address.url, owns_engine=True)
        # What a collector noted, in whatever thread and lock it ran; sent with the next request.
        self._dropped: deque[str] = deque()

    def proxy(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> QueueProxy:
        """The queue that the master offers under typeid.

        Raises:
            UsageError: it offers nothing of that name; the sentence lists what it offers.
            TaskFailed: its callable raised.
            UnsupportedFeature: its callable returned something that cannot be served.
        """
        session = self._client.open()
        with session.lock:
            while self._dropped:
                session.state.outbox.append(Drop(self._dropped.popleft()))
            call = session.state.call(Create, typeid, self._sealed(typeid, args, kwds))
        reply = session.ask(call)
        if not isinstance(reply, Created):
            raise ProtocolError(
                f"The master answered {type(reply).__name__} to a request for {typeid!r}; is it of another version?"
            )
        proxy = QueueProxy(self._client, reply.queue)
        proxy.when_dropped(self._dropped.append)
        return proxy

    def close(self) -> None:
        """Leave the master. Idempotent."""
        self._client.close()

    def _sealed(self, typeid: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> Message | None:
        if not args and not kwds:
            return None
        session = self._client.open()
        encoding, body = encode((args, kwds))
        message_id = session.new_id()
        return Message(message_id, body, session.codec.seal(typeid, message_id, encoding, body))
