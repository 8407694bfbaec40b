"""design, section 4: what a get holds, when it is settled, and what comes back. One test for each sentence."""

from __future__ import annotations

import logging
import queue as stdlib_queue
import threading
import time
from typing import Any

import pytest

from manyhands.auth import Keyring
from manyhands.client import Client
from manyhands.client.pace import Pace
from manyhands.client.records import Call, QueueState
from manyhands.client.state import ClientState
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import LeaseLost, ShutDown, UsageError
from manyhands.events import Attach, Settle
from manyhands.model import Limits, Message, Settlement

from .conftest import Place, die, numbers, session_of, until


@pytest.fixture
def quick_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task takes no time, whatever the machine is busy with: as many messages are prefetched as can be."""

    def finished(self: Pace, elapsed_s: float, n: int = 1) -> None:
        self.service_s = 0.0

    monkeypatch.setattr(Pace, "finished", finished)


def in_thread(work: Any) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


# -- what a get holds ------------------------------------------------------------------------------------------------


def test_a_message_stays_leased_until_the_next_get_on_that_queue(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2])
    client.queue("q").get()
    assert numbers(other).leased == 1
    with pytest.raises(stdlib_queue.Empty):
        client.queue("elsewhere").get_nowait()
    assert numbers(other).done_total == 0
    assert client.queue("q").get() == 2
    until(lambda: numbers(other).done_total == 1)


def test_a_dead_consumers_message_goes_back_to_the_head(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2, 3])
    assert client.queue("q").get() == 1
    die(client)
    until(lambda: numbers(other).leased == 0)
    assert [other.queue("q").get(timeout=5) for _ in range(3)] == [1, 2, 3]


def test_a_consumer_that_collects_several_is_protected_for_its_last_get_only(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2, 3])
    assert [client.queue("q").get() for _ in range(3)] == [1, 2, 3]
    until(lambda: numbers(other).done_total == 2)
    die(client)
    assert other.queue("q").get(timeout=5) == 3


def test_all_that_one_get_many_returned_is_held_until_the_next(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2, 3])
    assert client.queue("q").get_many(3) == [1, 2, 3]
    die(client)
    until(lambda: numbers(other).leased == 0)
    assert sorted(other.queue("q").get(timeout=5) for _ in range(3)) == [1, 2, 3]


def test_the_consumer_is_the_calling_thread(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2])
    assert client.queue("q").get() == 1
    ended = threading.Event()
    thread = threading.Thread(target=lambda: (client.queue("q").get(), ended.wait(10)))
    thread.start()
    until(lambda: numbers(other).leased == 2)
    assert numbers(other).done_total == 0  # the other thread's get settled nothing of this one
    ended.set()
    thread.join(10)


# -- how a consumer ends -----------------------------------------------------------------------------------------------


def test_a_normal_close_acks_what_get_returned(client: Client, other: Client) -> None:
    other.queue("q").put(1)
    client.queue("q").get()
    client.close()
    assert (numbers(other).done_total, numbers(other).leased, numbers(other).ready) == (1, 0, 0)


@pytest.mark.usefixtures("quick_tasks")
def test_a_goodbye_releases_what_no_get_has_returned(remote_place: Place) -> None:
    client, other = remote_place.client(), remote_place.client()
    other.queue("q").put_many(range(100))
    queue = client.queue("q")
    got = [queue.get() for _ in range(10)]
    while not session_of(client).state.queue("q").prefetched:  # the answer to the last request may be on its way
        got.append(queue.get(timeout=5))
    client.close()
    until(lambda: numbers(other).leased == 0)
    assert numbers(other).done_total == len(got) < 100
    rest = [other.queue("q").get(timeout=5) for _ in range(100 - len(got))]
    assert rest == list(range(len(got), 100))
    assert numbers(other).dead_total == 0


def test_an_exception_that_nobody_handles_gives_the_message_back_counted(client: Client, other: Client) -> None:
    other.queue("q").put(1)
    client.queue("q").get()
    with pytest.raises(RuntimeError), client:
        raise RuntimeError("boom")
    with other.queue("q").receive(timeout=5) as received:
        assert (received.value, received.attempt) == (1, 2)


def test_ctrl_c_gives_the_message_back_without_a_count(client: Client, other: Client) -> None:
    other.queue("q").put(1)
    client.queue("q").get()
    with pytest.raises(KeyboardInterrupt), client:
        raise KeyboardInterrupt
    with other.queue("q").receive(timeout=5) as received:
        assert (received.value, received.attempt) == (1, 1)


def test_a_thread_that_ends_is_done_with_its_last_message(client: Client, other: Client) -> None:
    other.queue("q").put(1)
    in_thread(client.queue("q").get)
    until(lambda: numbers(other).done_total == 1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_in_an_exception_gives_its_message_back(client: Client, other: Client) -> None:
    other.queue("q").put(1)

    def fail() -> None:
        client.queue("q").get()
        raise RuntimeError("boom")

    in_thread(fail)
    assert other.queue("q").get(timeout=5) == 1


def test_a_close_gives_back_what_another_living_thread_works_on(client: Client, other: Client) -> None:
    other.queue("q").put(1)
    has_it, may_end = threading.Event(), threading.Event()

    def work() -> None:
        client.queue("q").get()
        has_it.set()
        may_end.wait(10)

    thread = threading.Thread(target=work)
    thread.start()
    assert has_it.wait(5)
    client.close()
    assert other.queue("q").get(timeout=5) == 1
    may_end.set()
    thread.join(5)


def test_poison_becomes_a_dead_letter_with_its_history(place: Place, other: Client) -> None:
    other.queue("q").put("poison")
    for _ in range(3):
        victim = place.client()
        victim.queue("q").get(timeout=5)
        die(victim)
        until(lambda: numbers(other).leased == 0)
    with pytest.raises(stdlib_queue.Empty):
        other.queue("q").get_nowait()
    (letter,) = other.dead("q").list()
    assert len(letter.history) == 3
    assert other.dead("q").value(letter.message.id) == "poison"
    assert other.dead("q").retry(letter.message.id) == 1
    assert other.queue("q").get(timeout=5) == "poison"
    assert other.dead("q").drop() == 0


# -- task_done and join ------------------------------------------------------------------------------------------------


def test_after_the_first_task_done_a_get_settles_nothing(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2, 3])
    queue = client.queue("q")
    queue.get()
    queue.task_done()
    queue.get()
    queue.get()
    until(lambda: numbers(other).done_total == 1)
    assert numbers(other).leased == 2
    die(client)
    until(lambda: numbers(other).leased == 0)
    assert [other.queue("q").get(timeout=5) for _ in range(2)] == [2, 3]


def test_task_done_settles_the_threads_oldest_then_the_processes_oldest_then_only_counts(
    client: Client, other: Client
) -> None:
    other.queue("q").put_many(range(4))
    queue = client.queue("q")
    queue.get()
    queue.task_done()  # 0; counts by task_done from here
    assert queue.get() == 1
    end = threading.Event()
    thread = threading.Thread(target=lambda: (queue.get(), queue.get(), end.wait(10)))
    thread.start()
    held = session_of(client).state.queue("q").held
    until(lambda: sum(map(len, held.values())) == 3)
    queue.task_done()  # this thread's: 1
    assert threading.get_ident() not in held
    queue.task_done()  # the process's oldest: 2
    (left,) = next(iter(held.values()))
    assert left.delivery.attempt == 1
    until(lambda: numbers(other).done_total == 3)
    in_thread(queue.task_done)  # any thread: 3
    until(lambda: numbers(other).unfinished == 0)
    with pytest.raises(ValueError, match="task_done"):
        queue.task_done()
    end.set()
    thread.join(5)


def test_join_waits_for_task_done_and_implicit_settlement_does_not_count(client: Client, other: Client) -> None:
    queue = client.queue("q")
    queue.put_many([1, 2])
    joined = threading.Event()
    thread = threading.Thread(target=lambda: (other.queue("q").join(), joined.set()))
    thread.start()
    queue.get()
    queue.get()  # settles the first, and counts nothing
    until(lambda: numbers(client).done_total == 1)
    assert numbers(client).unfinished == 2
    queue.task_done()
    assert not joined.wait(0.05)
    queue.task_done()
    assert joined.wait(5)
    thread.join(5)


def test_a_receive_block_counts_as_done_for_join(client: Client) -> None:
    queue = client.queue("q")
    queue.put(1)
    with queue.receive() as received:
        assert received.value == 1
    queue.join()


# -- receive and iteration ---------------------------------------------------------------------------------------------


def test_receive_acks_at_the_end_of_the_block(client: Client, other: Client) -> None:
    other.queue("q").put("a")
    with client.queue("q").receive() as received:
        assert (received.value, received.attempt) == ("a", 1)
        assert received.id
        assert numbers(other).leased == 1
    assert numbers(other).done_total == 1


def test_receive_gives_back_when_the_block_raises_with_the_reason(client: Client, other: Client) -> None:
    other.queue("q").put("a")
    for attempt in (1, 2, 3):
        attempts = []
        with pytest.raises(KeyError), client.queue("q").receive(timeout=5) as received:
            raise KeyError(attempts.append(received.attempt), "no such user")
        assert attempts == [attempt]
    (letter,) = other.dead("q").list()
    assert "KeyError" in letter.history[-1].reason


def test_receive_raises_empty_when_its_timeout_is_over(client: Client) -> None:
    with pytest.raises(stdlib_queue.Empty), client.queue("q").receive(timeout=0.05):
        pytest.fail("there is nothing to receive")


def test_receive_says_at_its_end_that_the_lease_was_lost(client: Client, other: Client) -> None:
    other.queue("q").put("a")
    with pytest.raises(LeaseLost, match="may be done twice"), client.queue("q").receive():
        steal(client)


def test_a_break_from_an_iteration_keeps_the_item_until_the_consumer_goes_on(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2])
    for item in client.queue("q"):
        assert item == 1
        break
    assert numbers(other).done_total == 0
    assert client.queue("q").get() == 2
    until(lambda: numbers(other).done_total == 1)
    assert numbers(other).unfinished == 1


# -- lost leases -------------------------------------------------------------------------------------------------------


def steal(client: Client) -> None:
    """End all leases of the client behind its back."""
    session = session_of(client)
    tokens = [held.delivery.token for held in session.state.current.values()]
    with session.lock:
        call = session.state.call(Settle, 0, 0, [Settlement(token, 3) for token in tokens])
    session.ask(call)


def test_a_lost_implicit_lease_logs_one_warning_and_never_raises(
    client: Client, other: Client, caplog: pytest.LogCaptureFixture
) -> None:
    other.queue("q").put_many([1])
    queue = client.queue("q")
    queue.get()
    steal(client)
    other.queue("q").put(2)
    with caplog.at_level(logging.WARNING, "manyhands.client"):
        assert queue.get(timeout=5) == 1
        until(lambda: bool(caplog.records))
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "lease lost" in caplog.text


def test_a_client_in_the_engines_own_process_keeps_its_message_however_long_it_is_silent() -> None:
    engine = MemoryEngine(Limits(lease_s=0.05, resume_s=0.05))
    keyring = Keyring("a key for tests")
    with Client(engine, keyring) as client, Client(engine, keyring, owns_engine=True) as other:
        client.queue("q").put(1)
        assert client.queue("q").get() == 1
        with pytest.raises(stdlib_queue.Empty):
            other.queue("q").get(timeout=0.3)  # six times lease_s
        assert numbers(other).leased == 1


def test_a_client_behind_a_socket_cannot_say_that_it_lives_here(
    remote_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("manyhands.wire.client.Attach", lambda *what, parent="": Attach(*what, is_here=True, parent=parent))
    remote_place.client().queue("q").put(1)
    assert [each.is_here for each in remote_place.engine._core._state.sessions.values()] == [False]


# -- what is counted ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("quick_tasks")
def test_qsize_empty_full_count_what_no_get_has_returned_prefetched_included(remote_place: Place) -> None:
    client, other = remote_place.client(), remote_place.client()
    queue = client.queue("q", maxsize=100)
    other.queue("q").put_many(range(100))
    for n in range(1, 21):
        queue.get()
        assert queue.qsize() == 100 - n
    assert session_of(client).state.queue("q").prefetched, "the gets were fast: something must be prefetched"
    assert other.queue("q").qsize() == 80
    assert not other.queue("q").empty()
    assert not queue.full()


@pytest.mark.usefixtures("quick_tasks")
def test_empty_is_raised_only_after_unbegun_prefetch_elsewhere_was_recalled(remote_place: Place) -> None:
    client, other = remote_place.client(), remote_place.client()
    other.queue("q").put_many(range(64))
    queue = client.queue("q")
    n_got = 0
    while numbers(other).ready:  # the rest ends up prefetched by this client
        queue.get()
        n_got += 1
    n_left = 64 - n_got
    assert n_left > 0
    time.sleep(0.01)  # the task at hand runs long now: everything unbegun is given back
    assert len({other.queue("q").get_nowait() for _ in range(n_left)}) == n_left
    with pytest.raises(stdlib_queue.Empty):
        other.queue("q").get_nowait()


@pytest.mark.usefixtures("quick_tasks")
def test_a_client_in_the_engines_own_process_takes_only_what_its_gets_return(memory_place: Place) -> None:
    client, other = memory_place.client(), memory_place.client()
    other.queue("q").put_many(range(64))
    for n in range(32):
        assert client.queue("q").get() == n
    assert numbers(other).leased == 1
    assert numbers(other).unbegun == 0


def test_ten_slow_tasks_on_two_workers_split_five_and_five(client: Client, other: Client) -> None:
    client.queue("q").put_many(range(10))
    n_done = [0, 0]
    start = threading.Barrier(2)

    def work(which: int, worker: Client) -> None:
        start.wait()
        queue = worker.queue("q")
        try:
            while True:
                queue.get(timeout=0.2)
                n_done[which] += 1
                time.sleep(0.05)
        except stdlib_queue.Empty:
            pass

    threads = [threading.Thread(target=work, args=pair) for pair in enumerate([client, other])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert n_done == [5, 5]


# -- puts under a lease ------------------------------------------------------------------------------------------------


def test_a_put_made_again_by_a_redelivered_task_is_stored_once(place: Place, other: Client) -> None:
    other.queue("q").put("task")
    for attempt in (1, 2):
        worker = place.client()
        assert worker.queue("q").get(timeout=5) == "task"
        worker.queue("r").put({"result": 1})
        worker.queue("r").put({"result": 2})
        worker.queue("r").put({"result": 1})
        until(lambda: numbers(other, "r").put_total == 3)
        if attempt == 1:
            die(worker)
            until(lambda: numbers(other).leased == 0)
        else:
            worker.close()
    results = other.queue("r")
    assert [results.get(timeout=5) for _ in range(3)] == [{"result": 1}, {"result": 2}, {"result": 1}]
    with pytest.raises(stdlib_queue.Empty):
        results.get_nowait()


def test_a_put_under_a_lease_waits_for_no_answer_and_arrives_before_the_settlement(client: Client, other: Client) -> None:
    other.queue("q").put_many([1, 2])
    client.queue("r").qsize()
    client.queue("q").get()
    client.queue("r").put("result")
    client.queue("q").get()
    until(lambda: numbers(other).done_total == 1)
    assert numbers(other, "r").put_total == 1
    assert other.queue("r").get(timeout=5) == "result"


def test_a_refused_put_gives_the_task_back_and_raises_at_the_next_call(client: Client, other: Client) -> None:
    other.queue("q").put("task")
    client.queue("r").qsize()
    client.queue("q").get()
    other.queue("r").shutdown()
    client.queue("r").put("result")
    until(lambda: bool(session_of(client).state.refused))
    with pytest.raises(ShutDown):
        client.queue("q").get(timeout=5)
    with other.queue("q").receive(timeout=5) as received:
        assert (received.value, received.attempt) == ("task", 2)


def test_a_put_to_a_bounded_queue_waits_also_under_a_lease(client: Client, other: Client) -> None:
    other.queue("q").put("task")
    results = client.queue("r", maxsize=1)
    client.queue("q").get()
    results.put(1)
    with pytest.raises(stdlib_queue.Full):
        results.put(2, timeout=0.05)
    assert numbers(other).leased == 1


def test_after_many_puts_under_one_lease_a_put_waits_for_the_engines_word(
    remote_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, other = remote_place.client(), remote_place.client()
    monkeypatch.setattr("manyhands.client.records.PUTS_UNDER_A_LEASE", 3)
    waited: list[int] = []
    state, plain_put = session_of(client).state, ClientState.put

    def noted_put(self: ClientState, queue: QueueState, messages: list[Message], wait_s: float) -> Call:
        if self is state:
            waited.append(len(messages))
        return plain_put(self, queue, messages, wait_s)

    tasks, results = client.queue("tasks"), client.queue("results")
    other.queue("tasks").put_many([1, 2])
    monkeypatch.setattr(ClientState, "put", noted_put)
    for n_waited in (2, 4):  # counted anew for each lease
        tasks.get(timeout=5)
        for n in range(5):
            results.put(n)
        assert len(waited) == n_waited
    assert sorted(other.queue("results").get_many(20, timeout=5)) == sorted([0, 1, 2, 3, 4] * 2)


def test_a_put_inside_a_receive_block_travels_under_its_lease(place: Place, other: Client) -> None:
    other.queue("q").put("task")
    worker = place.client()
    for attempt in (1, 2):
        try:
            with worker.queue("q").receive(timeout=5):
                worker.queue("r").put("result")
                if attempt == 1:
                    raise OSError("after the put")
        except OSError:
            pass
    assert other.queue("r").get(timeout=5) == "result"
    with pytest.raises(stdlib_queue.Empty):
        other.queue("r").get_nowait()


def test_a_receive_block_may_end_with_a_nack_after_a_delay(client: Client, other: Client) -> None:
    client.queue("q").put(1)
    with client.queue("q").receive(timeout=5) as received:
        received.nack(delay_s=0.05, reason="not yet")
    with pytest.raises(stdlib_queue.Empty):
        other.queue("q").get_nowait()
    with other.queue("q").receive(timeout=5) as received:
        assert (received.value, received.attempt) == (1, 2)


def test_a_receive_block_may_reject_its_item(client: Client, other: Client) -> None:
    client.queue("q").put(1)
    with client.queue("q").receive(timeout=5) as received:
        received.reject("no such user")
    (letter,) = other.dead("q").list()
    assert letter.reason == "no such user"
    other.queue("q").join()  # it counts as finished


@pytest.mark.parametrize("delay_s", [-1.0, float("nan"), float("inf")])
def test_a_nack_wants_a_number_of_seconds(client: Client, delay_s: float) -> None:
    client.queue("q").put(1)
    with client.queue("q").receive(timeout=5) as received, pytest.raises(UsageError, match="delay_s"):
        received.nack(delay_s)
