"""Ctrl-C and SIGTERM for commands that run until they are told to stop."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Within the block, the signals that end a program call stop instead: it must return soon and may run at any point."""

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop()

    before = {
        number: signal.signal(number, on_signal)
        for name in ("SIGINT", "SIGTERM", "SIGBREAK")
        if (number := getattr(signal, name, None)) is not None
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
