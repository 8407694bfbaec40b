"""The inbox wakes its taker when there is enough, when somebody rings, and when the time is over."""

from __future__ import annotations

import threading
from collections.abc import Callable

from manyhands._inbox import Inbox
from manyhands.testing.contract import eventually


def waiting(inbox: Inbox[int], wait: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=wait)
    thread.start()
    eventually(lambda: inbox._is_asleep, "the taker sleeps")
    return thread


def test_one_item_wakes_the_taker() -> None:
    inbox: Inbox[int] = Inbox()
    thread = waiting(inbox, lambda: inbox.wait(None))

    inbox.put(1)

    thread.join(10)
    assert not thread.is_alive()
    assert inbox.take(10) == [1]


def test_a_taker_that_wants_three_sleeps_until_the_third() -> None:
    inbox: Inbox[int] = Inbox()
    thread = waiting(inbox, lambda: inbox.wait(None, wanted=3))

    inbox.put(1)
    inbox.put(2)
    assert inbox._is_asleep
    inbox.put(3)

    thread.join(10)
    assert not thread.is_alive()
    assert inbox.take(2) == [1, 2]
    assert inbox.take(2) == [3]


def test_a_ring_and_the_end_of_the_time_wake_it_too() -> None:
    inbox: Inbox[int] = Inbox()
    thread = waiting(inbox, lambda: inbox.wait(None, wanted=3))

    inbox.ring()

    thread.join(10)
    assert not thread.is_alive()
    inbox.wait(0.0)
    assert inbox.take(1) == []


def test_what_was_put_before_the_wait_ends_it_at_once() -> None:
    inbox: Inbox[int] = Inbox()
    inbox.put(1)

    inbox.wait(None)

    assert len(inbox) == 1
