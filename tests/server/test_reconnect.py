"""Connections that are cut, frozen or restarted under a client: nothing is lost, nothing is done twice."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from manyhands import events
from manyhands.auth import Keyring
from manyhands.engines.base import Waiter
from manyhands.engines.remote import RemoteEngine
from manyhands.engines.remote.transport import Transport
from manyhands.errors import AuthenticationFailed, ProtocolError, ServerUnavailable, SessionTaken, UsageError
from manyhands.model import Limits
from manyhands.testing.contract.peer import PATIENCE_S, Peer, eventually, message
from manyhands.testing.proxy import CuttingProxy
from manyhands.wire.client import ClientWire

from .conftest import Place

pytestmark = pytest.mark.faults


def test_a_session_resumes_after_a_cut_and_keeps_its_lease(place: Place) -> None:
    server = place.serve()
    with CuttingProxy(server.address) as proxy:
        peer = place.peer(proxy.url)
        peer.put_bodies("q", b"x")
        delivery = peer.take("q")
        proxy.drop_all()
        assert peer.ack(delivery)
        assert delivery.attempt == 1
        assert proxy.accepted == 2
        peer.cut()


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("n_bytes", [1, 3, 7, 8, 9, 40, 90])
def test_a_put_whose_exchange_is_cut_at_any_byte_is_there_once(place: Place, direction: str, n_bytes: int) -> None:
    server = place.serve()
    with CuttingProxy(server.address) as proxy:
        peer = place.peer(proxy.url)
        proxy.cut_after(n_bytes, "up" if direction == "up" else "down")
        for n in range(10):
            peer.put("q", message(b"%d" % n, id=f"id{n}"))
        ready = place.peer(server.url)
        assert [m.id for m in ready.peek("q", 100)] == [f"id{n}" for n in range(10)]
        peer.cut()


def test_a_parked_lease_is_answered_after_a_cut_though_nobody_asks_again(place: Place) -> None:
    server = place.serve()
    with CuttingProxy(server.address) as proxy:
        peer, other = place.peer(proxy.url), place.peer(server.url)
        parked = peer.start_lease("q")
        proxy.drop_all()
        eventually(lambda: proxy.accepted == 2, "a second connection")
        other.put_bodies("q", b"late")
        assert [d.message.body for d in parked.expect(events.Granted).deliveries] == [b"late"]
        peer.cut()


def test_a_client_goes_on_when_its_server_comes_back_empty(place: Place) -> None:
    """A memory engine forgets its sessions: leases are reported lost, unanswered requests are applied anew."""
    server = place.serve()
    peer = place.peer(server.url)
    peer.put_bodies("q", b"old")
    delivery = peer.take("q")
    parked = peer.start_lease("other")
    port = server.address.port
    server.stop()
    place.serve(place.engine(), port)
    assert not peer.ack(delivery)
    peer.put_bodies("other", b"new")
    assert [d.message.body for d in parked.expect(events.Granted).deliveries] == [b"new"]
    assert not peer.port.attached.is_resumed


def test_puts_of_many_threads_survive_a_connection_that_is_cut_again_and_again(place: Place) -> None:
    server = place.serve()
    with CuttingProxy(server.address) as proxy:
        peer = place.peer(proxy.url)

        def put_all(queue: str) -> None:
            for n in range(100):
                if n % 25 == 10:
                    proxy.drop_all()
                peer.put(queue, message(b"x", id=f"{queue}-{n}"))

        threads = [threading.Thread(target=put_all, args=(f"q{t}",)) for t in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        other = place.peer(server.url)
        for t in range(4):
            assert [m.id for m in other.peek(f"q{t}", 1000)] == [f"q{t}-{n}" for n in range(100)]
        assert proxy.accepted > 2
        peer.cut()


def test_a_wait_ends_on_time_though_the_server_is_frozen(place: Place) -> None:
    server = place.serve()
    with CuttingProxy(server.address) as proxy:
        peer = place.peer(proxy.url)
        proxy.stall()
        pending = peer.start(events.Ping(0))
        started = time.monotonic()
        assert not peer.port.wait(pending.waiter, 0.1)
        assert time.monotonic() - started < 5
        proxy.resume()
        pending.expect(events.Pong)
        peer.cut()


def test_a_silent_connection_counts_as_lost_after_three_heartbeats(place: Place) -> None:
    place.limits = Limits(heartbeat_s=0.1, resume_s=30.0)
    server = place.serve()
    with CuttingProxy(server.address) as frozen, CuttingProxy(server.address) as healthy:
        # One address that first leads to a connection without a sound, later to one that works.
        front = CuttingProxy(frozen.address)
        with front:
            peer = place.peer(front.url)
            peer.put_bodies("q", b"x")
            delivery = peer.take("q")
            frozen.stall()
            front.retarget(healthy.address)
            assert peer.ack(delivery)
            assert front.accepted == 2
            peer.cut()


def test_an_idle_client_answers_heartbeats_and_stays_connected(place: Place) -> None:
    place.limits = Limits(heartbeat_s=0.05, lease_s=0.3)
    peer = place.peer(place.serve().url)
    peer.put_bodies("q", b"x")
    delivery = peer.take("q")
    never = threading.Event()
    never.wait(0.8)  # the program computes; the lease would have ended twice
    assert peer.ack(delivery)


def test_connecting_waits_for_a_server_that_is_started_later(place: Place) -> None:
    port = place.serve().address.port
    place._stack.pop_all().close()
    found: list[Peer] = []
    thread = threading.Thread(target=lambda: found.append(place.peer(f"tcp://127.0.0.1:{port}")))
    thread.start()
    place.serve(port=port)
    thread.join(15)
    found[0].ping()


def test_nobody_there_is_said_with_what_to_check(place: Place) -> None:
    port = place.serve().address.port
    place._stack.pop_all().close()
    with pytest.raises(ServerUnavailable, match=rf"127\.0\.0\.1:{port}.*refused.*started"):
        Peer(place.remote(f"tcp://127.0.0.1:{port}", connect_timeout_s=0.2))


def test_an_unknown_host_is_said_at_once(place: Place) -> None:
    with pytest.raises(ServerUnavailable, match=r"no-such-host\.invalid"):
        Peer(place.remote("tcp://no-such-host.invalid:1", connect_timeout_s=20.0))


def test_a_waiting_thread_can_be_interrupted_and_the_port_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C arrives as an exception out of the wait; here it is raised where the thread would sit in poll."""
    peer = place.peer(place.serve().url)
    real = Transport.wait
    ran_in = threading.get_ident()

    def interrupted(self: Transport, timeout_s: float | None, **how: bool) -> bool:
        if threading.get_ident() == ran_in:
            raise KeyboardInterrupt
        return real(self, timeout_s, **how)

    parked = peer.start_lease("q")
    monkeypatch.setattr(Transport, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        peer.port.wait(parked.waiter, 5)
    monkeypatch.undo()
    peer.put_bodies("q", b"x")
    assert len(parked.expect(events.Granted).deliveries) == 1


def test_an_interrupt_between_reading_and_understanding_costs_a_connection_and_nothing_else(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = place.serve()
    peer = place.peer(server.url)
    real = ClientWire.received
    ran_in = threading.get_ident()

    def interrupted(self: ClientWire, n: int, now: float) -> list[events.Reply]:
        if threading.get_ident() == ran_in:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return real(self, n, now)

    put = peer.start(peer.put_request("q", message(b"x")))
    monkeypatch.setattr(ClientWire, "received", interrupted)
    with pytest.raises(KeyboardInterrupt):
        put.answer()
    put.expect(events.Done)
    assert peer.size("q").put_total == 1


def test_a_wait_of_zero_is_a_look(peer: Peer) -> None:
    assert not peer.port.wait(Waiter(), 0.0)
    pending = peer.start(events.Ping(0))
    eventually(lambda: peer.port.wait(pending.waiter, 0.0), "the answer is seen by looking")


def test_the_wrong_key_is_said_at_once(place: Place) -> None:
    server = place.serve()
    with pytest.raises(AuthenticationFailed, match="another authkey"):
        Peer(RemoteEngine(server.url, Keyring("not the key"), connect_timeout_s=30.0))


def test_a_server_that_is_no_manyhands_server_is_said_at_once(place: Place) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            sock, _ = listener.accept()
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            sock.recv(1)
            sock.close()

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ProtocolError, match=r"not a manyhands server.*HTTP"):
            Peer(place.remote(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        thread.join(5)


def test_a_closed_engine_opens_no_more_sessions(place: Place) -> None:
    remote = place.remote(place.serve().url)
    peer = Peer(remote)
    remote.close(closing_reason="done")
    assert peer.closings == [events.Closing("done")]
    with pytest.raises(UsageError):
        Peer(remote)


def test_another_thread_can_end_the_wait_of_the_one_that_reads(peer: Peer) -> None:
    waiter, outcome = Waiter(), list[bool]()
    thread = threading.Thread(target=lambda: outcome.append(peer.port.wait(waiter, PATIENCE_S * 2)))
    thread.start()
    eventually(lambda: waiter.wake is not None, "the thread reads the socket")
    waiter.set()
    thread.join(PATIENCE_S)
    assert outcome == [True]


def test_a_nudge_makes_a_wait_return_early_whether_it_leads_or_follows(peer: Peer) -> None:
    waiters, outcome = [Waiter(), Waiter()], list[bool]()
    threads = [threading.Thread(target=lambda w=w: outcome.append(peer.port.wait(w, PATIENCE_S * 2))) for w in waiters]
    for thread in threads:
        thread.start()
    eventually(lambda: any(w.wake is not None for w in waiters), "one leads")
    for waiter in waiters:
        waiter.nudge()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert outcome == [False, False]
    peer.ping()


def test_of_two_programs_with_one_session_the_one_that_came_first_ends_with_an_error(place: Place) -> None:
    server = place.serve()
    first = place.peer(server.url)
    parked = first.start_lease("q")
    second = Peer(place.remote(server.url), session=first.session, held=[])
    assert not first.port.wait(parked.waiter, PATIENCE_S)
    with pytest.raises(SessionTaken, match=r"Another program uses.*connect anew\.$"):
        first.port.send([events.Ping(0)])
    second.ping()
    eventually(lambda: server.connections == 1, "the first one connects no more")


def test_a_connection_that_was_given_up_and_arrives_late_ends_no_session(place: Place) -> None:
    server = place.serve()
    peer = place.peer(server.url)
    late = Peer(place.remote(server.url), session=peer.session, held=[])
    late.cut()
    peer.put_bodies("q", b"x")
    assert peer.size("q").ready == 1
