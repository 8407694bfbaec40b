"""Waiting before the next try."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.errors import UsageError
from manyhands.retry import backoff_s


def test_the_longest_wait_doubles_up_to_the_cap() -> None:
    assert [backoff_s(n, base_s=1, cap_s=10, unit=0.5) for n in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


@given(st.integers(1, 10**9), st.floats(0, 1, exclude_max=True))
def test_a_wait_is_never_over_the_cap_nor_negative(attempt: int, unit: float) -> None:
    assert 0 <= backoff_s(attempt, base_s=0.1, cap_s=30.0, unit=unit) <= 30.0


def test_attempts_count_from_1() -> None:
    with pytest.raises(UsageError, match="counts from 1"):
        backoff_s(0, base_s=1, cap_s=1, unit=0)
