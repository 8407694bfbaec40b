"""The known traps of the `multiprocessing.managers` master/worker pattern, one row for each, carried by its test.

A test that holds a row is decorated with `@trap(number, …)`: what the reader sees with the standard library, when, and what
manyhands does, in English and Chinese. `table.py` writes the tables of both pages from these, so that nothing stands there
which no test holds.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

NUMBERS = range(1, 31)

Test = TypeVar("Test", bound=Callable[..., Any])


class Both(NamedTuple):
    """A text in the two languages of the pages."""

    english: str
    chinese: str


class Row(NamedTuple):
    """One trap as the pages show it."""

    number: int
    sees: Both
    """What the standard library shows: the literal text of the error, in backticks, `…` for what differs from run to run."""
    when: Both
    answer: Both
    test: str


_rows: dict[int, Row] = {}


def trap(
    number: int, *, sees: str | tuple[str, str], when: tuple[str, str], answer: tuple[str, str]
) -> Callable[[Test], Test]:
    """Let a test carry the row of that number.

    Args:
        sees: one text where it is an error's own words, which nobody translates; else English and Chinese.
        when: English and Chinese.
        answer: English and Chinese.
    """

    def carry(test: Test) -> Test:
        name = test.__name__
        assert name.startswith(f"test_trap_{number:02}_"), f"{name} holds row {number} and must say so in its name"
        assert number not in _rows or _rows[number].test == name, f"row {number} is held by {_rows[number].test} already"
        shown = Both(sees, sees) if isinstance(sees, str) else Both(*sees)
        _rows[number] = Row(number, shown, Both(*when), Both(*answer), name)
        return test

    return carry


def all_rows() -> list[Row]:
    """The rows of every test in this folder, in order."""
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        importlib.import_module(f"traps.{path.stem}")
    return [_rows[number] for number in sorted(_rows)]


def shows(number: int, text: str, *, nth: int = 0) -> bool:
    """Whether a program of the standard library said what the row's reader sees (its nth error text)."""
    quoted = re.findall(r"`([^`]+)`", _rows[number].sees.english)[nth]
    parts = (re.escape(part.strip()) for part in quoted.split("…"))
    return re.search(".*?".join(parts), " ".join(text.split())) is not None
