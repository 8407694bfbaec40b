"""Requests of real clients over real sockets, answered by a memory engine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from manyhands import _bridge, events
from manyhands.engines.base import Waiter
from manyhands.errors import PayloadTooLarge, ServerUnavailable
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import Peer, Pending, eventually, message

from .conftest import Place


@pytest.fixture(params=["uvloop", "asyncio"], autouse=True)
def _loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test here runs on both loops: Windows has asyncio's only."""
    if request.param == "asyncio":
        monkeypatch.setattr(_bridge, "new_loop", asyncio.new_event_loop)
    else:
        pytest.importorskip("uvloop")


def test_a_message_is_put_leased_and_settled(peer: Peer) -> None:
    peer.put_bodies("q", b"one")
    delivery = peer.take("q")
    assert delivery.message.body == b"one"
    assert peer.ack(delivery)
    assert peer.size("q").done_total == 1


def test_a_parked_lease_does_not_block_a_settle_behind_it(peer: Peer) -> None:
    peer.put_bodies("q", b"one")
    delivery = peer.take("q")
    parked = peer.start_lease("another")
    assert peer.ack(delivery)
    assert not parked.is_answered


def test_an_answer_that_nobody_waits_for_comes_with_the_next_one_or_by_itself(place: Place, server: SocketServer) -> None:
    came: list[list[int]] = []
    remote = place.remote(server.url)
    port = remote.attach(
        events.Attach("0" * 32), lambda replies: came.append([getattr(reply, "rid", 0) for reply in replies])
    )

    def has_come(*rids: int) -> bool:
        port.wait(Waiter(), 0.01)  # nobody else reads meanwhile
        return [rid for batch in came for rid in batch] == list(rids)

    port.send([events.Put(-1, "q", 1, 1, [message(b"one")]), events.Ping(2)])
    eventually(lambda: has_come(-1, 2), "both answers came")
    assert came == [[-1, 2]]
    port.send([events.Put(-3, "q", 2, 2, [message(b"two")])])
    eventually(lambda: has_come(-1, 2, -3), "the answer came alone")


def test_a_put_wakes_a_lease_that_waits_on_another_connection(peer: Peer, make_peer: Callable[[], Peer]) -> None:
    waiting = peer.start_lease("q")
    make_peer().put_bodies("q", b"for you")
    assert [d.message.body for d in waiting.expect(events.Granted).deliveries] == [b"for you"]


