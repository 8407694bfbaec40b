"""How much a child asks for, and how many calls it claims at once."""

from __future__ import annotations

from manyhands.worker.block import MAX_IN_HAND
from manyhands.worker.pacing import CLAIM_S, FEW, FEW_WORK_S, LONG_S, WORK_IN_HAND_S, Pace, claim


def paced(seconds: float, n: int = 50, most: int = 0) -> Pace:
    """After n answers of messages that took so long each."""
    pace = Pace(most)
    for _ in range(n):
        asked = pace.ask()
        pace.finished(asked, asked * seconds, seconds)
    return pace


def test_of_what_was_never_measured_one_is_asked_for() -> None:
    assert Pace().ask() == 1


def test_a_few_milliseconds_of_short_messages_are_asked_for() -> None:
    assert paced(0.0001).ask() == round(WORK_IN_HAND_S / 0.0001)
    assert paced(WORK_IN_HAND_S).ask() == FEW
    assert paced(FEW_WORK_S / 3).ask() == 3
    assert paced(LONG_S * 0.9).ask() == 2
    assert paced(LONG_S).ask() == 1, "who waits behind a long call waits long"
    assert paced(FEW_WORK_S * 1.1).ask() == 1
    assert paced(1e-9).ask() == MAX_IN_HAND


def test_the_number_at_most_doubles() -> None:
    pace = Pace()
    asked = []
    for _ in range(6):
        asked.append(pace.ask())
        pace.finished(asked[-1], asked[-1] * 1e-5, 1e-5)
    assert asked == [1, 2, 4, 8, 16, 32]


def test_one_long_message_brings_it_down_to_one_at_once() -> None:
    pace = paced(0.0001)
    pace.finished(40, 1.0 + 39 * 0.0001, 1.0)
    assert pace.ask() == 1
    for _ in range(5):
        pace.finished(1, 0.0001, 0.0001)
        assert pace.ask() == 1, "one long message among short ones is remembered for a while"


def test_a_message_is_long_from_the_time_after_which_a_pack_is_split() -> None:
    pace = paced(0.0001)
    pace.finished(40, LONG_S, LONG_S)
    assert pace.ask() == 1


def test_a_limit_from_the_settings_holds() -> None:
    assert paced(0.0001, most=3).ask() == 3


def test_calls_are_claimed_by_the_time_that_the_last_ones_took() -> None:
    assert claim(1, 1.0) == 1
    assert claim(1, CLAIM_S) == 1
    assert claim(10, CLAIM_S / 2) == 20
    assert claim(10, 1e-9) == 40, "it grows fourfold at most"
    assert claim(3, 0.0) == 12, "a clock may not have moved"
