"""NATS and its programs in trouble: owners that are killed, asleep or deposed, broken connections, a killed server."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from manyhands import events
from manyhands.engines.nats import NatsEngine
from manyhands.errors import PayloadTooLarge, UsageError
from manyhands.model import Limits
from manyhands.testing.contract.peer import Peer, eventually, message
from manyhands.testing.proxy import CuttingProxy
from nats_server import NatsServer

pytestmark = pytest.mark.faults
posix = pytest.mark.skipif(os.name != "posix", reason="Windows has no such signal")
CALM = Limits(lease_s=60.0, heartbeat_s=3600.0, resume_s=1.0)
PATIENT_S = 30.0

OWNER = """
import sys
from manyhands.engines.nats import NatsEngine
from manyhands.testing.contract.peer import Peer
engine = NatsEngine(sys.argv[1])
peer = Peer(engine, name="owner")
if sys.argv[2] == "holds":
    assert peer.take("q").message.body == b"work"
print("ready", flush=True)
for line in sys.stdin:
    peer.put_bodies("q", line.strip().encode())
    print("put", flush=True)
"""


class Place:
    """One test's space, and programs there."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.space = secrets.token_hex(8)
        self.url = f"{server.url}?space={self.space}"
        self._engines: list[NatsEngine] = []
        self._programs: list[subprocess.Popen[str]] = []

    def engine(self, url: str = "", limits: Limits = CALM) -> NatsEngine:
        engine = NatsEngine(url or self.url, limits=limits)
        self._engines.append(engine)
        return engine

    def peer(self, url: str = "", limits: Limits = CALM) -> Peer:
        """A session in a program of its own; the first one's is the owner."""
        return Peer(self.engine(url, limits))

    def program(self, what: str = "") -> subprocess.Popen[str]:
        """A process with an engine of its own: the owner, if it is the first."""
        program = subprocess.Popen(
            [sys.executable, "-c", OWNER, self.url, what], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._programs.append(program)
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        return program

    def stream(self) -> dict[str, int]:
        """Messages and bytes of the space's stream."""
        for account in self.server.ask("/jsz?streams=true")["account_details"]:
            for detail in account["stream_detail"]:
                if detail["name"] == f"MANYHANDS_{self.space}":
                    return dict(detail["state"])
        raise AssertionError("there is no such stream")

    def close(self) -> None:
        for program in self._programs:
            program.kill()
            program.communicate()
        for engine in self._engines:
            engine.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"), sync="2m")
    server.start()
    yield server
    server.stop()


@pytest.fixture
def place(server: NatsServer) -> Iterator[Place]:
    place = Place(server)
    yield place
    place.close()


@pytest.fixture
def proxy(server: NatsServer) -> Iterator[CuttingProxy]:
    with CuttingProxy(("127.0.0.1", server.port)) as proxy:
        yield proxy


def through(proxy: CuttingProxy, place: Place) -> str:
    return f"nats://127.0.0.1:{urlsplit(proxy.url).port}?space={place.space}"


def says(program: subprocess.Popen[str], line: str) -> str:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write(line + "\n")
    program.stdin.flush()
    return program.stdout.readline().strip()


@posix
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_when_the_owner_dies_or_sleeps_another_goes_on_and_nobody_notices(place: Place, how: signal.Signals) -> None:
    owner = place.program()
    worker, producer = place.peer(), place.peer()
    producer.put_bodies("held", b"held")
    held = worker.take("held")
    waiting = worker.start_lease("q", wait_s=events.FOREVER)
    worker.ping()
    owner.send_signal(how)
    producer.start(producer.put_request("q", message(b"work"))).expect(events.Done, PATIENT_S)
    (delivery,) = waiting.expect(events.Granted, PATIENT_S).deliveries
    assert (delivery.message.body, delivery.attempt) == (b"work", 1)
    assert worker.ack(held)
    assert worker.ack(delivery)
    assert producer.size("q").put_total == 1
    assert worker.unexpected == producer.unexpected == []
    if how == signal.SIGSTOP:  # deposed, it finds out and does as it is told
        owner.send_signal(signal.SIGCONT)
        assert says(owner, "late") == "put"
        assert worker.take("q", wait_s=PATIENT_S).message.body == b"late"


@posix
def test_what_a_killed_owner_held_goes_back(place: Place) -> None:
    peer = place.peer()
    peer.put_bodies("q", b"work")
    holder = place.program("holds")
    assert peer.size("q").leased == 1
    holder.kill()
    delivery = peer.take("q", wait_s=PATIENT_S)
    assert (delivery.message.body, delivery.attempt) == (b"work", 2)


def test_an_owner_that_closes_hands_over_at_once(place: Place) -> None:
    first = place.engine()
    worker = place.peer()
    waiting = worker.start_lease("q", wait_s=events.FOREVER)
    worker.ping()
    first.close()
    began = time.monotonic()
    worker.put_bodies("q", b"work")
    assert waiting.expect(events.Granted).deliveries[0].message.body == b"work"
    assert time.monotonic() - began < 5.0


def test_what_was_shut_down_stays_so_until_all_have_left(place: Place) -> None:
    first = place.engine()
    worker = place.peer()
    Peer(first).shut_down("q")
    first.close()
    assert worker.start_lease("q", wait_s=events.FOREVER).refusal(PATIENT_S) == "shut_down"
    assert worker.start(worker.put_request("q", message(b""))).refusal(PATIENT_S) == "shut_down"
    place.close()
    place.peer().put_bodies("q", b"anew")


def test_an_owner_that_was_cut_off_while_another_took_over_serves_nobody(proxy: CuttingProxy, place: Place) -> None:
    """Its own sessions wait at a core that nobody feeds any more, and it appends nothing by which it would find out."""
    was = place.peer(through(proxy, place))
    waiting = was.start_lease("q", wait_s=events.FOREVER)
    was.ping()
    other = place.peer()
    proxy.is_refusing = True
    proxy.drop_all()
    other.start(other.put_request("other", message(b""))).expect(events.Done, PATIENT_S)
    proxy.is_refusing = False
    other.put_bodies("q", b"work")
    assert waiting.expect(events.Granted, PATIENT_S).deliveries[0].message.body == b"work"


@pytest.mark.parametrize("who", ["owner", "other"])
def test_connections_cut_again_and_again_lose_and_repeat_no_put(proxy: CuttingProxy, place: Place, who: str) -> None:
    url, total = through(proxy, place), 60
    owner = place.peer(url if who == "owner" else "")
    peer = place.peer(url if who == "other" else "")
    is_through, is_done = threading.Event(), threading.Event()

    def cut() -> None:
        while not is_done.wait(0.05):
            is_through.clear()
            proxy.drop_all()
            while not is_through.wait(0.1) and not is_done.is_set():
                pass  # cut again before it has come back, on a busy machine, and it would never come through

    cutter = threading.Thread(target=cut)
    cutter.start()
    try:
        for n in range(total):
            peer.start(peer.put_request("q", message(str(n).encode()))).expect(events.Done, PATIENT_S)
            is_through.set()
    finally:
        is_done.set()
        is_through.set()
        cutter.join()
    taken = owner.lease("q", total * 2, within_s=PATIENT_S)
    assert [delivery.message.body for delivery in taken] == [str(n).encode() for n in range(total)]


def test_a_killed_server_that_comes_back_has_lost_nothing_acknowledged(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = NatsServer(tmp_path_factory.mktemp("nats"), sync="2m")
    server.start()
    place = Place(server)
    try:
        owner, other = place.peer(), place.peer()
        for n in range(50):
            other.put_bodies("q", b"%d" % n)
        waiting = owner.start_lease("later", wait_s=events.FOREVER)
        server.kill()
        server.start()
        other.start(other.put_request("later", message(b"work"))).expect(events.Done, PATIENT_S)
        assert waiting.expect(events.Granted, PATIENT_S).deliveries[0].message.body == b"work"
        assert [d.message.body for d in owner.lease("q", 100, within_s=PATIENT_S)] == [b"%d" % n for n in range(50)]
    finally:
        place.close()
        server.stop()


def test_a_long_run_leaves_a_small_stream_from_which_a_new_owner_begins(place: Place) -> None:
    peer = place.peer()
    peer.put("old", message(b"kept", id="kept"))
    body = b"x" * 20_000
    for _ in range(500):  # 10 MB in all, and each but the first is gone at once
        peer.put_bodies("q", body)
        assert peer.ack(peer.take("q"))
    eventually(lambda: place.stream()["bytes"] < 3_000_000, "the stream is small")
    before = peer.size("q")
    peer.cut()
    place.close()
    again = place.peer()
    assert again.size("q") == before
    assert again.take("old").message.id == "kept"


def test_a_body_longer_than_a_message_of_nats_travels_and_is_kept(place: Place) -> None:
    owner, other = place.peer(), place.peer()
    body = os.urandom(3_000_000)
    other.put_bodies("q", body)
    owner.put_bodies("q", body)
    assert [other.take("q").message.body == body, owner.take("q").message.body == body] == [True, True]
    other.cut()
    owner.cut()
    place.close()
    assert place.peer().size("q").put_total == 2


def test_a_body_over_the_limit_is_refused(place: Place) -> None:
    place.peer()
    other = place.peer()
    limit = other.port.attached.limits.max_body_bytes
    assert limit == 16 * 1024 * 1024
    with pytest.raises(PayloadTooLarge):
        other.put_bodies("q", bytes(limit + 1))
    other.put_bodies("q", b"small")


def test_wrong_values_are_refused_and_the_rest_of_the_batch_is_done(place: Place) -> None:
    place.peer()
    other = place.peer()
    bad = events.Put(0, 7, 1, 0, [message(b"")])  # type: ignore[arg-type]
    unsayable = events.Size(0, "\ud800")
    good = events.Size(0, "q")
    answers = other.start_all(bad, unsayable, good)
    assert [answers[0].refusal(), answers[1].refusal()] == ["usage", "usage"]
    assert answers[2].expect(events.QueueInfo).stats.name == "q"


@pytest.mark.parametrize("clients", [1, 2])
def test_a_number_that_nothing_can_carry_ends_nobody(place: Place, clients: int) -> None:
    peers = [place.peer() for _ in range(clients)]
    refused = peers[-1].start(events.Put(0, "q", 2**70, 0, [message(b"")], 0.0)).refusal(PATIENT_S)
    assert refused in ("usage", "engine_unavailable")
    peers[0].put_bodies("q", b"work")
    assert peers[0].take("q").message.body == b"work"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_is_told_and_the_parent_goes_on(place: Place) -> None:
    peer = place.peer()
    peer.put_bodies("q", b"work")
    child = os.fork()
    if not child:
        try:
            peer.port.send([events.Ping(1)])
        except UsageError:
            os._exit(7)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert peer.take("q").message.body == b"work"
