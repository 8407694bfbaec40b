"""What a session asked is done once, however often it is sent."""

from __future__ import annotations

from manyhands.managers.objects.session_calls import KEPT_BYTES, SessionCalls, Verdict


def test_a_new_call_is_run_and_a_resend_waits_for_it_or_gets_its_answer() -> None:
    calls = SessionCalls()
    assert calls.invoke(1, thread=7) == (Verdict.RUN, None)
    assert calls.invoke(1, thread=7) == (Verdict.WAIT, None)
    calls.answered(1, "answer", 10)
    assert calls.invoke(1, thread=7) == (Verdict.AGAIN, "answer")


def test_the_next_call_of_a_thread_says_that_its_last_answer_has_arrived() -> None:
    calls = SessionCalls()
    for rid in (1, 2):
        calls.invoke(rid, thread=7)
        calls.answered(rid, f"answer {rid}", 10)
    assert calls.invoke(1, thread=7) == (Verdict.UNKNOWN, None)
    assert calls.invoke(2, thread=7) == (Verdict.AGAIN, "answer 2")


def test_threads_do_not_disturb_each_other() -> None:
    calls = SessionCalls()
    calls.invoke(1, thread=7)
    for rid in range(2, 100):
        calls.invoke(rid, thread=8)
        calls.answered(rid, "later", 10)
    assert calls.invoke(1, thread=7) == (Verdict.WAIT, None)
    calls.answered(1, "at last", 10)
    assert calls.invoke(1, thread=7) == (Verdict.AGAIN, "at last")


def test_an_answer_too_large_to_keep_is_not_given_again() -> None:
    calls = SessionCalls()
    calls.invoke(1, thread=7)
    calls.answered(1, "large", KEPT_BYTES + 1)
    assert calls.invoke(1, thread=7) == (Verdict.UNKNOWN, None)
    assert calls.invoke(2, thread=7) == (Verdict.RUN, None)


def test_a_session_that_was_forgotten_runs_only_what_was_never_seen() -> None:
    earlier = SessionCalls()
    earlier.invoke(41, thread=7)
    later = SessionCalls(forgotten_to=earlier.highest)
    assert later.invoke(41, thread=7) == (Verdict.UNKNOWN, None)
    assert later.invoke(40, thread=8) == (Verdict.UNKNOWN, None)
    assert later.invoke(42, thread=7) == (Verdict.RUN, None)
    assert later.ordered(41) == (True, None)
    assert later.ordered(43) == (False, None)


def test_an_abandoned_call_ends_like_any_other() -> None:
    calls = SessionCalls()
    calls.invoke(1, thread=7)
    calls.abandoned.add(1)
    calls.invoke(2, thread=7)
    calls.answered(2, "second", 10)
    calls.answered(1, "first", 10)
    assert (calls.running, calls.abandoned) == ({}, set())
    assert calls.invoke(2, thread=7) == (Verdict.AGAIN, "second")


def test_what_is_answered_in_order_is_applied_once_and_answered_again() -> None:
    calls = SessionCalls()
    assert calls.ordered(1) == (False, None)
    calls.ordered_answer(1, "created")
    assert calls.ordered(1) == (True, "created")
    for rid in range(2, 1000):
        calls.ordered(rid)
        calls.ordered_answer(rid, rid)
    assert calls.ordered(1) == (True, None)
    assert calls.ordered(999) == (True, 999)


def test_a_thread_that_left_leaves_nothing_behind() -> None:
    calls = SessionCalls()
    calls.invoke(1, thread=7)
    calls.answered(1, "answer", 10)
    calls.leave(7)
    assert calls.threads == []


def test_a_thread_that_ends_wants_none_of_its_calls_any_more() -> None:
    calls = SessionCalls()
    calls.invoke(1, 7)
    calls.invoke(2, 8)
    calls.abandon(7)
    assert calls.abandoned == {1}
    calls.answered(1, "late", 0)
    assert not calls.abandoned
