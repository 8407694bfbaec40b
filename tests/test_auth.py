"""Keys: what is accepted, what is derived, and proofs that fit one connection and one role only."""

from __future__ import annotations

import pytest

from manyhands.auth import NO_CERTIFICATE, Key, Keyring, client_proof, hkdf, is_same, server_proof
from manyhands.errors import UsageError

KEY = Keyring("secret").first
CHALLENGE, HELLO = b"c" * 64, b"h" * 45


def test_str_and_bytes_are_the_same_key() -> None:
    assert Keyring("schlüssel").first.handshake == Keyring("schlüssel".encode()).first.handshake


@pytest.mark.parametrize(
    ("keys", "named"),
    [
        ((), "No authkey"),
        (("",), "empty str"),
        ((b"",), "empty bytes"),
        ((None,), "None was given"),
        ((123,), "type int"),
        ((["secret"],), "type list"),
        (("secret", None), "None was given"),
    ],
)
def test_a_key_that_is_none_is_refused_by_name(keys: tuple[object, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Keyring(*keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [["hunter2"], 98765])
def test_the_sentence_never_shows_the_key(bad: object) -> None:
    with pytest.raises(UsageError) as caught:
        Keyring(bad)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)
    assert "98765" not in str(caught.value)


def test_printing_a_keyring_never_shows_a_key() -> None:
    ring = Keyring("hunter2")
    assert "hunter2" not in repr(ring) + repr(ring.first)


def test_any_key_of_the_ring_is_found_and_the_first_is_used() -> None:
    ring = Keyring("new", "old")
    assert ring.first.id == Keyring("new").first.id
    old = ring.find(Keyring("old").first.id)
    assert old is not None
    assert old.body == Keyring("old").first.body
    assert ring.find(b"\0\0\0\0") is None
    assert ring.raw == b"new"


def test_one_key_gives_different_keys_for_different_purposes() -> None:
    assert len({KEY.handshake, KEY.body, b"secret".ljust(32, b"\0")}) == 3
    assert len(KEY.id) == 4
    assert not KEY.handshake.startswith(KEY.id)


def test_hkdf_is_the_rfcs() -> None:
    # RFC 5869 as `cryptography` computes it, so that other languages need no code of ours.
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    theirs = HKDF(SHA256(), 32, b"manyhands key derivation 1", b"handshake").derive(b"secret")
    assert hkdf(b"secret", b"handshake") == theirs == KEY.handshake


BASE = (KEY, 1, CHALLENGE, HELLO, NO_CERTIFICATE)


@pytest.mark.parametrize(
    "other",
    [
        (Key(b"other"), 1, CHALLENGE, HELLO, NO_CERTIFICATE),
        (KEY, 2, CHALLENGE, HELLO, NO_CERTIFICATE),
        (KEY, 1, CHALLENGE[:-1] + b"x", HELLO, NO_CERTIFICATE),
        (KEY, 1, CHALLENGE, b"x" + HELLO[1:], NO_CERTIFICATE),
        (KEY, 1, CHALLENGE + HELLO[:1], HELLO[1:], NO_CERTIFICATE),
        (KEY, 1, CHALLENGE, HELLO, b"\1" * 32),
    ],
    ids=["key", "version", "challenge", "hello", "a byte moved between them", "certificate"],
)
def test_a_proof_fits_only_what_it_was_made_for(other: tuple[Key, int, bytes, bytes, bytes]) -> None:
    assert not is_same(client_proof(*other), client_proof(*BASE))
    assert is_same(client_proof(*BASE), client_proof(*BASE))


def test_a_clients_proof_is_no_servers_proof() -> None:
    assert client_proof(*BASE) != server_proof(*BASE)
