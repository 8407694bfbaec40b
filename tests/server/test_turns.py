"""The loop that threads run in turn: whoever waits for what it brings may run it, and nobody is forgotten."""

from __future__ import annotations

import queue as stdlib_queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from manyhands import _turns
from manyhands._turns import SharedLoop
from manyhands._waiter import Waiter
from manyhands.errors import UsageError
from manyhands.events import Granted, Ping, Pong
from manyhands.server import SocketServer
from manyhands.server.connection import Connection
from manyhands.testing.contract.peer import Peer, message

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there the loop stays in its own thread")


@pytest.fixture
def shared() -> Iterator[SharedLoop]:
    loop = SharedLoop("test-loop")
    loop.start()
    yield loop
    loop.stop(5)


def ran_in(shared: SharedLoop, waiter: Waiter) -> list[int]:
    """Set the waiter from the loop; the ident of the thread that ran it then."""
    found: list[int] = []

    def finish() -> None:
        found.append(threading.get_ident())
        waiter.set()

    shared.loop.call_soon_threadsafe(finish)
    return found


def lead(shared: SharedLoop, after: Callable[[Waiter], object], timeout_s: float = 10.0) -> bool:
    """One wait by this thread, as by one that came back at once from its last."""
    waiter = Waiter()
    after(waiter)
    shared._waited_at = time.monotonic()
    return shared.lead(waiter, timeout_s)


def test_who_comes_back_soon_runs_the_loop_itself(shared: SharedLoop) -> None:
    seen: list[int] = []

    def look(waiter: Waiter) -> None:
        def later() -> None:  # until this thread had its turn: the own thread may still be about to leave
            seen.append(threading.get_ident())
            if seen[-1] == here:
                waiter.set()
            else:
                shared.loop.call_later(0.001, later)

        shared.loop.call_soon_threadsafe(later)

    here = threading.get_ident()
    assert lead(shared, look)
    assert seen[-1] == here


def test_who_was_long_away_leaves_the_loop_to_its_own_thread(shared: SharedLoop) -> None:
    seen: list[int] = []
    waiter = Waiter()

    def look() -> None:
        seen.append(threading.get_ident())
        if len(seen) < 50:
            shared.loop.call_later(0.001, look)
        else:
            waiter.set()

    shared.loop.call_soon_threadsafe(look)
    shared._waited_at = time.monotonic() - 1.0
    assert shared.lead(waiter, 10.0)
    assert set(seen) == {shared._thread.ident}


def test_who_waits_without_leading_does_not_wait_for_the_own_threads_nap(
    shared: SharedLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_turns, "NAP_S", 60.0)
    while not shared._leads:  # now the own thread naps
        assert lead(shared, lambda waiter: ran_in(shared, waiter))
    waiter = Waiter()
    ran_in(shared, waiter)
    shared._waited_at = time.monotonic() - 1.0
    assert shared.lead(waiter, 10.0), "nobody ran the loop"


def test_the_own_thread_serves_when_the_leader_does_not_come_back(shared: SharedLoop) -> None:
    for _ in range(20):
        assert lead(shared, lambda waiter: ran_in(shared, waiter))
        again = Waiter()
        ran_in(shared, again)
        assert again.block(5.0), "nobody ran the loop after its leader had left"


