"""Redis and its programs in trouble: broken connections, a server killed or asleep or out of memory, programs that die."""

from __future__ import annotations

import os
import queue as queue_module
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import redis

import manyhands as mh
from manyhands import events
from manyhands.errors import EngineUnavailable, UsageError
from manyhands.model import Limits
from manyhands.testing.contract.peer import Peer, eventually, message

from .conftest import Place, Serve

pytestmark = pytest.mark.faults
KEY = "a key of these tests"
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")

HOLDER = """
import sys, threading
from manyhands.engines.redis import RedisEngine
from manyhands.testing.contract.peer import Peer
peer = Peer(RedisEngine(sys.argv[1]), name="holder")
if sys.argv[2] == "holds":
    assert peer.take("q").message.body == b"work"
else:
    peer.start_lease("q", wait_s=-1.0)
    peer.ping()
print("ready", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def admin(place: Place) -> Iterator[redis.Redis]:
    with redis.Redis(port=place.server.port) as admin:
        yield admin


def cut_connections(admin: redis.Redis, kind: str) -> int:
    """End all connections of a kind ("normal", "pubsub") but the administrator's."""
    return int(admin.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"))


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
def test_a_broken_connection_costs_no_lease_and_no_wait(place: Place, admin: redis.Redis, kind: str) -> None:
    worker, producer = place.peer(), place.peer()
    producer.put_bodies("held", b"held")
    held = worker.take("held")
    waiting = worker.start_lease("q", wait_s=events.FOREVER)
    worker.ping()
    assert cut_connections(admin, kind) >= 2
    producer.put_bodies("q", b"work")
    (delivery,) = waiting.expect(events.Granted).deliveries
    assert (delivery.message.body, delivery.attempt) == (b"work", 1)
    assert worker.ack(held)
    assert worker.ack(delivery)
    assert producer.size("q").put_total == 1
    assert worker.unexpected == []


def test_connections_cut_again_and_again_lose_and_repeat_no_put(place: Place, admin: redis.Redis) -> None:
    peer, total = place.peer(), 200
    done, is_through = threading.Event(), threading.Event()

    def cut() -> None:
        while not done.wait(0.02):
            cut_connections(admin, "normal")
            # Cut again before it has come back, on a busy machine, and it would never come through.
            is_through.clear()
            is_through.wait(10.0)

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for n in range(total):
            peer.put_bodies("q", str(n).encode())
            is_through.set()
    finally:
        done.set()
        is_through.set()
        cutter.join()
    assert [d.message.body for d in peer.lease("q", total * 2)] == [str(n).encode() for n in range(total)]


def test_functions_that_were_flushed_are_loaded_again(place: Place, admin: redis.Redis) -> None:
    peer = place.peer()
    peer.put_bodies("q", b"1")
    admin.execute_command("FUNCTION", "FLUSH")
    peer.put_bodies("q", b"2")
    assert [d.message.body for d in peer.lease("q", 2)] == [b"1", b"2"]


@posix
@pytest.mark.parametrize("what", ["holds", "waits"])
def test_a_program_that_is_killed_gives_back_what_it_held_and_is_handed_nothing_more(place: Place, what: str) -> None:
    other = place.peer(Limits(lease_s=60.0))
    if what == "holds":
        other.put_bodies("q", b"work")
    with subprocess.Popen([sys.executable, "-c", HOLDER, place.url, what], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        holder.kill()
    if what == "waits":
        other.put_bodies("q", b"work")
    began = time.monotonic()
    delivery = other.take("q")
    assert (delivery.message.body, delivery.attempt) == (b"work", 2 if what == "holds" else 1)
    assert time.monotonic() - began < 10.0, "a dead program was waited for as long as a silent one"


@posix
def test_a_server_that_slept_beyond_the_lease_takes_nothing_from_anybody(serve: Serve) -> None:
    own = Place(serve())
    try:
        worker, other = own.peer(Limits(lease_s=2.0)), own.peer()
        other.put_bodies("q", b"work")
        held = worker.take("q")
        assert own.server.process is not None
        own.server.process.send_signal(signal.SIGSTOP)
        time.sleep(3.5)  # its sleep is the point
        own.server.process.send_signal(signal.SIGCONT)
        assert worker.ack(held)
        assert other.size("q").redelivered_total == 0
    finally:
        own.close()


def test_without_memory_puts_are_refused_and_what_is_there_can_be_finished(serve: Serve) -> None:
    own = Place(serve())
    try:
        peer = own.peer()
        peer.put_bodies("q", b"1", b"2")
        with redis.Redis(port=own.server.port) as admin:
            admin.config_set("maxmemory", "100kb")
            with pytest.raises(EngineUnavailable, match="memory"):
                peer.put_bodies("q", b"3")
            for body in (b"1", b"2"):
                delivery = peer.take("q")
                assert delivery.message.body == body
                assert peer.ack(delivery)
            assert peer.lease("q") == []
            admin.config_set("maxmemory", "0")
        peer.put_bodies("q", b"there is room again")
        assert peer.take("q").message.body == b"there is room again"
    finally:
        own.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_cannot_use_its_parents_connection_and_does_not_disturb_it(place: Place) -> None:
    engine = place.engine()
    peer = Peer(engine)
    pid = os.fork()
    if not pid:
        try:
            engine.close()
            peer.ping()
        except UsageError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    peer.put_bodies("q", b"1")
    assert peer.take("q").message.body == b"1"


class Load:
    """Producers that note what was acknowledged, consumers that note what they finished."""

    def __init__(self, url: str, producers: int, consumers: int) -> None:
        self.acknowledged: list[tuple[int, int]] = []
        self.finished: Counter[tuple[int, int]] = Counter()
        self.problems: list[BaseException] = []
        self.is_over = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._guarded, args=(self._produce, n)) for n in range(producers)]
        self._threads += [threading.Thread(target=self._guarded, args=(self._consume, n)) for n in range(consumers)]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.is_over.set()
        for thread in self._threads:
            thread.join(60.0)
        assert not any(thread.is_alive() for thread in self._threads), "a thread hangs"
        assert self.problems == []

    def _guarded(self, work: object, n: int) -> None:
        try:
            work(n)  # type: ignore[operator]
        except BaseException as problem:
            self.problems.append(problem)

    def _produce(self, n: int) -> None:
        with mh.connect(self._url, KEY) as client:
            queue, number = client.queue("q"), 0
            while not self.is_over.is_set():
                queue.put((n, number))
                self.acknowledged.append((n, number))
                number += 1

    def _consume(self, n: int) -> None:
        with mh.connect(self._url, KEY) as client:
            queue = client.queue("q")
            while True:
                try:
                    with queue.receive(timeout=2.0) as delivery:
                        self.finished[delivery.value] += 1
                except queue_module.Empty:
                    if self.is_over.is_set():
                        return


