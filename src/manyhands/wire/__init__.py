"""The wire, pure: handshake, frames, and the two ends of a connection as state machines without sockets or clocks."""

from manyhands.wire.client import ClientWire
from manyhands.wire.frames import FrameDecoder, FrameEncoder
from manyhands.wire.server import Authenticated, PeerIsStock, ServerEvent, ServerWire

__all__ = ["Authenticated", "ClientWire", "FrameDecoder", "FrameEncoder", "PeerIsStock", "ServerEvent", "ServerWire"]
