"""Who may import whom: design section 8, read from the source itself, so that the floors stay true by themselves.

Every rule is a function from one module's imports to complaints. The last tests build small trees that break each rule and
show that the complaint comes, because a check that has never failed proves nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "manyhands"

# Floor by floor, from the ground up; on one line a module may import those to its left.
FLOORS: list[list[str]] = [
    ["errors", "clock", "model", "events", "_chance", "_faults", "_memory", "_text", "_version"],
    ["lifecycle", "retry", "codec", "auth", "wire", "calls", "tasks", "address"],
    ["_waiter", "_inbox", "_forks", "_resuming", "_sockets", "_bridge", "_turns", "sweeper", "engines", "settings"],
    ["server", "worker", "client", "moving", "submitting", "serving", "executor", "managers", "aio", "testing"],
    ["config", "dashboard", "cli"],
    ["__init__", "__main__"],
]
PLACE = {name: (floor, column) for floor, names in enumerate(FLOORS) for column, name in enumerate(names)}

# Floors 0 and 1 decide; they are given time, bytes and randomness and never fetch them.
IMPURE = frozenset(
    [
        "socket",
        "ssl",
        "select",
        "selectors",
        "threading",
        "_thread",
        "asyncio",
        "time",
        "datetime",
        "random",
        "subprocess",
        "concurrent",
        "signal",
    ]
)
IMPURE_ALLOWED = {
    "_chance": {"random"},  # the one place that takes chance from somewhere
    "clock": {"time"},  # the one place that reads the machine's clocks
    "errors": {"concurrent"},  # BrokenProcessPool, which WorkerCrashed is
    "tasks": {"datetime"},  # the types, which are plain data; not the clock
}
UNPICKLERS = frozenset({"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "marshal", "shelve"})
UNPICKLES = "codec"
DRIVERS = {"redis": "engines.redis", "valkey": "engines.redis", "nats": "engines.nats", "sqlite3": "engines.sqlite"}
OPENS_ENGINES = "engines.opening"  # turns a store's URL into an engine, so it must name them all
CHILD_PARTS = ("block", "child", "keeper", "line", "pacing", "running", "settings", "task_work", "work", "working")
CHILD = frozenset(f"worker.{part}" for part in CHILD_PARTS)
CHILD_NEEDS = (0, 1)


@dataclass(frozen=True)
class Import:
    """One import as written."""

    module: str
    """The importing module below manyhands, dotted: "engines.sqlite"."""
    line: int
    target: str
    """Absolute name of what is imported, with the name taken from it if that is itself a module."""
    for_types_only: bool
    where: Path

    @property
    def own(self) -> str | None:
        """The target below manyhands, dotted, or None for other people's modules."""
        if self.target == "manyhands":
            return "__init__"
        return self.target.removeprefix("manyhands.") if self.target.startswith("manyhands.") else None

    def complaint(self, why: str) -> str:
        return f"{self.where}:{self.line} imports {self.target}: {why}"


def unit(module: str) -> str:
    """The floor table's name for a module: its first part."""
    return module.partition(".")[0]


def module_name(path: Path, root: Path) -> str:
    parts = list(path.relative_to(root).with_suffix("").parts)
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts)


def is_module(root: Path, dotted: str) -> bool:
    base = root.joinpath(*dotted.split(".")[1:])
    return base.is_dir() or base.with_suffix(".py").is_file()


def imports_of(path: Path, root: Path) -> Iterator[Import]:
    """All imports of one file, also those inside functions; those under `if TYPE_CHECKING` are marked."""
    module = module_name(path, root)
    package = ["manyhands", *([] if module == "__init__" else module.split("."))]
    if path.name != "__init__.py":
        package.pop()
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    typing_only: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            typing_only |= {id(inner) for statement in node.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, [base, node.module or ""]))
            names = []
            for alias in node.names:
                deeper = f"{source}.{alias.name}"
                names.append(deeper if source.startswith("manyhands") and is_module(root, deeper) else source)
        else:
            continue
        for name in dict.fromkeys(names):
            yield Import(module, node.lineno, name, id(node) in typing_only, path)


