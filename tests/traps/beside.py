"""Tests that mostly wait are begun together, when the first of them is asked for, and each then waits for its own end.

    @beside_the_others
    def test_trap_12_…(lab: Lab) -> None: ...

The body gets what it names, of this module's own making: `lab`, `labs`, `lab_with_a_hole`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from programs.lab import Lab, own_network_kind

Labs = Callable[..., Lab]

AT_ONCE = 6
"""On two cores: while one group starts its interpreters, the others wait."""
_bodies: dict[str, Callable[..., None]] = {}


def beside_the_others(body: Callable[..., None]) -> Callable[..., None]:
    """Make a test of the body that begins with all others of its kind."""

    def test(begun: dict[str, Future[None]]) -> None:
        begun[body.__name__].result(timeout=300)

    test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
    _bodies[body.__name__] = body
    return test


def begin_all(names: set[str], folder: Path) -> tuple[ThreadPoolExecutor, dict[str, Future[None]]]:
    """Begin those of that name, where the system allows networks side by side; else one after the other."""
    pool = ThreadPoolExecutor(AT_ONCE if own_network_kind() else 1)
    return pool, {name: pool.submit(_run, _bodies[name], folder / name) for name in sorted(names & _bodies.keys())}


def _run(body: Callable[..., None], folder: Path) -> None:
    with ExitStack() as stack:
        makers = {"lab": a_lab, "labs": several_labs, "lab_with_a_hole": a_lab_with_a_hole}
        wanted: dict[str, Any] = {
            name: stack.enter_context(makers[name](folder)) for name in inspect.signature(body).parameters
        }
        body(**wanted)


@contextmanager
def a_lab(folder: Path) -> Iterator[Lab]:
    """A network of its own; children would be spawned, as on Windows and macOS."""
    with Lab(folder / "lab") as lab:
        yield lab


@contextmanager
def several_labs(folder: Path) -> Iterator[Labs]:
    """labs("fork") -> a further network, with that start method."""
    with ExitStack() as stack:

        def make(method: str = "spawn") -> Lab:
            return stack.enter_context(Lab(folder / f"lab-{method}", start_method=method))

        yield make


@contextmanager
def a_lab_with_a_hole(folder: Path) -> Iterator[Lab]:
    """A network in which 192.0.2.0/24 (for documentation, nobody's) swallows what is sent there, as a firewall does."""
    need_networks()
    with Lab(folder / "hole") as lab:
        lab.shell(
            "ip link add near type veth peer name far; ip address add 192.0.2.1/24 dev near; ip link set near up; "
            "ip link set far up; ip neigh add 192.0.2.9 lladdr 02:00:00:00:00:09 dev near"
        )
        yield lab


def need_networks() -> None:
    """Skip, by name, where programs of one test cannot be kept on networks of their own."""
    if own_network_kind() is None:
        pytest.skip("no network namespace can be made here (Linux as root, or with user namespaces), and this needs several")
