"""What a serving manager shows where the standard library has a server object and a process: here both are a thread."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyhands.managers.base import BaseManager
    from manyhands.managers.master import Master


class Server:
    """What `get_server()` returns: a bound manager, to be served in the calling thread."""

    def __init__(self, manager: BaseManager, master: Master) -> None:
        self._manager = manager
        self._master = master
        self.listener = _Listener(self)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        address: tuple[str, int] = self._manager.address
        return address

    def serve_forever(self) -> None:
        """Serve until Ctrl-C, SIGTERM or shutdown() from another thread; then stop in good order and return."""
        try:
            self._master.run()
        finally:
            self._manager.shutdown()


class _Listener:
    """The standard library's name for what a server listens with."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.address = server.address

    def close(self) -> None:
        """Give the address up; the manager can then be started anew."""
        self._server._manager._unbind(self._server._master)


class ServingHere:
    """Stands where the standard library keeps the manager's process: the server is a thread of this one."""

    name = "MainProcess"

    def __init__(self, manager: BaseManager) -> None:
        self._manager = manager
        self.pid = os.getpid()

    @property
    def exitcode(self) -> int | None:
        """0 once the manager was shut down."""
        return None if self.is_alive() else 0

    def is_alive(self) -> bool:
        """Whether the manager serves."""
        return not self._manager._is_over.is_set()

    def join(self, timeout: float | None = None) -> None:
        """Wait until the manager was shut down."""
        self._manager.join(timeout)

    def terminate(self) -> None:
        """Shut the manager down."""
        self._manager.shutdown()
