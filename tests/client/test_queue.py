"""`queue.Queue`'s interface, on an engine in this process and on a server."""

from __future__ import annotations

import math
import queue as stdlib_queue
import threading
import time
from typing import Any

import pytest

from manyhands.client import Client
from manyhands.errors import PayloadNotEncodable, PayloadTooLarge, ShutDown, UsageError

from .conftest import Place, numbers, session_of, until


def test_items_come_out_as_they_went_in_first_in_first_out(client: Client) -> None:
    queue = client.queue("q")
    items: list[Any] = [1, "two", {"three": [3.0, None]}, b"four", (5,), b"x" * 200_000]
    for item in items:
        queue.put(item)
    assert [queue.get() for _ in items] == items


def test_two_programs_share_a_queue_by_its_name(client: Client, other: Client) -> None:
    client.queue("q").put("hello")
    assert other.queue("q").get(timeout=5) == "hello"


def test_a_waiting_get_is_woken_by_a_put(client: Client, other: Client) -> None:
    got: list[Any] = []
    thread = threading.Thread(target=lambda: got.append(client.queue("q").get()))
    thread.start()
    until(lambda: numbers(other).waiting == 1)
    other.queue("q").put("now")
    thread.join(5)
    assert got == ["now"]


def test_get_raises_empty_when_its_timeout_is_over(client: Client) -> None:
    started = time.monotonic()
    with pytest.raises(stdlib_queue.Empty):
        client.queue("q").get(timeout=0.1)
    assert time.monotonic() - started >= 0.1


def test_get_nowait_and_get_without_block_raise_empty_at_once(client: Client) -> None:
    with pytest.raises(stdlib_queue.Empty):
        client.queue("q").get_nowait()
    with pytest.raises(stdlib_queue.Empty):
        client.queue("q").get(False, 30)


def test_an_item_that_comes_after_a_get_gave_up_is_there_for_the_next(client: Client, other: Client) -> None:
    with pytest.raises(stdlib_queue.Empty):
        client.queue("q").get(timeout=0.05)
    other.queue("q").put(1)
    assert client.queue("q").get(timeout=5) == 1


def test_a_negative_timeout_is_a_value_error(client: Client) -> None:
    queue = client.queue("q")
    with pytest.raises(ValueError, match="non-negative"):
        queue.get(timeout=-1)
    with pytest.raises(ValueError, match="non-negative"):
        queue.put(1, timeout=-1)
    queue.put(1, False, -1)  # as the standard library: without block it is not looked at
    assert queue.get(False, -1) == 1


def test_a_bounded_queue_is_full_and_put_waits_for_room(client: Client, other: Client) -> None:
    queue = client.queue("q", maxsize=2)
    assert (queue.maxsize, queue.full()) == (2, False)
    queue.put(1)
    queue.put(2)
    assert queue.full()
    with pytest.raises(stdlib_queue.Full):
        queue.put_nowait(3)
    with pytest.raises(stdlib_queue.Full):
        queue.put(3, timeout=0.05)
    done = threading.Event()
    thread = threading.Thread(target=lambda: (queue.put(3), done.set()))
    thread.start()
    assert other.queue("q").get() == 1
    assert done.wait(5)
    thread.join(5)
    assert queue.qsize() == 2


def test_a_bound_is_kept_and_a_conflicting_one_is_a_usage_error(client: Client, other: Client) -> None:
    client.queue("q", maxsize=2)
    assert other.queue("q").maxsize == 2
    assert other.queue("q", maxsize=2).maxsize == 2
    with pytest.raises(UsageError, match="maxsize 2"):
        other.queue("q", maxsize=3)


def test_put_many_stores_all_or_none(client: Client) -> None:
    queue = client.queue("q", maxsize=3)
    queue.put_many(range(2))
    with pytest.raises(stdlib_queue.Full):
        queue.put_many(range(2), timeout=0)
    with pytest.raises(UsageError):
        queue.put_many(range(4))
    assert queue.qsize() == 2
    queue.put_many([])
    with pytest.raises(PayloadNotEncodable):
        queue.put_many([5, lambda: 1])
    assert queue.qsize() == 2


def test_get_many_waits_for_one_and_takes_what_is_there(client: Client, other: Client) -> None:
    queue = client.queue("q")
    other.queue("q").put_many(range(5))
    assert queue.get_many(3) == [0, 1, 2]
    assert queue.get_many(10) == [3, 4]
    with pytest.raises(stdlib_queue.Empty):
        queue.get_many(10, timeout=0.05)
    with pytest.raises(UsageError):
        queue.get_many(0)


def test_larger_priority_comes_sooner(client: Client) -> None:
    queue = client.queue("q")
    queue.put("later", priority=-1)
    queue.put("normal")
    queue.put("sooner", priority=9)
    assert [queue.get() for _ in range(3)] == ["sooner", "normal", "later"]
    with pytest.raises(UsageError, match="-9 to 9"):
        queue.put(1, priority=10)


