"""ClientState by itself: requests out, replies in, no thread, no clock."""

from __future__ import annotations

from typing import Any

import pytest

from manyhands.client.pace import MAX_IN_HAND, Pace, to_give_back
from manyhands.client.records import Held, QueueState
from manyhands.client.state import ClientState
from manyhands.errors import ShutDown
from manyhands.events import (
    Attached,
    Begin,
    Closing,
    Done,
    Failed,
    Granted,
    Lease,
    Put,
    Recall,
    Recalled,
    Settle,
    Settled,
    Size,
    Withdraw,
)
from manyhands.model import Delivery, Durability, Features, Limits, Message, SettleKind


def delivery(token: int) -> Delivery:
    return Delivery(token, 1, Message(f"m{token}", b""))


@pytest.fixture
def state() -> ClientState:
    return ClientState()


@pytest.fixture
def queue(state: ClientState) -> QueueState:
    return state.queue("q")


def get(state: ClientState, queue: QueueState, tokens: list[int], consumer: Any = "me", now: float = 0.0) -> Held:
    """A whole get that is answered with these deliveries, the first for itself."""
    call = state.ask(queue, consumer, 1, None, now)
    (lease,) = [request for request in state.drain() if isinstance(request, Lease)]
    state.on_replies([Granted(lease.rid, [delivery(token) for token in tokens])], now)
    (held,) = call.held
    state.hold(held)
    return held


def test_a_put_travels_ahead_of_the_settlement_of_the_lease_it_was_made_under(state: ClientState, queue: QueueState) -> None:
    held = get(state, queue, [1, 2])
    state.put_under(held, state.queue("r"), Message("p", b""))
    state.next(queue, "me", 1.0)
    put, begin, settle = state.drain()
    assert isinstance(put, Put)
    assert (put.causes, put.wait_s) == ((1,), 0.0)
    assert begin == Begin("q", [2])
    assert isinstance(settle, Settle)
    assert [settlement.token for settlement in settle.settlements] == [1]


def test_seqs_count_by_stream_and_floor_is_the_lowest_unanswered(state: ClientState, queue: QueueState) -> None:
    calls = [state.put(queue, [Message(str(i), b"")], -1.0) for i in range(3)]
    other = state.put(state.queue("r"), [Message("o", b"")], -1.0)
    assert [(call.seq, other.seq) for call in calls] == [(1, 1), (2, 1), (3, 1)]
    state.on_replies([Done(calls[0].rid), Done(calls[2].rid)], 0.0)
    assert queue.puts.floor == 2
    state.on_replies([Failed(calls[1].rid, "full", "")], 0.0)
    assert queue.puts.floor == 4
    assert isinstance(calls[1].reply, Failed)


def test_a_first_get_asks_for_one_and_short_tasks_for_ever_more(state: ClientState, queue: QueueState) -> None:
    asked = []
    for token in range(1, 13):
        now = token * 0.000_01
        state.finish_previous(queue, "me", now)
        call = state.ask(queue, "me", 1, None, now)
        (lease,) = [request for request in state.drain() if isinstance(request, Lease)]
        asked.append(lease.max_n)
        state.on_replies([Granted(lease.rid, [delivery(token)])], now)
        state.hold(call.held[0])
    assert asked[0] == 1
    assert asked == sorted(asked)
    assert asked[-1] > 64


def test_more_is_asked_for_before_what_is_prefetched_runs_out(state: ClientState, queue: QueueState) -> None:
    get(state, queue, [1])
    for _ in range(5):
        queue.pace.finished(0.000_01)
        queue.pace.ask()
    assert queue.pace.in_hand == 32
    queue.prefetched.extend(delivery(token) for token in range(2, 20))
    leases: list[Lease] = []
    while not leases:
        state.next(queue, "me", 0.0)
        leases = [request for request in state.drain() if isinstance(request, Lease)]
    (refill,) = leases
    assert (refill.begin_n, refill.wait_s) == (0, 0.0)
    assert len(queue.prefetched) == 15
    state.next(queue, "me", 0.0)
    assert not [request for request in state.drain() if isinstance(request, Lease)], "one refill at a time"


