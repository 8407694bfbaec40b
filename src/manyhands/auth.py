"""Who knows the key: key ids, derived keys, and the two proofs of the native handshake. Pure.

One cluster key is never used directly. HKDF-SHA256 (RFC 5869) derives from it a key for the handshake and a key for
signing bodies, so that what proves a connection can never be replayed as a body's signature, and the other way round.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import Any

from manyhands.errors import UsageError

KEY_ID_BYTES = 4
PROOF_BYTES = 32
NO_CERTIFICATE = bytes(32)

_SALT = b"manyhands key derivation 1"
_ROLE_LABELS = {"client": b"manyhands client proof", "server": b"manyhands server proof"}


class Key:
    """One cluster key: its public id and what is derived from it."""

    __slots__ = ("body", "handshake", "id")

    def __init__(self, raw: bytes) -> None:
        self.id = hmac.digest(raw, b"manyhands key id 1", "sha256")[:KEY_ID_BYTES]
        """Travels in the clear; says which key was used and nothing about it."""
        self.handshake = hkdf(raw, b"handshake")
        self.body = hkdf(raw, b"body")

    def __repr__(self) -> str:
        return f"Key(id={self.id.hex()})"


class Keyring:
    """The keys that one side accepts; the first is the one it proves and signs with.

    Args:
        keys: str (as UTF-8) or bytes, as `multiprocessing` wants them; at least one, none of them empty.

    Raises:
        UsageError: no key, an empty one, or one of another type. The sentence never shows the key.
    """

    def __init__(self, *keys: str | bytes) -> None:
        if not keys:
            raise UsageError("No authkey was given; both sides need the same key: pass a str or bytes.")
        raws = [_as_bytes(key) for key in keys]
        self._keys = {key.id: key for key in map(Key, raws)}
        self.first = next(iter(self._keys.values()))
        self.raw = raws[0]
        """The first key as it was given, for the digests of standard-library peers only."""
        self.raws = raws
        """All of them, for the children of this process."""

    def find(self, key_id: bytes) -> Key | None:
        """The key with that id, or None."""
        return self._keys.get(key_id)

    def __iter__(self) -> Iterator[Key]:
        """The keys; the first is the one that signs."""
        return iter(self._keys.values())

    def __repr__(self) -> str:
        return f"Keyring({', '.join(key.id.hex() for key in self._keys.values())})"


def _as_bytes(key: Any) -> bytes:
    if not isinstance(key, str | bytes | bytearray):
        # multiprocessing takes the int 123 and uses 123 NUL bytes as the key.
        raise UsageError(f"The authkey must be str or bytes, but {_name(key)} was given; pass the same text on both sides.")
    raw = key.encode() if isinstance(key, str) else bytes(key)
    if not raw:
        raise UsageError(
            f"The authkey is an empty {type(key).__name__}, which lets anybody in; pass the same key on both sides."
        )
    return raw


def _name(key: object) -> str:
    return "None" if key is None else f"an object of type {type(key).__name__}"


def hkdf(raw: bytes, purpose: bytes) -> bytes:
    """32 bytes for one purpose: HKDF-SHA256 (RFC 5869), extract and one block of expand."""
    return hmac.digest(hmac.digest(_SALT, raw, "sha256"), purpose + b"\x01", "sha256")


def client_proof(key: Key, version: int, challenge: bytes, hello: bytes, certificate_hash: bytes = NO_CERTIFICATE) -> bytes:
    """What a client sends to show that it has the key, for this one handshake.

    Args:
        challenge, hello: the whole messages as they crossed the wire, without their length prefix; each holds its
            sender's random part, so a proof fits no other connection.
        certificate_hash: SHA-256 of the server's TLS certificate, zeros without TLS: whoever relays between two TLS
            connections has two certificates, and the proofs do not match.
    """
    return _proof("client", key, version, challenge, hello, certificate_hash)


def server_proof(key: Key, version: int, challenge: bytes, hello: bytes, certificate_hash: bytes = NO_CERTIFICATE) -> bytes:
    """What a server answers, so that the client knows it too; see `client_proof`."""
    return _proof("server", key, version, challenge, hello, certificate_hash)


def _proof(role: str, key: Key, version: int, challenge: bytes, hello: bytes, certificate_hash: bytes) -> bytes:
    digest = hmac.new(key.handshake, _ROLE_LABELS[role], hashlib.sha256)
    digest.update(bytes((version,)))
    for part in (challenge, hello, certificate_hash):
        digest.update(len(part).to_bytes(2, "big"))  # so that no bytes can move from one part to the next
        digest.update(part)
    return digest.digest()


def is_same(proof: bytes, expected: bytes) -> bool:
    """Compare two proofs in constant time."""
    return hmac.compare_digest(proof, expected)
