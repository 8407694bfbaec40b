"""Writing to a peer from another thread than the loop's: no byte is lost, and none overtakes another."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from manyhands.managers.stock.outlet import Outlet

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there the loop alone writes")


class Transport:
    """Stands for the loop's: keeps what it is to write, and may be told that something lies in its buffer."""

    def __init__(self) -> None:
        self.written = b""
        self.buffered = 0

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Any) -> None:
        self.write(b"".join(parts))


class Pair:
    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.transport = Transport()
        self.outlet = Outlet(self.transport, self.ours.fileno())  # type: ignore[arg-type]

    def say(self, data: bytes, is_all: bool = True) -> bool:
        def answer() -> bool:
            self.outlet.write(data)
            return is_all

        return self.outlet.through(answer)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.ours.close()
    pair.theirs.close()


def test_what_another_thread_says_leaves_at_once(pair: Pair) -> None:
    assert pair.say(b"now")
    assert pair.theirs.recv(100) == b"now"
    assert not pair.say(b"more", is_all=False)  # the loop has to go on
    assert pair.theirs.recv(100) == b"more"


def test_what_the_kernel_does_not_take_is_the_first_that_the_loop_writes(pair: Pair) -> None:
    large = bytes(range(256)) * 20_000
    assert not pair.say(large)
    assert not pair.say(b"must not overtake")
    pair.outlet.write(b"afterwards")
    pair.ours.close()
    got = b"".join(iter(lambda: pair.theirs.recv(1_000_000), b""))
    assert 0 < len(got) < len(large)
    assert got + pair.transport.written == large + b"afterwards"


def test_nothing_is_said_past_what_the_loop_still_has_to_write(pair: Pair) -> None:
    pair.transport.buffered = 1
    assert not pair.say(b"too early")
    with pair.outlet.turn:
        assert not pair.say(b"nor while the loop writes")
    pair.transport.buffered = 0
    assert pair.say(b"now")
    assert pair.theirs.recv(100) == b"now"


def test_nothing_is_written_to_a_connection_that_is_gone(pair: Pair) -> None:
    pair.outlet.lost()
    assert pair.outlet.fd == -1
    assert not pair.say(b"x")
    pair.outlet.write(b"x")
    pair.outlet.write_message(b"x")
    pair.theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        pair.theirs.recv(1)
