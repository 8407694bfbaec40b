"""What the client's background thread does while the program does something else: everything in time, and nothing else."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from manyhands import events
from manyhands.engines.base import Waiter
from manyhands.engines.remote import RemotePort
from manyhands.engines.sqlite import SqliteEngine
from manyhands.model import Limits
from manyhands.testing.contract.peer import PATIENCE_S, Peer, eventually, message

from .conftest import Place


def test_a_recall_is_heard_while_the_program_computes(place: Place) -> None:
    server = place.serve()
    greedy, starving = place.peer(server.url), place.peer(server.url)
    greedy.put_bodies("q", *[b"x"] * 4)
    greedy.lease("q", 4, begin_n=1)
    parked = starving.start_lease("q")
    eventually(lambda: bool(greedy.recalls), "the recall arrives though no thread of that program waits")
    assert not parked.is_answered


def test_answers_of_pipelined_puts_are_taken_in_while_the_program_computes(peer: Peer) -> None:
    puts = [peer.start(peer.put_request("q", message(b"x"))) for _ in range(50)]
    eventually(lambda: all(put.is_answered for put in puts), "all are answered though nobody waits")


def test_a_large_body_is_written_to_its_end_though_nobody_waits(place: Place) -> None:
    server = place.serve()
    peer, other = place.peer(server.url), place.peer(server.url)
    for n in range(3):
        peer.start(peer.put_request("q", message(bytes(30_000_000), id=f"large {n}")))
    eventually(lambda: other.size("q").ready == 3, "all bytes arrive")


def test_a_durable_server_takes_a_large_body_over_one_connection(
    place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody leads a durable engine's loop, so it is uvloop's where there is one; it lends its memory for longer."""
    engine = SqliteEngine(tmp_path / "store.db")
    server = place.serve(engine)
    peer = place.peer(server.url)
    for n in range(8):
        peer.put("q", message(bytes(5_000_000), id=f"large {n}"))
    assert [record.getMessage() for record in caplog.records if record.levelname in ("WARNING", "ERROR")] == []
    server.stop()
    engine.close()


def test_a_waiting_thread_takes_over_from_the_background_thread(peer: Peer) -> None:
    """After an idle while the background thread reads; one exchange later the program's own thread does."""
    port = peer.port
    assert isinstance(port, RemotePort)
    eventually(lambda: port._is_reading_behind, "the background thread reads an idle connection")
    peer.ping()
    waiter = Waiter()
    thread = threading.Thread(target=lambda: port.wait(waiter, PATIENCE_S))
    thread.start()
    eventually(lambda: waiter.wake is not None, "the waiting thread reads for itself")
    waiter.set()
    thread.join(PATIENCE_S)


def switches_of(thread: threading.Thread) -> int:
    with open(f"/proc/self/task/{thread.native_id}/status", encoding="ascii") as file:
        return sum(int(line.split()[1]) for line in file if "ctxt_switches" in line)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="only Linux counts a thread's wake-ups")
@pytest.mark.parametrize("is_waiting", [False, True], ids=["an idle program", "a program that waits in one call"])
def test_nothing_polls(place: Place, is_waiting: bool) -> None:
    place.limits = Limits(heartbeat_s=60.0)
    peer = place.peer(place.serve().url)
    port = peer.port
    assert isinstance(port, RemotePort)
    waiter = Waiter()
    waiting = threading.Thread(target=lambda: port.wait(waiter, PATIENCE_S * 4))
    if is_waiting:
        waiting.start()
        eventually(lambda: port._is_asleep, "the background thread sleeps behind the reader")
    else:
        eventually(lambda: port._is_reading_behind, "the background thread reads")
    before = switches_of(port._thread)
    threading.Event().wait(0.5)
    assert switches_of(port._thread) - before < 5
    waiter.set()
    if is_waiting:
        waiting.join(PATIENCE_S)


def test_a_heartbeat_is_sent_while_a_thread_waits_in_one_long_call(place: Place) -> None:
    place.limits = Limits(heartbeat_s=0.05, lease_s=0.3)
    server = place.serve()
    peer, other = place.peer(server.url), place.peer(server.url)
    peer.put_bodies("q", b"x")
    delivery = peer.take("q")
    assert not peer.port.wait(peer.start_lease("never").waiter, 0.8)
    assert peer.ack(delivery)
    assert isinstance(other.start(events.Ping(0)).answer(), events.Pong)
