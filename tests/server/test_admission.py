"""The limits at the door, with time as an argument."""

from __future__ import annotations

import pytest

from manyhands.server import admission
from manyhands.server.admission import Failures, Pending, Quiet, source_of


@pytest.mark.parametrize(
    ("host", "source"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("not an address", "not an address"),
    ],
)
def test_one_machine_is_one_source(host: str, source: str) -> None:
    assert source_of(host) == source


def test_those_who_do_not_authenticate_are_overdue_in_order_and_once() -> None:
    pending: Pending[str] = Pending(limit=10, handshake_s=3.0)
    for at, name in enumerate("abc"):
        assert pending.add(name, float(at)) is None
    pending.remove("b")
    assert pending.overdue(2.9) == []
    assert pending.next_due_s(2.5) == 0.5
    assert pending.overdue(5.0) == ["a", "c"]
    assert pending.overdue(9.0) == []
    assert pending.next_due_s(9.0) is None


def test_one_too_many_pushes_the_oldest_out() -> None:
    pending: Pending[str] = Pending(limit=2)
    assert [pending.add(name, 0.0) for name in "abcd"] == [None, None, "a", "b"]
    assert len(pending) == 2


def test_after_the_burst_wrong_keys_are_answered_one_a_second() -> None:
    failures = Failures()
    delays = [failures.delay_s("a", 0.0) for _ in range(admission.FAILURE_BURST + 3)]
    assert delays[: admission.FAILURE_BURST] == [admission.FAILURE_DELAY_S] * admission.FAILURE_BURST
    assert [d - admission.FAILURE_DELAY_S for d in delays[admission.FAILURE_BURST :]] == [1.0, 2.0, 3.0]
    assert failures.delay_s("b", 0.0) == admission.FAILURE_DELAY_S
    assert failures.delay_s("a", 1000.0) == admission.FAILURE_DELAY_S


def test_one_line_a_minute_counts_what_it_keeps_back() -> None:
    quiet = Quiet()
    assert [quiet.kept_back("a", at) for at in (0.0, 1.0, 59.0, 60.0, 61.0)] == [0, None, None, 2, None]
    assert quiet.kept_back("b", 61.0) == 0


def test_a_flood_of_sources_is_forgotten_not_kept() -> None:
    quiet, failures = Quiet(), Failures()
    for n in range(2 * admission.MAX_ADDRESSES):
        quiet.kept_back(str(n), 0.0)
        failures.delay_s(str(n), 0.0)
    assert len(quiet._seen) == len(failures._left) == admission.MAX_ADDRESSES
