"""The handshake: who is let in, who is not, and what each side is told."""

from __future__ import annotations

import contextlib
import hmac
import multiprocessing.connection
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire_talk import ATTACHED, KEY, NONCE, RANDOM, all_of, attach, connect, joined, new_client, new_server, pour

from manyhands.auth import Keyring, client_proof
from manyhands.errors import AuthenticationFailed, ProtocolError
from manyhands.events import Attach, Done, Ping
from manyhands.wire import Authenticated, PeerIsStock, handshake
from manyhands.wire.frames import FrameEncoder
from manyhands.wire.handshake import message

OTHER = Keyring("another key")
CHALLENGE = new_server().greeting()[4:]


def failure_text(server: Any) -> bytes:
    return bytes(server.failure[4:])


# -- two honest ends ---------------------------------------------------------------------------------------------------


def test_two_ends_with_the_same_key_meet() -> None:
    client, server = new_client(), new_server()
    (hello,) = connect(client, server)
    assert hello == Attach("s" * 24, "test", None)
    assert (server.is_authenticated, client.is_open) == (True, False)
    assert pour(client, joined(server.encode([ATTACHED])), 0.0) == []
    assert client.is_open
    assert client.attached == ATTACHED


def test_two_ends_meet_when_every_byte_travels_alone() -> None:
    client, server = new_client(), new_server()
    client.connection_made(0.0, NONCE)
    for byte in server.greeting():
        pour(client, bytes([byte]), 0.0)
    events = [event for byte in all_of(client) for event in pour(server, bytes([byte]))]
    assert [type(event) for event in events] == [Authenticated]
    for byte in events[0].reply:
        pour(client, bytes([byte]), 0.0)
    events = [event for byte in all_of(client) for event in pour(server, bytes([byte]))]
    assert events == [Attach("s" * 24, "test", None)]


def test_every_key_of_the_servers_ring_opens_and_the_event_names_it() -> None:
    client, server = new_client(OTHER), new_server(Keyring("a key that both sides have", "another key"))
    client.connection_made(0.0, NONCE)
    pour(client, server.greeting(), 0.0)
    (authenticated,) = pour(server, all_of(client))
    assert authenticated.key_id == OTHER.first.id
    pour(client, authenticated.reply, 0.0)
    assert joined(client.data_to_send())


def test_hello_and_proof_leave_in_one_write() -> None:
    client = new_client()
    client.connection_made(0.0, NONCE)
    pour(client, new_server().greeting(), 0.0)
    assert len(client.data_to_send()) == 1
    assert client.data_to_send() == []


def test_the_challenge_fits_what_a_standard_library_client_takes() -> None:
    assert len(CHALLENGE) <= 256
    respond: Any = getattr(multiprocessing.connection, "_create_response", None)
    assert CHALLENGE.startswith(b"#CHALLENGE#{sha256}" + RANDOM + b"MH")
    if respond is not None:  # 3.12 on: its own code answers our challenge
        (event,) = pour(new_server(), message(respond(KEY.raw, CHALLENGE[11:])))
        assert event.is_key_right


@pytest.mark.parametrize("size", [16, 32])
def test_no_hello_looks_like_a_digest(size: int) -> None:
    hello = handshake.build_hello(NONCE)
    assert len(hello) != size
    assert not hello.startswith(b"{")


# -- the server against others ------------------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_on_both_sides_with_a_sentence() -> None:
    client, server = new_client(OTHER), new_server()
    client.connection_made(0.0, NONCE)
    pour(client, server.greeting(), 0.0)
    with pytest.raises(AuthenticationFailed, match="another authkey than this server"):
        pour(server, all_of(client))
    assert failure_text(server) == b"#FAILURE#key"
    with pytest.raises(AuthenticationFailed, match=r"127\.0\.0\.1:5959 has another authkey"):
        pour(client, server.failure, 0.0)


def auth_message(key: Keyring, hello: bytes, challenge: bytes = CHALLENGE, key_id: bytes | None = None) -> bytes:
    proof = client_proof(key.first, 1, challenge, hello)
    return message(handshake.build_auth(key.first.id if key_id is None else key_id, proof))


HELLO = handshake.build_hello(NONCE)
HELLO_HEAD = b"#MANYHANDS#"