def in_thread(work: Callable[[], object]) -> None:
    """Run what may hang if it is broken."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert not errors, errors


@pytest.mark.parametrize("is_behind_a_long_one", [False, True])
def test_a_leaders_wait_ends_at_its_timeout(shared: SharedLoop, is_behind_a_long_one: bool) -> None:
    def wait() -> None:
        if is_behind_a_long_one:
            assert lead(shared, lambda waiter: ran_in(shared, waiter), timeout_s=30.0)
        started = time.monotonic()
        assert not lead(shared, lambda waiter: None, timeout_s=0.05)
        assert time.monotonic() - started > 0.04

    in_thread(wait)


def test_a_nudge_makes_a_leader_look_around(shared: SharedLoop) -> None:
    started = time.monotonic()
    assert not lead(shared, lambda waiter: threading.Timer(0.05, waiter.nudge).start(), timeout_s=30.0)
    assert time.monotonic() - started < 10.0


def test_many_threads_that_wait_by_turns_all_get_their_answers(shared: SharedLoop) -> None:
    missing: stdlib_queue.SimpleQueue[str] = stdlib_queue.SimpleQueue()

    def work() -> None:
        for _ in range(200):
            if not lead(shared, lambda waiter: ran_in(shared, waiter)):
                missing.put("an answer did not come")

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert missing.empty()


def test_stopping_ends_a_leaders_turn(shared: SharedLoop) -> None:
    ended = threading.Event()

    def wait() -> None:
        lead(shared, lambda waiter: None, timeout_s=1.0)
        ended.set()

    threading.Thread(target=wait).start()
    shared.stop(5)
    assert ended.wait(10.0)


def test_what_the_loop_runs_cannot_wait_for_the_loop(shared: SharedLoop) -> None:
    async def nothing() -> None:
        pass

    async def inside() -> None:
        with pytest.raises(UsageError, match="cannot wait for itself"):
            shared.run(nothing(), 1.0)

    shared.run(inside(), 5.0)


def test_a_program_with_other_signal_handlers_does_not_lead(shared: SharedLoop) -> None:
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        waiter = Waiter()
        where = ran_in(shared, waiter)
        shared._waited_at = time.monotonic()
        assert shared.lead(waiter, 10.0)
        assert where == [shared._thread.ident]
    finally:
        signal.signal(signal.SIGUSR1, before)


_CTRL_C = """
import os, signal, threading
from manyhands import _turns
from manyhands._waiter import Waiter

_turns.BACK_S = 1e9  # lead always
shared = _turns.SharedLoop("test-loop")
shared.start()
here = threading.get_ident()
where = []

def step():
    if threading.get_ident() != here:  # not yet the turn of the thread that waits
        shared.loop.call_later(0.001, step)
        return
    os.kill(os.getpid(), signal.SIGINT)
    where.append("inside a step")
    for _ in range(100000):
        pass
    where.append("behind it")

handler = signal.getsignal(signal.SIGINT)
shared.loop.call_soon_threadsafe(step)
try:
    shared.lead(Waiter(), 300.0)
except KeyboardInterrupt:
    print("interrupted", where[-1], signal.getsignal(signal.SIGINT) is handler)
"""


def test_a_request_that_comes_alone_is_answered_within_one_turn_of_the_loop(
    server: SocketServer, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = 0
    select = type(server._turns.selector).select  # type: ignore[union-attr]

    def counting(selector: Any, timeout: float | None = None) -> Any:
        nonlocal turns
        turns += 1
        return select(selector, timeout)

    peer.start(Ping(0)).expect(Pong)
    monkeypatch.setattr("manyhands._turns._Selector.select", counting)
    for _ in range(40):
        peer.start(Ping(0)).expect(Pong)
    assert turns < 60


def test_answers_to_requests_that_come_together_leave_in_one_write(
    server: SocketServer, make_peer: Callable[[], Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    writes: list[int] = []
    flush = Connection.flush

    def noting(connection: Connection) -> None:
        if connection.session == waiter.session:
            writes.append(sum(isinstance(reply, Granted) for reply in connection._outbox))
        flush(connection)

    waiter, *putters = (make_peer() for _ in range(3))
    waits = [waiter.start_lease("q") for _ in putters]
    waiter.start(Ping(0)).expect(Pong)  # both stand in line
    monkeypatch.setattr(Connection, "flush", noting)
    held, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        go_on.wait(10)

    server.soon(hold)
    assert held.wait(10)
    puts = [each.start(each.put_request("q", message())) for each in putters]
    go_on.set()
    for pending in (*waits, *puts):
        pending.answer()
    assert [n for n in writes if n] == [2]


def test_ctrl_c_ends_a_leaders_wait_between_two_steps_of_the_server(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(_CTRL_C)
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("interrupted behind it True", "")


def test_ctrl_c_ends_a_wait_behind_another_leader(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        """
import os, signal, threading, time
from manyhands import _turns
from manyhands._waiter import Waiter

_turns.BACK_S = 1e9
shared = _turns.SharedLoop("test-loop")
shared.start()
threading.Thread(target=shared.lead, args=(Waiter(), 30.0), daemon=True).start()
while shared.runner in (0, shared._thread.ident):
    time.sleep(0.001)
threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()
try:
    shared.lead(Waiter(), 300.0)
except KeyboardInterrupt:
    print("interrupted")
"""
    )
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout.strip(), done.stderr) == ("interrupted", "")
