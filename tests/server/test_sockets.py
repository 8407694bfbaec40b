"""Binding: which addresses, what is said when it cannot be, and what a client can dial."""

from __future__ import annotations

import gc
import os
import socket
import sys

import pytest

from manyhands import _sockets
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import AddressInUse, UsageError
from manyhands.server import SocketServer
from manyhands.testing.contract.peer import eventually

from .conftest import KEYRING, Place


def test_a_taken_port_is_refused_with_its_number(place: Place, server: SocketServer) -> None:
    with pytest.raises(AddressInUse, match=rf"Port {server.address.port} on 127\.0\.0\.1 is in use") as caught:
        place.serve(port=server.address.port)
    assert isinstance(caught.value, OSError)
    assert caught.value.port == server.address.port


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux tells who holds a port")
def test_a_taken_port_names_the_program_that_holds_it(place: Place, server: SocketServer) -> None:
    with pytest.raises(AddressInUse, match=f"by pid {os.getpid()} "):
        place.serve(port=server.address.port)


def test_the_same_port_can_be_had_again_right_after_a_stop(place: Place) -> None:
    server = place.serve()
    peer = place.peer(server.url)
    peer.ping()
    server.stop()  # the server closes first: its side of the connection stays in TIME_WAIT
    assert place.serve(port=server.address.port).address == server.address


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_an_address_beyond_loopback_is_refused_unless_it_is_allowed(host: str) -> None:
    engine = MemoryEngine()
    with pytest.raises(UsageError, match="unencrypted"):
        SocketServer(engine, host=host, port=0, keyring=KEYRING)
    engine.close()


@pytest.mark.parametrize("host", ["", "0.0.0.0", "localhost"])
def test_the_address_can_be_dialled_whatever_it_was_bound_to(place: Place, host: str) -> None:
    server = SocketServer(place.engine(), host=host, port=0, keyring=KEYRING, is_insecure=True)
    place._stack.callback(server.stop)
    server.start()
    place.peer(server.url).ping()


def test_ipv6_loopback_works_where_the_machine_has_it(place: Place) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = SocketServer(place.engine(), host="::1", port=0, keyring=KEYRING)
    place._stack.callback(server.stop)
    server.start()
    assert server.url.startswith("tcp://[::1]:")
    place.peer(server.url).ping()


@pytest.mark.parametrize(("host", "port"), [("no-such-host.invalid", 0), ("192.0.2.1", 0), ("127.0.0.1", 70000)])
def test_an_address_that_cannot_be_is_a_sentence(host: str, port: int) -> None:
    with pytest.raises(UsageError, match=r"\.$"):
        _sockets.listen(host, port)


def test_connections_are_kept_alive_and_not_delayed(place: Place, server: SocketServer) -> None:
    left, right = socket.socketpair()
    left.close()
    right.close()
    with socket.create_connection(server.address) as sock:
        _sockets.tune(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_server_that_was_never_started_lets_go_of_its_port(place: Place) -> None:
    server = SocketServer(place.engine(), port=0, keyring=KEYRING)
    server.stop()
    server.stop()
    assert place.serve(port=server.address.port).address == server.address


def test_a_server_that_is_stopped_as_somebody_connects_leaves_no_socket_open(place: Place) -> None:
    for _ in range(20):
        server = place.serve()
        with socket.create_connection(server.address):
            pass
        server.stop()
    gc.collect()  # an open one would say so here, which is an error in tests


def test_a_server_is_started_only_once(place: Place, server: SocketServer) -> None:
    # Two loops would share the listener, and what the one accepts the other's calls do not wake: a session that attached
    # is never read from again.
    for again in (server.start, server.run):
        with pytest.raises(UsageError, match="was started before"):
            again()
    for _ in range(10):
        place.peer(server.url).ping()


def test_a_server_leaves_no_thread_and_no_descriptor_behind(place: Place) -> None:
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("only Linux lists descriptors")
    place.serve().stop()  # whatever is made once is made
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        server = place.serve()
        peer = place.peer(server.url)
        peer.ping()
        peer.goodbye()
        server.stop()
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= before, "the descriptors are closed")
