"""The pages of promises and of bad input name tests; each of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(("page", "at_least"), [("guarantees.md", 40), ("operations.md", 8)])
def test_every_test_that_the_promises_name_exists(page: str, at_least: int) -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / page).read_text(encoding="utf-8")))
    defined: set[str] = set()
    for folder in ("tests", "src/manyhands/testing"):
        for path in (ROOT / folder).rglob("*.py"):
            defined |= set(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    assert len(named) > at_least
    assert not named - defined, f"docs/{page} names tests that do not exist: {sorted(named - defined)}"
