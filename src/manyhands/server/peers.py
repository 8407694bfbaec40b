"""What the listener needs of a connection, whoever serves it."""

from __future__ import annotations

from typing import Protocol

from manyhands.events import Closing, Failed


class Peer(Protocol):
    """One connection, of whichever kind. All methods but `write_through` are called in the loop's thread."""

    @property
    def fd(self) -> int: ...

    peer: str
    session: str
    linger_s: float

    def flush(self) -> None: ...

    def write_through(self) -> bool: ...

    def say_last(self, last: Closing | Failed) -> None: ...

    def abort(self) -> None: ...


class StockPeer(Peer, Protocol):
    """What serves a standard-library peer once it has shown the key: its transport's new protocol."""

    def begin(self, early: bytes) -> None: ...
