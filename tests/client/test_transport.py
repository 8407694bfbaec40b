"""When a reader looks again before it sleeps, by a clock and a kernel that a test holds in its hands."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from manyhands.engines.remote import transport
from manyhands.engines.remote.transport import LOOK_S, Transport


class Kernel:
    """Stands for the clock and for poll: what was polled for, and what the time is after it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.look_s = 1e-6
        """How long one look takes."""
        self.answer_after_s = 0.0
        """How long after the wait began there is something to read."""
        self.looks = 0
        self.sleeps = 0
        self._began = 0.0

    def perf_counter(self) -> float:
        return self.now

    def wait(self, timeout_s: float | None, *, for_writing: bool) -> tuple[bool, bool]:
        due = self._began + self.answer_after_s
        if timeout_s == 0:
            self.looks += 1
            self.now += self.look_s
        else:
            self.sleeps += 1
            self.now = max(self.now, due if timeout_s is None else min(due, self.now + timeout_s))
        return self.now >= due, False

    def read(self, reader: Transport, answer_after_s: float) -> tuple[int, int]:
        """One wait; how often it looked and slept."""
        self.looks = self.sleeps = 0
        self._began, self.answer_after_s = self.now, answer_after_s
        assert reader.wait(None, for_writing=False, is_hurried=True)
        return self.looks, self.sleeps


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


@pytest.fixture
def reader(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> Iterator[Transport]:
    ours, theirs = socket.socketpair()
    made = Transport(ours)
    monkeypatch.setattr(transport, "time", SimpleNamespace(perf_counter=kernel.perf_counter))
    monkeypatch.setattr(transport, "_HAS_CORES", True)
    monkeypatch.setattr(made, "_poll", kernel)
    yield made
    made.close()
    theirs.close()


def test_after_a_short_wait_it_looks_and_after_a_long_one_it_sleeps(kernel: Kernel, reader: Transport) -> None:
    assert kernel.read(reader, LOOK_S / 2) == (0, 1), "the first wait is slept through: nothing is known"
    looks, sleeps = kernel.read(reader, LOOK_S / 2)
    assert looks > 1
    assert not sleeps
    looks, sleeps = kernel.read(reader, 3 * LOOK_S)
    assert looks > 1
    assert sleeps == 1, "nobody looks for ever"
    assert kernel.read(reader, LOOK_S / 2) == (0, 1)


def test_who_receives_looks_up_now_and_then(kernel: Kernel, reader: Transport) -> None:
    """What it waits for may come otherwise: by a cancellation, by another thread."""
    kernel.answer_after_s = 60.0
    for is_hurried in (True, False):
        before = kernel.now
        assert reader.receive(memoryview(bytearray(16)), 30.0, is_hurried=is_hurried) == transport.WOULD_BLOCK
        assert kernel.now - before <= 1.0
        reader._can_block = False  # as where the kernel has no such wait


def test_it_sleeps_for_a_while_where_others_want_the_processor(kernel: Kernel, reader: Transport) -> None:
    kernel.read(reader, LOOK_S / 2)
    kernel.look_s = LOOK_S / 5  # between two looks somebody else had the processor
    assert kernel.read(reader, LOOK_S / 2) == (1, 1)
    kernel.look_s = 1e-6
    for _ in range(transport._SLEEPS):
        assert kernel.read(reader, LOOK_S / 2) == (0, 1)
    looks, sleeps = kernel.read(reader, LOOK_S / 2)
    assert looks > 1
    assert not sleeps
