"""How a handler says no."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """The request changes nothing and is answered `Failed` with this code and sentence (codes: `errors.from_code`)."""

    def __init__(self, code: str, text: str, **facts: Any) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.facts = facts or None