def test_a_delayed_item_counts_but_stays_hidden_until_it_is_due(client: Client) -> None:
    queue = client.queue("q")
    queue.put("late", delay_s=0.2)
    assert queue.qsize() == 1
    with pytest.raises(stdlib_queue.Empty):
        queue.get_nowait()
    assert queue.get(timeout=5) == "late"


def test_an_id_is_put_once(client: Client, other: Client) -> None:
    client.queue("q").put("first", id="order 7")
    other.queue("q").put("second", id="order 7")
    assert client.queue("q").qsize() == 1
    assert client.queue("q").get() == "first"


def test_what_cannot_be_sent_fails_at_put_and_leaves_the_client_well(client: Client) -> None:
    queue = client.queue("q")
    with pytest.raises(PayloadNotEncodable, match="function"):
        queue.put(lambda: 1)
    with pytest.raises(PayloadTooLarge, match="max_body_bytes"):
        queue.put(b"x" * 1_000_001)
    queue.put("fine")
    assert queue.get(timeout=5) == "fine"


def test_shutdown_is_broadcast_and_lets_the_rest_be_taken(client: Client, other: Client) -> None:
    queue = client.queue("q")
    queue.put_many([1, 2])
    ended: list[type[BaseException]] = []

    def wait_for_more() -> None:
        try:
            other.queue("empty").get()
        except ShutDown as error:
            ended.append(type(error))

    thread = threading.Thread(target=wait_for_more)
    thread.start()
    until(lambda: numbers(client, "empty").waiting == 1)
    client.queue("empty").shutdown()
    queue.shutdown()
    thread.join(5)
    assert ended == [ShutDown]
    with pytest.raises(ShutDown):
        other.queue("q").put(3)
    assert [other.queue("q").get(timeout=5) for _ in range(2)] == [1, 2]
    with pytest.raises(ShutDown):
        other.queue("q").get()


def test_shutdown_at_once_drops_what_nobody_has(client: Client) -> None:
    queue = client.queue("q")
    queue.put_many([1, 2])
    queue.shutdown(immediate=True)
    with pytest.raises(ShutDown):
        queue.get()


def test_iteration_ends_on_shutdown_and_counts_each_step_as_done(client: Client, other: Client) -> None:
    queue = client.queue("q")
    queue.put_many(range(5))
    queue.shutdown()
    assert list(other.queue("q")) == list(range(5))
    queue.join()


def test_many_threads_share_one_client(client: Client) -> None:
    queue, results = client.queue("q"), client.queue("r")
    n_threads, n_each = 8, 50

    def work() -> None:
        for item in queue:
            results.put(item)

    workers = [threading.Thread(target=work) for _ in range(n_threads)]
    makers = [
        threading.Thread(target=lambda base=base: [queue.put(base * n_each + i) for i in range(n_each)])
        for base in range(n_threads)
    ]
    for thread in workers + makers:
        thread.start()
    got = sorted(results.get(timeout=20) for _ in range(n_threads * n_each))
    queue.shutdown()
    for thread in workers + makers:
        thread.join(10)
    assert got == list(range(n_threads * n_each))


def test_a_queue_of_this_process_only_cannot_be_pickled_and_says_why(memory_place: Place) -> None:
    import pickle

    with pytest.raises(UsageError, match="serve it with"):
        pickle.dumps(memory_place.client().queue("q"))


@pytest.mark.parametrize("timeout", [math.nan, math.inf])
def test_a_timeout_that_is_no_time_is_a_value_error_and_a_very_long_one_is_fine(
    client: Client, other: Client, timeout: float
) -> None:
    queue = client.queue("q")
    with pytest.raises(ValueError, match="non-negative number"):
        queue.get(timeout=timeout)
    with pytest.raises(UsageError, match="delay_s"):
        queue.put(1, delay_s=timeout)
    ticker = threading.Timer(0.05, other.queue("q").put, [1])
    ticker.start()
    assert queue.get(timeout=1e9) == 1
    ticker.join()


def test_a_name_or_id_that_cannot_be_written_is_a_usage_error(client: Client) -> None:
    with pytest.raises(UsageError, match="name"):
        client.queue("half a pair: \ud800")
    with pytest.raises(UsageError, match="UTF-8"):
        client.queue("q").put(1, id="\ud800")


def test_an_exception_about_an_odd_file_name_still_gives_its_message_back(client: Client, other: Client) -> None:
    queue = client.queue("q")
    queue.put(1)
    with pytest.raises(FileNotFoundError), queue.receive(timeout=5):
        raise FileNotFoundError("no such file: \udcff")
    assert other.queue("q").get(timeout=3) == 1, "at once, not when its lease ends after 5 s"


def test_a_messages_id_tells_nothing_of_the_session_that_put_it(client: Client, other: Client) -> None:
    client.queue("q").put(1)
    with other.queue("q").receive(timeout=5) as received:
        assert received.id[:8] not in session_of(client).id


def test_a_queue_needs_a_name(client: Client) -> None:
    with pytest.raises(UsageError, match="not ''"):
        client.queue("")