def below_or_left(found: Import) -> str | None:
    """The floors themselves. Types may be named from the same line in any direction, never from above."""
    if found.own is None:
        return None
    mine, theirs = unit(found.module), unit(found.own)
    if mine not in PLACE:
        return found.complaint(f"{mine} has no place in the floor table of {Path(__file__).name}; give it one first.")
    if theirs not in PLACE:
        return found.complaint(f"{theirs} has no place in the floor table of {Path(__file__).name}; give it one first.")
    if mine == theirs:
        return None
    (my_floor, my_column), (floor, column) = PLACE[mine], PLACE[theirs]
    if floor > my_floor:
        return found.complaint(f"{theirs} stands on floor {floor}, above {mine} on floor {my_floor}; imports only go down.")
    if floor == my_floor and column > my_column and not found.for_types_only:
        return found.complaint(f"{theirs} stands right of {mine} on floor {floor}; on one floor imports only go left.")
    return None


def pure_below_two(found: Import) -> str | None:
    """Floors 0 and 1 open no socket, start no thread and read no clock."""
    mine = unit(found.module)
    if found.own is not None or PLACE.get(mine, (9, 0))[0] > 1 or found.for_types_only:
        return None
    outside = found.target.partition(".")[0]
    if outside in IMPURE and outside not in IMPURE_ALLOWED.get(mine, ()):
        return found.complaint(f"{mine} decides and does nothing; pass what it needs as an argument.")
    return None


def only_codec_unpickles(found: Import) -> str | None:
    """A module that cannot name pickle cannot run what a stranger sent."""
    outside = found.target.partition(".")[0]
    if outside in UNPICKLERS and unit(found.module) != UNPICKLES:
        return found.complaint(f"only {UNPICKLES}.py may pickle or unpickle; call it, it checks the signature first.")
    return None


def engines_stand_alone(found: Import) -> str | None:
    """An engine may use engines.base only; what two engines share belongs on a lower floor."""
    if unit(found.module) != "engines" or found.own is None or unit(found.own) != "engines":
        return None
    if found.own in ("engines", "engines.base") or found.module in ("engines", OPENS_ENGINES):
        return None
    family, other = found.module.split(".")[1], found.own.split(".")[1]
    if family == other:  # files of one engine's own folder
        return None
    return found.complaint("engines import only engines.base, never each other; move what both need a floor down.")


def drivers_stay_home(found: Import) -> str | None:
    """A store's driver is imported by its own engine, so that nobody else depends on it being installed."""
    home = DRIVERS.get(found.target.partition(".")[0])
    if home is None or found.module == home or found.module.startswith((f"{home}.", f"{home}_")):
        return None
    return found.complaint(f"this driver belongs to {home} alone; ask the engine instead.")


def child_stays_small(found: Import) -> str | None:
    """A worker's child starts fast: it needs floors 0 and 1 only."""
    if found.module not in CHILD or found.own is None or found.for_types_only or found.own in CHILD:
        return None
    if PLACE.get(unit(found.own), (9, 0))[0] in CHILD_NEEDS:
        return None
    return found.complaint("the worker's child needs floors 0 and 1 only, so that it starts fast and stays small.")


def the_programs_chance_is_its_own(found: Import) -> str | None:
    """Who draws from the random module changes what a program that seeded it draws next. Tests' helpers seed their own."""
    mine = unit(found.module)
    if found.target.partition(".")[0] != "random" or mine == "testing" or PLACE.get(mine, (9, 0))[0] < 2:
        return None  # below, pure_below_two has its own word
    return found.complaint("the random module is the program's, which may have seeded it; use _chance.CHANCE.")


RULES = (
    below_or_left,
    pure_below_two,
    only_codec_unpickles,
    engines_stand_alone,
    drivers_stay_home,
    child_stays_small,
    the_programs_chance_is_its_own,
)


def complaints(root: Path) -> list[str]:
    """Every sentence that the rules have to say about a tree."""
    found = [one for path in sorted(root.rglob("*.py")) for one in imports_of(path, root)]
    return [sentence for one in found for rule in RULES if (sentence := rule(one)) is not None]


def test_every_import_goes_down_or_left() -> None:
    said = complaints(SOURCE)
    assert not said, "\n" + "\n".join(said)


def test_every_module_has_a_place() -> None:
    units = {unit(module_name(path, SOURCE)) for path in SOURCE.rglob("*.py")}
    assert units <= PLACE.keys(), f"no floor for {sorted(units - PLACE.keys())}; add them to FLOORS and docs/architecture.md"


