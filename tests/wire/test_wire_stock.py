"""The server's end of a standard-library connection, driven by hand: handshake, framing, hostile bytes."""

from __future__ import annotations

import contextlib
import hmac
import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_talk import RANDOM, new_server, pour

from manyhands.errors import AuthenticationFailed, ProtocolError
from manyhands.wire.handshake import message
from manyhands.wire.server import PeerIsStock
from manyhands.wire.stock import Answer, Body, Opened, StockWire
from manyhands.wire.stock_frames import StockFrames, header

RAW = b"a key that both sides have"
LIMIT = 1_000_000
RANDOM_20, RANDOM_40 = bytes(range(20)), bytes(range(60, 100))


def new_wire(dialect: str = "sha256") -> StockWire:
    return StockWire(raw_key=RAW, dialect=dialect, limit_bytes=LIMIT)


def opened(dialect: str = "sha256") -> StockWire:
    wire = new_wire(dialect)
    pour(wire, message(b"#CHALLENGE#{sha256}" + RANDOM_40) + message(b"#WELCOME#"))
    assert wire.is_open
    return wire


def mac(text: bytes, name: str) -> bytes:
    return hmac.new(RAW, text, name).digest()


# (how the client answers our challenge, what it sends as its own, how it must be answered): 3.8 to 3.11; 3.12 on; some
# distributions' 3.9 to 3.11 with raw SHA-256; others that ship 3.12's code in 3.10.
CLIENTS = {
    "3.8 to 3.11": (lambda c: mac(c, "md5"), RANDOM_20, lambda c: mac(c, "md5")),
    "3.12 and later": (
        lambda c: b"{sha256}" + mac(c, "sha256"),
        b"{sha256}" + RANDOM_40,
        lambda c: b"{sha256}" + mac(c, "sha256"),
    ),
    "Red Hat": (lambda c: mac(c, "sha256"), RANDOM_20, lambda c: mac(c, "sha256")),
    "SHA-384": (lambda c: b"{sha384}" + mac(c, "sha384"), b"{sha384}" + RANDOM_40, lambda c: b"{sha384}" + mac(c, "sha384")),
    "SHA3": (
        lambda c: b"{sha3_256}" + mac(c, "sha3_256"),
        b"{sha3_256}" + RANDOM_40,
        lambda c: b"{sha3_256}" + mac(c, "sha3_256"),
    ),
    "3.12 that chose MD5": (
        lambda c: b"{md5}" + mac(c, "md5"),
        b"{md5}" + RANDOM_40,
        lambda c: b"{md5}" + mac(c, "md5"),
    ),
}


@pytest.mark.parametrize(("digest", "challenge", "expected"), CLIENTS.values(), ids=CLIENTS.keys())
def test_each_dialect_is_welcomed_and_answered_in_its_own(digest, challenge: bytes, expected) -> None:  # type: ignore[no-untyped-def]
    server = new_server()
    ours = server.greeting()[4 + len(b"#CHALLENGE#") :]
    (peer,) = pour(server, message(digest(ours)))
    assert isinstance(peer, PeerIsStock)
    assert peer.is_key_right
    wire = new_wire(peer.dialect)
    assert wire.greeting() == message(b"#WELCOME#")
    assert pour(wire, message(b"#CHALLENGE#" + challenge)) == [Answer(message(expected(challenge)))]
    assert pour(wire, message(b"#WELCOME#")) == [Opened()]
    assert pour(wire, header(3) + b"abc") == [Body(b"abc")]


@pytest.mark.parametrize("dialect", ["sha256", "raw sha256", "sha384", "sha3_256", "sha3_384"])
def test_md5_is_answered_to_none_but_those_who_answered_in_it(dialect: str) -> None:
    with pytest.raises(ProtocolError, match="MD5"):
        pour(new_wire(dialect), message(b"#CHALLENGE#{md5}" + RANDOM_40))


def test_a_prefixed_dialect_does_not_get_an_answer_without_prefix() -> None:
    with pytest.raises(ProtocolError, match="MD5"):
        pour(new_wire("sha256"), message(b"#CHALLENGE#" + RANDOM_20))