def test_a_slow_task_prefetches_nothing(state: ClientState, queue: QueueState) -> None:
    get(state, queue, [1], now=0.0)
    state.finish_previous(queue, "me", 1.0)
    call = state.ask(queue, "me", 1, None, 1.0)
    (lease,) = [request for request in state.drain() if isinstance(request, Lease)]
    assert (lease.rid, lease.max_n, lease.begin_n) == (call.rid, 1, 1)


def test_a_delivery_that_comes_after_its_get_has_gone_is_released(state: ClientState, queue: QueueState) -> None:
    call = state.ask(queue, "me", 1, 5.0, 0.0)
    (lease,) = state.drain()
    state.cancel(call)
    assert state.drain() == [Withdraw(lease.rid)]  # type: ignore[union-attr]
    state.on_replies([Granted(call.rid, [delivery(1), delivery(2)])], 0.0)
    (settle,) = state.drain()
    assert isinstance(settle, Settle)
    assert sorted((s.token, s.kind) for s in settle.settlements) == [(1, SettleKind.RELEASE), (2, SettleKind.RELEASE)]


def test_another_waiting_get_takes_what_a_gone_one_left(state: ClientState, queue: QueueState) -> None:
    gone = state.ask(queue, "me", 1, 5.0, 0.0)
    staying = state.ask(queue, "you", 1, None, 0.0)
    state.drain()
    state.cancel(gone)
    state.on_replies([Granted(gone.rid, [delivery(1)])], 0.0)
    assert [held.delivery.token for held in staying.held] == [1]
    assert staying in state.woken
    assert Withdraw(staying.rid) in state.drain()


def test_a_get_served_by_anothers_delivery_gives_its_own_late_one_back(state: ClientState, queue: QueueState) -> None:
    first = state.ask(queue, "me", 1, None, 0.0)
    second = state.ask(queue, "you", 1, None, 0.0)
    state.on_replies([Granted(first.rid, [delivery(1), delivery(2)])], 0.0)
    assert [call.held[0].delivery.token for call in (first, second)] == [1, 2]
    state.drain()
    state.on_replies([Granted(second.rid, [delivery(3)])], 0.0)
    (settle,) = state.drain()
    assert isinstance(settle, Settle)
    assert [(s.token, s.kind) for s in settle.settlements] == [(3, SettleKind.RELEASE)]


def test_a_recall_is_answered_with_the_later_half_and_with_all_when_the_task_runs_long(
    state: ClientState, queue: QueueState
) -> None:
    get(state, queue, [1, 2, 3, 4, 5], now=0.0)
    state.on_replies([Recall("q", 10)], 0.001)
    assert state.drain() == [Recalled("q", [4, 5])]
    state.on_replies([Recall("q", 10)], 5.0)
    assert state.drain() == [Recalled("q", [2, 3])]
    state.on_replies([Recall("q", 10), Recall("unknown", 1)], 5.0)
    assert state.drain() == [Recalled("q", []), Recalled("unknown", [])]


def test_what_is_prefetched_and_lost_at_a_reconnect_is_never_returned(state: ClientState, queue: QueueState) -> None:
    def attached(*, is_resumed: bool, lost: list[int]) -> Attached:
        return Attached("memory", Durability("process", ""), Features(), Limits(), is_resumed, lost)

    state.on_attached(attached(is_resumed=False, lost=[]))
    get(state, queue, [1, 2, 3])
    state.on_attached(attached(is_resumed=True, lost=[2]))
    assert [item.token for item in queue.prefetched] == [3]


def test_a_refused_put_is_raised_at_its_consumer_and_its_lease_is_not_acked(state: ClientState, queue: QueueState) -> None:
    held = get(state, queue, [1])
    state.put_under(held, state.queue("r"), Message("p", b""))
    (put,) = state.drain()
    state.on_replies([Failed(put.rid, "shut_down", "it was shut down")], 0.0)  # type: ignore[union-attr]
    assert isinstance(state.refused["me"], ShutDown)
    state.finish_previous(queue, "me", 1.0)
    settlements = [s for request in state.drain() if isinstance(request, Settle) for s in request.settlements]
    assert [(s.token, s.kind) for s in settlements] == [(1, SettleKind.NACK)]


