"""The page of promises names tests; each of them must exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_test_that_the_promises_name_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "docs" / "guarantees.md").read_text(encoding="utf-8")))
    defined: set[str] = set()
    for folder in ("tests", "src/manyhands/testing"):
        for path in (ROOT / folder).rglob("*.py"):
            defined |= set(re.findall(r"def (test_\w+)\(", path.read_text(encoding="utf-8")))
    assert len(named) > 40
    assert not named - defined, f"docs/guarantees.md names tests that do not exist: {sorted(named - defined)}"