def test_a_challenge_of_ours_that_comes_back_is_not_answered() -> None:
    other = new_server(random=bytes(40))
    for greeting in (other.greeting(), new_server().greeting()):
        wire = new_wire()
        with pytest.raises(AuthenticationFailed, match="not answered"):
            pour(wire, greeting)
        assert not wire.is_open


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"#CHALLENGE#",
        b"#CHALLENGE#" + bytes(19),
        b"#CHALLENGE#" + bytes(21),
        b"#CHALLENGE#{sha256}" + bytes(19),
        b"#CHALLENGE#{sha1}" + RANDOM_40,
        b"#CHALLENGE#{",
        b"#WELCOME#",
        b"#FAILURE#",
        b"{sha256}" + RANDOM,
    ],
)
def test_what_is_no_challenge_of_the_standard_library_is_not_answered(body: bytes) -> None:
    wire = new_wire()
    with pytest.raises(ProtocolError):
        pour(wire, message(body))
    assert not wire.is_open


def test_a_client_that_does_not_take_our_answer_is_not_served() -> None:
    wire = new_wire()
    pour(wire, message(b"#CHALLENGE#{sha256}" + RANDOM_40))
    with pytest.raises(AuthenticationFailed, match="did not take"):
        pour(wire, message(b"#FAILURE#"))


@pytest.mark.parametrize("size", [257, 2**31 - 1, -1, -2, -(2**31)])
def test_before_the_handshake_is_over_no_length_beyond_256_is_taken(size: int) -> None:
    with pytest.raises(ProtocolError, match="handshake message"):
        pour(new_wire(), struct.pack("!i", size))


@pytest.mark.parametrize(
    "start",
    [
        struct.pack("!i", -2),
        struct.pack("!i", -(2**31)),
        struct.pack("!i", LIMIT + 1),
        struct.pack("!iQ", -1, LIMIT + 1),
        struct.pack("!iQ", -1, 2**62),
        struct.pack("!iQ", -1, 2**64 - 1),
    ],
)
def test_a_negative_or_oversize_length_is_refused_from_the_header(start: bytes) -> None:
    with pytest.raises(ProtocolError, match="announced a message"):
        pour(opened(), start)


def test_the_long_form_of_a_length_is_taken_for_small_bodies_too() -> None:
    assert pour(opened(), struct.pack("!iQ", -1, 5) + b"small" + header(0)) == [Body(b"small"), Body(b"")]


def test_memory_is_claimed_as_it_arrives_and_not_as_it_is_announced() -> None:
    frames = StockFrames(2**40, bytearray(1000))
    tracemalloc.start()
    try:
        frames.feed(header(2**39) + bytes(20_000))
        frames.feed(bytes(5_000))
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_large_body_is_read_into_its_own_memory_in_pieces() -> None:
    frames = StockFrames(10_000_000)
    body = bytes(range(256)) * 12_000
    found = frames.feed(header(len(body)) + body + header(1) + b"x")
    assert found == [body, b"x"]
    assert not frames.is_midway


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=60_000), max_size=5), st.lists(st.integers(1, 40_000), max_size=8), st.booleans())
def test_bodies_arrive_whole_however_the_bytes_are_cut(bodies: list[bytes], cuts: list[int], is_long: bool) -> None:
    """Invariant: what comes out depends on the bytes and not on the reads that brought them."""
    data = b"".join((struct.pack("!iQ", -1, len(body)) if is_long else header(len(body))) + body for body in bodies)
    frames, found = StockFrames(LIMIT, bytearray(4096)), []
    for cut in [*cuts, len(data)]:
        found += frames.feed(data[:cut])
        data = data[cut:]
    assert found == bodies
    assert not frames.is_midway


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=400), st.binary(max_size=120).map(message)))
def test_garbage_raises_nothing_else(garbage: bytes) -> None:
    for wire in (new_wire(), opened()):
        with contextlib.suppress(ProtocolError, AuthenticationFailed):
            pour(wire, garbage)