@pytest.mark.parametrize(
    ("sent", "error", "told"),
    [
        (message(HELLO) + auth_message(OTHER, HELLO), AuthenticationFailed, b"#FAILURE#key"),
        (message(HELLO) + auth_message(OTHER, HELLO, key_id=KEY.first.id), AuthenticationFailed, b"#FAILURE#key"),
        (message(HELLO) + auth_message(KEY, HELLO, key_id=b"\0\0\0\0"), AuthenticationFailed, b"#FAILURE#key"),
        (message(HELLO) + auth_message(KEY, HELLO, challenge=CHALLENGE[:-1] + b"\1"), AuthenticationFailed, b"#FAILURE#key"),
        (message(HELLO) + auth_message(KEY, handshake.build_hello(bytes(32))), AuthenticationFailed, b"#FAILURE#key"),
        (message(HELLO_HEAD + b"\2\0" + NONCE), ProtocolError, b"#FAILURE#version"),
        (message(HELLO_HEAD + b"\0\0" + NONCE), ProtocolError, b"#FAILURE#version"),
        (message(HELLO_HEAD), ProtocolError, b"#FAILURE#version"),
        (message(HELLO_HEAD + b"\1\1" + NONCE), ProtocolError, b"#FAILURE#tls_not_offered"),
        (message(HELLO_HEAD + b"\1\2" + NONCE), ProtocolError, b"#FAILURE#hello"),
        (message(HELLO_HEAD + b"\1\0" + NONCE[1:]), ProtocolError, b"#FAILURE#hello"),
        (message(HELLO_HEAD + b"\1\0" + NONCE + b"x"), ProtocolError, b"#FAILURE#hello"),
        (message(HELLO) + message(HELLO), ProtocolError, b""),
        (message(HELLO) + message(b"#AUTH#short"), ProtocolError, b""),
        (auth_message(KEY, HELLO), ProtocolError, b""),
        (message(CHALLENGE), ProtocolError, b""),  # mirrored
        (message(b"{sha1}" + bytes(20)), ProtocolError, b""),
        (message(b"{" + bytes(29) + b"}"), ProtocolError, b""),
        (message(b""), ProtocolError, b""),
        (b"\xff\xff\xff\xff", ProtocolError, b""),
        (b"\x80\0\0\0", ProtocolError, b""),
        (b"\x7f\xff\xff\xff", ProtocolError, b""),
        (b"\0\0\1\1", ProtocolError, b""),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ProtocolError, b""),
        (bytes.fromhex("16030100f1010000ed0303"), ProtocolError, b""),
        (b"SSH-2.0-OpenSSH_9.6\r\n", ProtocolError, b""),
        (b"\n\n\n\n\n\n", ProtocolError, b""),
    ],
)
def test_the_server_refuses(sent: bytes, error: type[Exception], told: bytes) -> None:
    server = new_server()
    with pytest.raises(error):
        pour(server, sent)
    assert failure_text(server) == told
    assert not server.is_authenticated


@pytest.mark.parametrize(
    ("sent", "looks"),
    [(b"POST / HTTP/1.1\r\n", "HTTP"), (bytes.fromhex("16030100f101"), "TLS"), (b"SSH-2.0-x\r\n", "SSH")],
)
def test_the_servers_sentence_names_what_the_peer_looks_like(sent: bytes, looks: str) -> None:
    with pytest.raises(ProtocolError, match=f"it looks like {looks}"):
        pour(new_server(), sent)


def test_a_recorded_handshake_does_not_open_another_connection() -> None:
    client, server = new_client(), new_server()
    client.connection_made(0.0, NONCE)
    pour(client, server.greeting(), 0.0)
    recorded = all_of(client)
    assert isinstance(pour(server, recorded)[0], Authenticated)
    with pytest.raises(AuthenticationFailed):
        pour(new_server(random=bytes(40)), recorded)


@pytest.mark.parametrize("end", range(1, 95))
def test_a_handshake_cut_anywhere_lets_nobody_in(end: int) -> None:
    sent = message(HELLO) + auth_message(KEY, HELLO)
    assert len(sent) == 95
    server = new_server()
    assert pour(server, sent[:end]) == []
    assert not server.is_authenticated


def digest(name: str, key: bytes = KEY.raw) -> bytes:
    return hmac.digest(key, CHALLENGE[11:], name)


@pytest.mark.parametrize(
    ("answer", "dialect", "is_right"),
    [
        (digest("md5"), "raw md5", True),
        (digest("sha256"), "raw sha256", True),
        (b"{sha256}" + digest("sha256"), "sha256", True),
        (b"{md5}" + digest("md5"), "md5", True),
        (b"{sha384}" + digest("sha384"), "sha384", True),
        (b"{sha3_256}" + digest("sha3_256"), "sha3_256", True),
        (b"{sha3_384}" + digest("sha3_384"), "sha3_384", True),
        (digest("md5", b"other"), "raw md5", False),
        (digest("sha256", b"other"), "raw sha256", False),
        (b"{sha256}" + digest("sha256", b"other"), "sha256", False),
        (b"{sha256}", "sha256", False),
    ],
)
def test_a_standard_library_client_is_recognised_and_not_let_in(answer: bytes, dialect: str, is_right: bool) -> None:
    server = new_server()
    (event,) = pour(server, message(answer))
    assert event == PeerIsStock(dialect, is_right, message(b"#FAILURE#"))
    assert not server.is_authenticated


def test_nothing_is_decoded_before_authentication() -> None:
    server = new_server()
    early = joined(FrameEncoder().encode([Attach("s")]))
    with pytest.raises(ProtocolError):
        pour(server, message(HELLO) + early)