def test_the_package_uses_no_module_that_is_neither_its_own_nor_declared() -> None:
    declared = {"msgspec", "cloudpickle", "cryptography", "uvloop", "typer", "rich"}
    optional = {"redis", "nats", "hypothesis", "pytest"}
    strangers = [
        one.complaint("it is neither the standard library's nor in pyproject.toml's dependencies.")
        for path in SOURCE.rglob("*.py")
        for one in imports_of(path, SOURCE)
        if one.own is None and one.target.partition(".")[0] not in sys.stdlib_module_names | declared | optional
    ]
    assert not strangers, "\n" + "\n".join(strangers)


PLANTED = {
    "an import upwards": (
        "lifecycle/core.py",
        "from manyhands.client import Client\n",
        "imports only go down",
    ),
    "the same by a relative import": ("lifecycle/core.py", "from ..engines import base\n", "imports only go down"),
    "the same inside a function": ("model.py", "def f():\n    import manyhands.codec\n", "imports only go down"),
    "the right-hand neighbour": ("client/state.py", "from manyhands.managers import BaseManager\n", "only go left"),
    "a higher floor for types": (
        "codec.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from manyhands.client import Client\n",
        "imports only go down",
    ),
    "a module without a place": ("client/state.py", "from manyhands.helpers import x\n", "has no place"),
    "a socket in the wire": ("wire/frames.py", "import socket\n", "decides and does nothing"),
    "a clock in the core": ("lifecycle/core.py", "from time import monotonic\n", "decides and does nothing"),
    "randomness in the core": ("lifecycle/core.py", "import random\n", "decides and does nothing"),
    "the program's random numbers": ("client/session.py", "from random import random\n", "may have seeded it"),
    "an event loop in the protocol": ("wire/server.py", "import asyncio.streams\n", "decides and does nothing"),
    "unpickling outside codec": ("managers/proxies.py", "from pickle import loads\n", "may pickle or unpickle"),
    "cloudpickle outside codec": ("client/queue.py", "import cloudpickle\n", "may pickle or unpickle"),
    "an engine using another": (
        "engines/sqlite.py",
        "from manyhands.engines.memory import MemoryEngine\n",
        "never each other",
    ),
    "one engine using another, relatively": ("engines/sqlite.py", "from .memory import MemoryEngine\n", "never each other"),
    "a driver outside its engine": ("cli/status.py", "import sqlite3\n", "belongs to engines.sqlite alone"),
    "a part of the child that needs the parent's": (
        "worker/line.py",
        "from manyhands.worker.crew import Crew\n",
        "starts fast",
    ),
    "a heavy worker child": ("worker/child.py", "from manyhands.engines.base import Port\n", "starts fast"),
}


def plant(root: Path, file: str, text: str) -> None:
    for name in ("engines/memory.py", "engines/base.py", "managers/__init__.py", "client/__init__.py", "codec.py", file):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("", encoding="utf-8")
    (root / file).write_text(text, encoding="utf-8")


@pytest.mark.parametrize(("file", "text", "says"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_named_with_file_line_and_reason(tmp_path: Path, file: str, text: str, says: str) -> None:
    plant(tmp_path, file, text)
    said = complaints(tmp_path)
    assert len(said) == 1, said
    line = next(
        number for number, content in enumerate(text.splitlines(), 1) if "import" in content and "typing" not in content
    )
    assert said[0].startswith(f"{tmp_path / file}:{line} imports ")
    assert says in said[0]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        (
            "engines/memory.py",
            "import threading\nfrom manyhands.engines.base import Port\nfrom manyhands.lifecycle import core\n",
        ),
        ("engines/opening.py", "def open_engine():\n    from manyhands.engines.memory import MemoryEngine\n"),
        ("engines/sqlite/writer.py", "import sqlite3\nfrom manyhands.engines.sqlite import rows\n"),
        ("codec.py", "import pickle\nimport cloudpickle\n"),
        ("errors.py", "import multiprocessing\nimport queue\n"),
        ("clock.py", "import time\n"),
    ],
)
def test_what_the_floors_allow_is_not_complained_about(tmp_path: Path, file: str, text: str) -> None:
    plant(tmp_path, file, text)
    assert complaints(tmp_path) == []
