"""An engine and its socket in this process: what `manyhands.serve` returns."""

from __future__ import annotations

from typing import Any

from manyhands.auth import Keyring
from manyhands.client import Client, Queue, exits
from manyhands.engines.base import Engine
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import UsageError
from manyhands.server import SocketServer


class Server:
    """Serves an engine's queues in a background thread of this process, whose own clients reach them directly.

    It says goodbye to its clients when it is stopped, and when the process ends. That settles nothing: what they work on is
    theirs until they come back, or until their leases end.

    Args:
        engine: closed with the server.
        socket_server: bound, not started.
    """

    def __init__(self, engine: Engine, socket_server: SocketServer, keyring: Keyring) -> None:
        self._engine = engine
        self._socket_server = socket_server
        self._keyring = keyring
        self._client: Client | None = None
        self._clients: list[Client] = []
        self._is_stopped = False
        self._is_foreign = False
        self.url = socket_server.url
        """What another program passes to connect."""
        self.address: tuple[str, int] = (socket_server.address.host, socket_server.address.port)
        socket_server.start()
        exits.opened(self)

    def client(self) -> Client:
        """A client of these queues with a session of its own, without a socket."""
        if self._is_stopped:
            raise UsageError(f"The server at {self.url} was stopped; start another one.")
        if self._is_foreign:
            return Client(RemoteEngine(self.url, self._keyring), self._keyring, url=self.url, owns_engine=True)
        client = Client(self._engine, self._keyring, url=self.url, reopen=lambda: RemoteEngine(self.url, self._keyring))
        self._clients.append(client)
        return client

    def queue(self, name: str, maxsize: int = 0) -> Queue:
        """The queue of that name, for this process; see `Client.queue`."""
        if self._client is None:
            self._client = self.client()
        return self._client.queue(name, maxsize)

    def stop(self, reason: str = "The server was stopped.") -> None:
        """End this process's clients, say goodbye to all others, stop listening and close the engine. Idempotent."""
        self._stop(exits.NORMAL, reason)

    def _stop(self, how: exits.End, reason: str, *, is_exit: bool = False) -> None:
        exits.closed(self)
        if self._is_stopped or self._is_foreign:
            return
        self._is_stopped = True
        for client in self._clients:
            client.end(how, is_exit=is_exit)
        self._socket_server.stop(reason)
        self._engine.close(closing_reason=reason)

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stop(exits.end_of(error), "The server was stopped.")

    def __repr__(self) -> str:
        return f"<manyhands.Server {self.url} {self._engine.name}>"

    # -- how the process ends (client/exits.py)

    def end(self, how: exits.End, *, is_exit: bool = False) -> None:
        """The process ends."""
        self._stop(how, "The server's program ended.", is_exit=is_exit)

    def thread_ended(self, ident: int, how: exits.End) -> None:
        """Nothing of the server is a thread's."""

    def forked(self) -> None:
        """In a forked child the server is the parent's; new clients connect to it."""
        self._is_foreign = True
        self._client = None
        self._clients = []
