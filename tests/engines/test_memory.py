"""The memory engine's shell: threads, sinks that send again, time of its own, forks. What the queue does: tests/core."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from manyhands.engines.base import Waiter
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import ServerUnavailable, UsageError
from manyhands.events import Attach, Closing, Done, Granted, Lease, Ping, Pong, Put, Reply, Settle, Settled
from manyhands.model import Limits, Message, Settlement
from manyhands.sweeper import Sweeper
from manyhands.testing.clock import ManualClock


@pytest.fixture
def engine() -> Iterator[MemoryEngine]:
    engine = MemoryEngine(Limits(recall_after_s=0.001, resume_s=0.05))
    yield engine
    engine.close()


def nobody(_: Sequence[Reply]) -> None:
    """A sink that hears nothing."""


def put(n: int, queue: str = "q", count: int = 1) -> Put:
    return Put(n, queue, n, n, [Message(f"m{n}.{i}", b"x") for i in range(count)])


def wait_until(is_so: Callable[[], Any], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.001)


def test_replies_come_in_the_callers_thread_before_send_returns(engine: MemoryEngine) -> None:
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    port.send([put(1), Lease(2, "q"), Ping(3)])
    assert isinstance(replies[0], Done)
    assert isinstance(replies[1], Granted)
    assert replies[2] == Pong(3)
    assert port.attached.engine == "memory"
    assert not port.attached.is_resumed


def test_a_send_from_inside_a_sink_is_applied_after_it_returns_and_does_not_nest(engine: MemoryEngine) -> None:
    depth, deepest, done = 0, 0, 0

    def sink(replies: Sequence[Reply]) -> None:
        nonlocal depth, deepest, done
        depth += 1
        deepest = max(deepest, depth)
        for reply in replies:
            done += 1
            if done < 5000:
                port.send([put(done + 1)])
            assert isinstance(reply, Done)
        depth -= 1

    port = engine.attach(Attach("a"), sink)
    port.send([put(1)])
    assert (deepest, done) == (1, 5000)


def test_a_sink_that_fails_hurts_nobody_else(engine: MemoryEngine, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_: Sequence[Reply]) -> None:
        raise RuntimeError("bad sink")

    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    engine.attach(Attach("b"), broken).send([Lease(1, "q")])
    port.send([put(1)])
    assert replies == [Done(1)]
    assert "receiver of session" in caplog.text


def test_many_threads_put_and_get_every_message_once(engine: MemoryEngine) -> None:
    taken: list[str] = []
    n, workers = 500, 4

    def work(name: str) -> None:
        answers: dict[int, tuple[Waiter, list[Reply]]] = {}

        def sink(replies: Sequence[Reply]) -> None:
            for reply in replies:
                if not isinstance(reply, Granted | Settled):
                    continue
                waiter, box = answers[reply.rid]
                box.append(reply)
                waiter.set()

        port = engine.attach(Attach(name), sink)
        for rid in range(1, n + 1):
            waiter: Waiter = Waiter()
            box: list[Reply] = []
            answers[rid] = waiter, box
            port.send([Lease(rid, "q")])
            assert port.wait(waiter, 10.0)
            granted = box[0]
            assert isinstance(granted, Granted)
            taken.append(granted.deliveries[0].message.id)
            port.send([Settle(0, rid, rid, [Settlement(granted.deliveries[0].token)])])

    threads = [threading.Thread(target=work, args=(f"worker{i}",)) for i in range(workers)]
    for thread in threads:
        thread.start()
    producer = engine.attach(Attach("producer"), nobody)
    for i in range(1, n * workers + 1):
        producer.send([put(i)])
    for thread in threads:
        thread.join(30)
    assert sorted(taken) == sorted(f"m{i}.0" for i in range(1, n * workers + 1))


def test_what_is_due_happens_by_itself(engine: MemoryEngine) -> None:
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    port.send([Lease(1, "q", 1, 1, 0.02)])
    wait_until(lambda: replies == [Granted(1, [])])
    port.send([Put(2, "q", 1, 1, [Message("late", b"", due_at=time.time() + 0.03)]), Lease(3, "q")])
    wait_until(lambda: isinstance(replies[-1], Granted) and replies[-1].deliveries)


def test_a_cut_sessions_leases_return_after_resume_s_without_any_request(engine: MemoryEngine) -> None:
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    lost = engine.attach(Attach("b"), nobody)
    port.send([put(1)])
    lost.send([Lease(1, "q")])
    lost.detach(goodbye=False)
    port.send([Lease(2, "q")])
    wait_until(lambda: isinstance(replies[-1], Granted))
    assert isinstance(replies[-1], Granted)
    assert replies[-1].deliveries[0].attempt == 2


def test_a_second_attach_takes_the_session_over(engine: MemoryEngine) -> None:
    old_replies: list[Reply] = []
    replies: list[Reply] = []
    old = engine.attach(Attach("a"), old_replies.extend)
    old.send([put(1), Lease(2, "q"), Lease(3, "empty")])
    (token,) = [reply.deliveries[0].token for reply in old_replies if isinstance(reply, Granted)]
    port = engine.attach(Attach("a", held=[token]), replies.extend)
    assert port.attached.is_resumed
    assert port.attached.lost == []
    with pytest.raises(ServerUnavailable, match="taken over"):
        old.send([Ping(1)])
    old.detach()
    port.send([Settle(4, 1, 1, [Settlement(token)])])
    assert replies == [Settled(4)]


def test_closing_tells_everybody_and_refuses_what_comes_after() -> None:
    engine = MemoryEngine()
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    engine.close(closing_reason="enough")
    engine.close()
    assert replies == [Closing("enough")]
    port.detach()
    with pytest.raises(ServerUnavailable, match="closed"):
        port.send([Ping(1)])
    with pytest.raises(ServerUnavailable, match="closed"):
        engine.attach(Attach("b"), nobody)


def test_a_sink_may_close_the_engine() -> None:
    engine = MemoryEngine()
    port = engine.attach(Attach("a"), lambda replies: engine.close())
    engine.attach(Attach("b"), nobody).send([Lease(1, "q", 1, 1, 0.0)])
    port.send([Ping(1)])
    with pytest.raises(ServerUnavailable):
        port.send([Ping(2)])


def test_an_engine_that_was_closed_leaves_no_thread() -> None:
    before = set(threading.enumerate())
    engine = MemoryEngine()
    assert set(threading.enumerate()) <= before, "nothing is started before somebody attaches"
    engine.attach(Attach("a"), nobody)
    (sweeper,) = set(threading.enumerate()) - before
    engine.close()
    assert not sweeper.is_alive()


def test_with_a_tests_own_clock_nothing_happens_by_itself() -> None:
    clock = ManualClock()
    engine = MemoryEngine(clock=clock)
    before = set(threading.enumerate())
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    assert set(threading.enumerate()) <= before
    port.send([Lease(1, "q", 1, 1, 5.0)])
    assert engine.tick() == clock.mono + 5.0
    clock.advance(5.0)
    engine.tick()
    assert replies == [Granted(1, [])]


def test_tokens_of_two_engines_differ() -> None:
    tokens = set()
    for _ in range(2):
        engine = MemoryEngine()
        replies: list[Reply] = []
        engine.attach(Attach("a"), replies.extend).send([put(1), Lease(2, "q")])
        tokens |= {reply.deliveries[0].token for reply in replies if isinstance(reply, Granted)}
        engine.close()
    assert len(tokens) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
def test_a_forked_child_is_told_clearly_and_never_hangs(engine: MemoryEngine) -> None:
    port = engine.attach(Attach("a"), nobody)
    locked, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        with engine._lock:
            locked.set()
            go_on.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(10)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            port.send([Ping(1)])
        except UsageError as error:
            code = 0 if "another process" in str(error) else 2
        finally:
            port.detach()
            engine.close()
            os._exit(code)
    go_on.set()
    holder.join()
    wait_until(lambda: os.waitpid(pid, os.WNOHANG) == (pid, 0))
    port.send([Ping(2)])


def test_a_wait_that_ends_before_all_that_was_due_is_ended_in_time(engine: MemoryEngine) -> None:
    replies: list[Reply] = []
    port = engine.attach(Attach("a"), replies.extend)
    port.send([Lease(1, "q", wait_s=600.0)])
    wait_until(lambda: engine._sweeper is not None and engine._sweeper._due is not None)
    port.send([Lease(2, "other", wait_s=0.01)])
    wait_until(lambda: Granted(2, []) in replies)
    port.send([Lease(3, "other", wait_s=0.01)])
    wait_until(lambda: Granted(3, []) in replies)


def test_a_sweeper_sleeps_until_something_is_due_and_no_longer() -> None:
    calls: list[float] = []
    called = threading.Event()

    def tick() -> float | None:
        calls.append(time.monotonic())
        called.set()
        return None

    sweeper = Sweeper(tick)
    sweeper.start()
    due = time.monotonic() + 0.02
    sweeper.nudge(due + 60)
    sweeper.nudge(due)
    sweeper.nudge(None)
    assert called.wait(10)
    assert calls[0] >= due
    sweeper.stop()
    sweeper.stop()
    assert len(calls) == 1


def test_a_sweep_that_fails_is_logged_and_does_not_end_the_sweeper(caplog: pytest.LogCaptureFixture) -> None:
    failed = threading.Event()

    def tick() -> float | None:
        failed.set()
        raise RuntimeError("bad tick")

    sweeper = Sweeper(tick)
    sweeper.start()
    sweeper.nudge(time.monotonic())
    assert failed.wait(10)
    sweeper.stop()
    assert "a sweep failed" in caplog.text
