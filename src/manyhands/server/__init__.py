"""The asyncio server: an engine behind a TCP port."""

from manyhands.server.listener import SocketServer

__all__ = ["SocketServer"]