def test_a_server_killed_again_and_again_loses_nothing_that_was_acknowledged(serve: Serve) -> None:
    server = serve()
    load = Load(f"{server.url}?space=killed", producers=3, consumers=2)
    try:
        for _ in range(3):
            before = len(load.acknowledged)
            eventually(lambda before=before: len(load.acknowledged) > before + 50, "work goes on")  # type: ignore[misc]
            server.kill()
            server.start()
    finally:
        load.end()
    assert len(load.acknowledged) > 150
    lost = set(load.acknowledged) - set(load.finished)
    assert lost == set(), f"{len(lost)} of {len(load.acknowledged)} were acknowledged and lost"
    repeats = sum(n - 1 for n in load.finished.values())
    # At each kill the two consumers may have had in hand what they had finished and not settled yet.
    assert repeats <= 3 * 2 * 64, repeats


def test_a_put_that_the_kill_left_open_is_made_once(serve: Serve) -> None:
    own = Place(serve())
    try:
        peer = own.peer()
        peer.put_bodies("q", b"before")
        own.server.kill()
        open_put = peer.start(peer.put_request("q", message(b"open")))
        own.server.start()
        open_put.expect(events.Done)
        assert [d.message.body for d in peer.lease("q", 9)] == [b"before", b"open"]
    finally:
        own.close()


def test_what_did_not_fit_into_the_step_that_broke_is_sent_as_well(place: Place, admin: redis.Redis) -> None:
    peer, total = place.peer(), 1500
    peer.ping()
    requests = [peer.put_request("q", message(str(n).encode())) for n in range(total)]
    done = threading.Event()

    def cut() -> None:
        while not done.is_set():
            cut_connections(admin, "normal")

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        pending = peer.start_all(*requests)
        done.wait(0.2)
    finally:
        done.set()
        cutter.join()
    for each in pending:
        each.expect(events.Done)
    assert [d.message.body for d in peer.lease("q", total * 2)] == [str(n).encode() for n in range(total)]


def test_a_goodbye_said_while_redis_is_away_is_heard_when_it_is_back(serve: Serve) -> None:
    own = Place(serve())
    try:
        leaver, other = own.peer(Limits(lease_s=60.0)), own.peer()
        other.put_bodies("q", b"work")
        leaver.take("q")
        own.server.kill()
        leaver.goodbye()
        own.server.start()
        assert other.take("q").message.body == b"work"
        assert not other.sees(leaver)
    finally:
        own.close()
