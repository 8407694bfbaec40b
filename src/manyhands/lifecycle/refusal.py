"""How a handler says no."""

from __future__ import annotations

import math
from typing import Any

from manyhands.model import Limits


class Refused(Exception):
    """The request changes nothing and is answered `Failed` with this code and sentence (codes: `errors.from_code`)."""

    def __init__(self, code: str, text: str, **facts: Any) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.facts = facts or None


def check_wait(wait_s: float) -> None:
    """Refuse to park a request for a time that is none; below 0 is for ever.

    Raises:
        Refused: "usage".
    """
    if not isinstance(wait_s, int | float) or not math.isfinite(wait_s):
        raise Refused("usage", f"wait_s {wait_s!r:.40} is not a number of seconds; use -1 to wait for ever")


def check_size(result: bytes | None, limits: Limits) -> None:
    """Refuse a result over the limit.

    Raises:
        Refused: "payload_too_large".
    """
    if result is not None and len(result) > limits.max_body_bytes:
        raise Refused(
            "payload_too_large",
            f"the encoded result has {len(result):,} bytes, over max_body_bytes ({limits.max_body_bytes:,}); "
            "put the data in a file or object store and return its path",
            size_bytes=len(result),
            limit_bytes=limits.max_body_bytes,
        )