def test_a_lost_settlement_is_reported_unless_a_refused_put_explains_it(state: ClientState, queue: QueueState) -> None:
    for is_refused in (False, True):
        held = get(state, queue, [1 + is_refused])
        held.refused = is_refused
        state.settle(held)
        for request in state.drain():
            state.on_replies([Settled(request.rid, [held.delivery.token])], 0.0)  # type: ignore[union-attr]
    assert [held.delivery.token for held in state.lost] == [1]


def test_after_closing_all_who_wait_are_woken_and_the_next_word_clears_it(state: ClientState, queue: QueueState) -> None:
    call = state.ask(queue, "me", 1, None, 0.0)
    state.on_replies([Closing("bye")], 0.0)
    assert (state.is_closing, state.woken) == (True, [call])
    assert not call.is_over()
    state.on_replies([Granted(call.rid, [delivery(1)])], 0.0)
    assert not state.is_closing
    assert call.is_over()


def test_a_question_comes_after_what_was_begun_and_settled_before_it(state: ClientState, queue: QueueState) -> None:
    get(state, queue, [1, 2])
    state.next(queue, "me", 0.0)
    state.call(Size, "q")
    kinds = [type(request) for request in state.drain()]
    assert [kind for kind in kinds if kind is not Lease] == [Begin, Settle, Size]


def test_equal_puts_under_one_lease_are_told_apart(state: ClientState, queue: QueueState) -> None:
    held = get(state, queue, [1])
    assert [held.occurrence(put_id) for put_id in ("a", "b", "a", "a")] == ["a", "b", "a.1", "a.2"]


def test_an_inner_receive_gives_its_place_back_to_the_outer_lease(state: ClientState, queue: QueueState) -> None:
    outer = get(state, queue, [1])
    inner = Held(queue, "me", delivery(2), 0.0)
    inner.outer, state.current["me"] = outer, inner
    state.settle(inner)
    assert state.current["me"] is outer
    state.settle(outer)
    assert "me" not in state.current


# -- pace --------------------------------------------------------------------------------------------------------------


def test_an_unknown_queue_is_asked_for_one() -> None:
    pace = Pace()
    assert [pace.ask() for _ in range(3)] == [1, 1, 1]
    assert not pace.is_short


def test_the_number_in_hand_at_most_doubles_and_is_capped() -> None:
    pace = Pace()
    pace.finished(0.000_001)
    assert [pace.ask() for _ in range(11)] == [2, 4, 8, 16, 32, 64, 128, 256, 512, 512, 512]
    assert MAX_IN_HAND == 512


def test_about_four_milliseconds_of_work_are_kept_in_hand() -> None:
    pace = Pace()
    pace.finished(0.001)
    for _ in range(5):
        pace.ask()
    assert pace.in_hand in (3, 4)


def test_one_slow_task_ends_prefetching_at_once() -> None:
    pace = Pace()
    for _ in range(10):
        pace.finished(0.000_01)
        pace.ask()
    pace.finished(1.0)
    assert pace.ask() == 1
    assert not pace.is_short


@pytest.mark.parametrize(
    ("unbegun", "wanted", "running_s", "given"),
    [(10, 3, 0.0, 3), (10, 99, 0.0, 5), (1, 99, 0.0, 1), (0, 99, 0.0, 0), (10, 99, 1.0, 10), (10, 3, 1.0, 3)],
)
def test_about_half_is_given_back_and_all_when_the_task_runs_long(
    unbegun: int, wanted: int, running_s: float, given: int
) -> None:
    assert to_give_back(unbegun, wanted, running_s) == given


def test_a_goodbye_ends_gets_on_queues_that_were_shut_down_and_no_others() -> None:
    state = ClientState()
    over, other = state.queue("over"), state.queue("other")
    waiting = state.ask(over, "a", 1, None, 0.0)
    patient = state.ask(other, "a", 1, None, 0.0)
    state.on_replies([Closing("bye", ["over"])], 0.0)
    assert (waiting.is_over(), patient.is_over()) == (True, False)
    assert isinstance(waiting.reply, Failed)
    assert waiting.reply.code == "shut_down"
    assert state.ask(over, "a", 1, None, 0.0).is_over(), "a question that crosses the goodbye is not asked any more"
    assert not state.ask(other, "a", 1, None, 0.0).is_over()