def test_a_put_in_the_servers_own_process_wakes_a_remote_lease(place: Place) -> None:
    engine = place.engine()
    server = place.serve(engine)
    waiting = place.peer(server.url).start_lease("q")
    Peer(engine).put_bodies("q", b"from the master")
    assert [d.message.body for d in waiting.expect(events.Granted).deliveries] == [b"from the master"]


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_537, 1_000_003, 20_000_000])
def test_a_body_of_any_size_comes_back_as_it_was(peer: Peer, size: int) -> None:
    body = (bytes(range(251)) * (size // 251 + 1))[:size]
    peer.put("q", message(body))
    assert peer.take("q").message.body == body


def test_many_large_bodies_at_once_travel_both_ways(peer: Peer, make_peer: Callable[[], Peer]) -> None:
    bodies = [bytes([i]) * 3_000_000 for i in range(12)]
    puts = [peer.start(peer.put_request("q", message(body))) for body in bodies]
    other = make_peer()
    taken = [other.take("q").message.body for _ in bodies]
    for put in puts:
        put.expect(events.Done)
    assert taken == bodies


def test_a_body_over_the_limit_is_refused_at_the_sender_and_the_session_goes_on(place: Place) -> None:
    place.limits = place.limits.__class__(max_body_bytes=100_000)
    peer = place.peer(place.serve().url)
    with pytest.raises(PayloadTooLarge, match="100001"):
        peer.put("q", message(bytes(100_001)))
    peer.put("q", message(bytes(100_000)))


def test_many_threads_share_one_port_and_each_gets_its_own_answers(peer: Peer) -> None:
    wrong: list[object] = []

    def work(name: str) -> None:
        try:
            for i in range(150):
                body = f"{name} {i}".encode()
                peer.put(name, message(body))
                delivery = peer.take(name)
                if delivery.message.body != body or not peer.ack(delivery):
                    wrong.append((name, i, delivery))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(f"queue {n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert sum(stats.done_total for stats in peer.stats().queues) == 8 * 150


def test_a_thread_that_waits_is_answered_while_others_wait_longer(peer: Peer, make_peer: Callable[[], Peer]) -> None:
    """The leader leaves with its answer; a follower must take over the reading, not wait for the next heartbeat."""
    pending = [peer.start_lease(f"q{n}") for n in range(4)]
    answers: list[events.Reply] = []

    def wait_for(one: Pending) -> None:
        answers.append(one.answer())

    threads = [threading.Thread(target=wait_for, args=(one,)) for one in pending]
    for thread in threads:
        thread.start()
    other = make_peer()
    for n in range(4):
        other.put_bodies(f"q{n}", b"x")
        expected = n + 1
        eventually(lambda: len(answers) >= expected, f"answer {n}", within_s=4.0)  # noqa: B023 - called in this round
    for thread in threads:
        thread.join(5)


def test_gathered_requests_are_sent_though_nobody_waits(peer: Peer, make_peer: Callable[[], Peer]) -> None:
    other = make_peer()
    for n in range(300):
        peer.port.send([events.Put(1000 + n, "q", n + 1, 0, [message(b"x")])], may_gather=True)
    eventually(lambda: other.size("q").ready == 300, "all gathered puts arrive")


def test_a_cut_connection_gives_its_leases_back_when_it_does_not_resume(place: Place) -> None:
    place.limits = place.limits.__class__(resume_s=0.05)
    server = place.serve()
    first, second = place.peer(server.url), place.peer(server.url)
    first.put_bodies("q", b"x")
    first.take("q")
    first.cut()
    again = second.take("q")
    assert again.attempt == 2


def test_a_goodbye_arrives_though_the_connection_closes_behind_it(place: Place) -> None:
    server = place.serve()
    first, second = place.peer(server.url), place.peer(server.url)
    first.put_bodies("q", b"x")
    first.take("q")
    first.goodbye()
    assert second.take("q").message.body == b"x"  # resume_s is 30: only the goodbye can have freed it


def test_an_orderly_stop_tells_every_client_and_settles_nothing(place: Place) -> None:
    engine = place.engine()
    server = place.serve(engine)
    peers = [place.peer(server.url) for _ in range(3)]
    peers[0].put_bodies("q", b"x")
    peers[0].take("q")
    server.stop("it is late")
    eventually(lambda: all(p.closings and p.closings[0].reason == "it is late" for p in peers), "Closing at every client")
    assert Peer(engine).size("q").leased == 1


def test_a_detached_port_says_so(peer: Peer) -> None:
    peer.goodbye()
    with pytest.raises(ServerUnavailable, match="closed in this program"):
        peer.ping()


def test_a_second_attach_of_a_session_ends_its_first_connection(place: Place, server: SocketServer) -> None:
    first = place.peer(server.url)
    first.put_bodies("q", b"x")
    delivery = first.take("q")
    eventually(lambda: server.connections == 1, "one connection")
    # The first client reconnects by itself and would take the session back, so it is ended in this program first.
    first.cut()
    second = Peer(place.remote(server.url), session=first.session, held=[delivery.token])
    assert second.port.attached.is_resumed
    assert second.ack(delivery)
    eventually(lambda: server.connections == 1, "the first connection is closed")


def test_what_other_threads_write_through_never_mixes_with_what_the_loop_writes(place: Place) -> None:
    """The master's threads put small and large bodies while the same connection's own requests are answered."""
    engine = place.engine()
    remote = place.peer(place.serve(engine).url)

    def put_all(queue: str) -> None:
        master = Peer(engine)
        for n in range(60):
            master.put(queue, message(bytes([n]) * (200_000 if n % 10 == 9 else 50)))

    threads = [threading.Thread(target=put_all, args=(queue,)) for queue in ("a", "b")]
    for thread in threads:
        thread.start()
    for n in range(60):
        for queue in ("a", "b"):
            waiting = remote.start_lease(queue)
            remote.ping()
            (delivery,) = waiting.expect(events.Granted).deliveries
            assert set(delivery.message.body) == {n}
            assert remote.ack(delivery)
    for thread in threads:
        thread.join(10)
