"""Networks for the programs of a trap, and the same program on the standard library and on ours."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from programs.lab import Lab

Labs = Callable[..., Lab]

METHODS = ("spawn",) if sys.platform == "win32" else ("fork", "spawn", "forkserver")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A network of its own; children would be spawned, as on Windows and macOS."""
    with Lab(tmp_path / "lab") as lab:
        yield lab


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Labs]:
    """labs("fork") -> a further network, with that start method."""
    with ExitStack() as stack:

        def make(method: str = "spawn") -> Lab:
            return stack.enter_context(Lab(tmp_path / f"lab-{method}", start_method=method))

        yield make