def test_attach_comes_first_and_once() -> None:
    server = new_server()
    events = pour(server, message(HELLO) + auth_message(KEY, HELLO))
    assert isinstance(events[0], Authenticated)
    with pytest.raises(ProtocolError, match="Ping before Attach"):
        pour(server, joined(FrameEncoder().encode([Ping(1)])))
    assert b"Ping before Attach" in server.failure

    client, server = new_client(), new_server()
    connect(client, server)
    with pytest.raises(ProtocolError, match="not a list of this protocol's events"):
        pour(server, joined(FrameEncoder().encode([Ping(1), Attach("s")])))

    server = new_server()
    pour(server, message(HELLO) + auth_message(KEY, HELLO))
    with pytest.raises(ProtocolError, match="Attach twice"):
        pour(server, joined(FrameEncoder().encode([Attach("s"), Attach("s")])))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=300),
        st.binary(max_size=120).map(message),
        st.binary(max_size=60).map(lambda b: message(HELLO) + message(b)),
    )
)
def test_garbage_at_the_server_raises_nothing_else(garbage: bytes) -> None:
    server = new_server()
    with contextlib.suppress(ProtocolError, AuthenticationFailed):
        pour(server, garbage)
    assert not server.is_authenticated


# -- the client against others ------------------------------------------------------------------------------------------


def challenge(advert: bytes) -> bytes:
    return message(b"#CHALLENGE#{sha256}" + RANDOM + advert)


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "127.0.0.1:5959, but it is not a manyhands server: it speaks HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "it speaks SSH"),
        (b"220 mail.example ESMTP\r\n", "not a manyhands server"),
        (message(b"hello"), "its first message is not a challenge"),
        (b"\xff\xff\xff\xff", "not a manyhands server"),
        (message(b"#CHALLENGE#" + bytes(20)), "multiprocessing manager of the standard library"),
        (message(b"#CHALLENGE#{sha256}" + RANDOM), "multiprocessing manager of the standard library"),
        (challenge(b"MH\2\3\0"), "speaks versions 2 to 3"),
        (challenge(b"MH\2\3\xff and more"), "speaks versions 2 to 3"),
        (challenge(b"MH\1\1\4"), "does not know"),
        (challenge(b"MH\1\1\0x"), "does not know"),
        (challenge(b"MH\1\1\1" + bytes(31)), "does not know"),
        (challenge(b"MH\1\1\3" + bytes(32)), "TLS only"),
        (challenge(b"MH\1\1\0") + message(b"#WELCOME#"), "could not prove"),
        (challenge(b"MH\1\1\0") + message(b"#WELCOME#" + bytes(32)), "could not prove"),
        (challenge(b"MH\1\1\0") + message(b"#FAILURE#version"), "does not speak version 1"),
        (challenge(b"MH\1\1\0") + message(b"#FAILURE#tls_required"), "with TLS only"),
        (challenge(b"MH\1\1\0") + message(b"#FAILURE#tls_not_offered"), "does not offer TLS"),
        (challenge(b"MH\1\1\0") + message(b"#FAILURE#of a newer kind"), "'of a newer kind'"),
    ],
)
def test_the_client_says_what_answers_there(sent: bytes, sentence: str) -> None:
    client = new_client()
    client.connection_made(0.0, NONCE)
    with pytest.raises(ProtocolError, match=sentence):
        pour(client, sent, 0.0)
    assert not client.is_open


def test_a_server_that_offers_tls_without_insisting_is_usable() -> None:
    client = new_client()
    client.connection_made(0.0, NONCE)
    pour(client, challenge(b"MH\1\2\1" + bytes(32)), 0.0)
    assert all_of(client).startswith(message(HELLO))


def test_a_server_that_sends_the_clients_own_proof_back_is_refused() -> None:
    client = new_client()
    client.connection_made(0.0, NONCE)
    pour(client, new_server().greeting(), 0.0)
    mirrored = all_of(client)[-32:]
    with pytest.raises(ProtocolError, match="could not prove"):
        pour(client, message(b"#WELCOME#" + mirrored), 0.0)


def test_the_session_is_told_to_no_server_that_has_not_proved_itself() -> None:
    client, server = new_client(), new_server()
    client.connection_made(0.0, NONCE)
    pour(client, server.greeting(), 0.0)
    sent = all_of(client)
    assert b"s" * 24 not in sent
    assert client.data_to_send() == []


def test_replies_before_attached_are_refused() -> None:
    client, server = new_client(), new_server()
    connect(client, server)
    with pytest.raises(ProtocolError, match="Done before Attached"):
        pour(client, joined(FrameEncoder().encode([Done(1)])), 0.0)


def test_attached_twice_is_refused() -> None:
    client, server = new_client(), new_server()
    attach(client, server)
    with pytest.raises(ProtocolError, match="Attached twice"):
        pour(client, joined(server.encode([ATTACHED])), 0.0)


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.binary(max_size=120).map(message), st.binary(max_size=60).map(challenge)))
def test_garbage_at_the_client_raises_nothing_else(garbage: bytes) -> None:
    client = new_client()
    client.connection_made(0.0, NONCE)
    with contextlib.suppress(ProtocolError, AuthenticationFailed):
        pour(client, garbage, 0.0)
    assert not client.is_open
