"""How long to wait before trying again."""

from __future__ import annotations

from manyhands.errors import UsageError


def backoff_s(attempt: int, *, base_s: float, cap_s: float, unit: float) -> float:
    """Seconds to wait before the next try.

    Doubles with every attempt up to cap_s, then is spread over [0, that) so that many clients do not return together.

    Args:
        attempt: 1 for the first try that failed.
        base_s: the longest wait after the first try.
        cap_s: the longest wait ever.
        unit: a number in [0, 1) from the caller's generator, so that a test can repeat it.

    Raises:
        UsageError: attempt is below 1.
    """
    if attempt < 1:
        raise UsageError(f"attempt counts from 1 for the first try that failed, not {attempt}")
    # 2 ** 64 is over any cap; a larger exponent would overflow a float after a long outage.
    return min(cap_s, base_s * 2.0 ** min(attempt - 1, 64)) * unit
