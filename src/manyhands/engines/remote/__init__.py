"""The client's end of our wire, as an engine."""

from manyhands.engines.remote.engine import RemoteEngine
from manyhands.engines.remote.port import RemotePort

__all__ = ["RemoteEngine", "RemotePort"]
