"""Networks for the programs of a trap."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path

import pytest

from programs.lab import Lab

from .beside import Labs, a_lab, begin_all, several_labs

METHODS = ("spawn",) if sys.platform == "win32" else ("fork", "spawn", "forkserver")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """See beside.a_lab."""
    with a_lab(tmp_path) as lab:
        yield lab


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Labs]:
    """See beside.several_labs."""
    with several_labs(tmp_path) as labs:
        yield labs


@pytest.fixture(scope="session")
def begun(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Every selected test that mostly waits, begun side by side."""
    names = {item.name for item in request.session.items}
    pool, begun = begin_all(names, tmp_path_factory.mktemp("beside"))
    with pool:
        yield begun
        pool.shutdown(cancel_futures=True)
