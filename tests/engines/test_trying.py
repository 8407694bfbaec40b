"""What a client that nobody answers says, and when it tries again: told the time, so nothing here waits."""

from __future__ import annotations

import socket

from manyhands.address import Address
from manyhands.engines.remote.trying import Trying, hint

REFUSED = ConnectionRefusedError(111, "Connection refused")


def trying(deadline_mono: float = 10.0) -> Trying:
    return Trying(Address("192.0.2.7", 5000), 0.0, deadline_mono)


def test_nothing_is_said_for_three_seconds_and_then_a_line_every_four() -> None:
    each = trying()
    said = [now for now in range(12) if each.line(REFUSED, float(now))]
    assert said == [3, 7]


def test_a_line_names_the_address_the_reason_and_what_to_check() -> None:
    line = trying().line(REFUSED, 3.0)
    assert line is not None
    assert "192.0.2.7:5000 yet (Connection refused; nothing listens there: check that the master is started" in line
    assert line.endswith("trying for 7 s more")


def test_a_silent_firewall_is_named_and_an_unknown_name_too() -> None:
    assert "firewall" in hint(TimeoutError("timed out"))
    assert "host name" in hint(socket.gaierror(-3, "Temporary failure in name resolution"))


def test_it_tries_at_least_every_second_and_once_more_at_the_end() -> None:
    each = trying()
    assert each.next_at(0.3, 0.1) == 0.3
    assert each.next_at(9.0, 5.0) == 6.0  # the backoff's proposal of several seconds is for clients that nobody waits for
    assert each.next_at(14.0, 9.5) == 9.95
    assert each.next_at(14.0, 9.96) is None


def test_the_verdict_says_how_long_it_tried() -> None:
    assert trying().verdict(REFUSED, 10.0).startswith("No manyhands server answers at 192.0.2.7:5000 after 10.0 s (")
