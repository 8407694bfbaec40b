"""The bytes of the handshake: building and reading its messages. Pure functions; who sends what when is in server.py and
client.py, every byte is in docs/protocol.md.

Each message has the standard library's framing (`!i` length, then the body) and at most MAX_MESSAGE_BYTES, because the
server speaks first and cannot know whether a native or a standard-library client listens. What is ours in the challenge
stands behind its random part, where a standard-library client includes it in its digest without looking at it.
"""

from __future__ import annotations

import hashlib
import hmac
from struct import Struct
from typing import NamedTuple

from manyhands.errors import AuthenticationFailed, ProtocolError

VERSION = 1
"""The only version so far. A side that shares no version with its peer refuses, with FAILURE "version"."""

LENGTH = Struct("!i")
MAX_MESSAGE_BYTES = 256
RANDOM_BYTES = 40
NONCE_BYTES = 32

CHALLENGE, HELLO, AUTH, WELCOME, FAILURE = b"#CHALLENGE#", b"#MANYHANDS#", b"#AUTH#", b"#WELCOME#", b"#FAILURE#"
DIGEST_NAME = b"{sha256}"
ADVERT = b"MH"
OFFERS_TLS, REQUIRES_TLS = 1, 2
"""Flags of the advert. With OFFERS_TLS the SHA-256 of the certificate follows."""
WANTS_TLS = 1
"""Flag of the hello: TLS starts right behind it, in the same connection."""

_ADVERT = Struct("!2sBBB")


class Challenge(NamedTuple):
    """A server's first message, read by a client."""

    body: bytes
    """All of it: what both proofs are computed over."""
    is_native: bool
    oldest: int = 0
    newest: int = 0
    flags: int = 0
    certificate_hash: bytes = b""


class MessageReader:
    """Cuts the handshake's length-prefixed messages out of what arrives; refuses an oversize one from its prefix."""

    def __init__(self) -> None:
        self._buffer = bytearray(LENGTH.size + MAX_MESSAGE_BYTES)
        self._end = 0

    def get_buffer(self) -> memoryview:
        return memoryview(self._buffer)[self._end :]

    def buffer_updated(self, n: int) -> None:
        self._end += n

    @property
    def arrived(self) -> bytes:
        """What arrived and is not taken yet."""
        return bytes(self._buffer[: self._end])

    def take(self) -> bytes | None:
        """The next message's body, or None while it is not complete.

        Raises:
            ProtocolError: its length is negative or over MAX_MESSAGE_BYTES; `guess` may tell what it is instead.
        """
        if self._end < LENGTH.size:
            return None
        (size,) = LENGTH.unpack_from(self._buffer)
        if not 0 <= size <= MAX_MESSAGE_BYTES:
            raise ProtocolError(
                f"it announced a handshake message of {size} bytes, and they have at most {MAX_MESSAGE_BYTES}"
            )
        stop = LENGTH.size + size
        if self._end < stop:
            return None
        body = bytes(self._buffer[LENGTH.size : stop])
        self._buffer[: self._end - stop] = self._buffer[stop : self._end]
        self._end -= stop
        return body


def message(body: bytes) -> bytes:
    """One handshake message with its length in front."""
    return LENGTH.pack(len(body)) + body


def guess(data: bytes) -> str:
    """What the first bytes of something that is not this handshake look like, for a sentence; "" when unknown."""
    if data[:1] == b"\x16" and data[1:2] in (b"", b"\x03"):
        return "TLS"
    if data.startswith((b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"CONN", b"PRI ", b"DELE", b"HTTP")):
        return "HTTP"
    if data.startswith(b"SSH-"):
        return "SSH"
    return ""


# -- the challenge ---------------------------------------------------------------------------------------------------


def build_challenge(random: bytes, *, flags: int = 0, certificate_hash: bytes = b"") -> bytes:
    """The server's first message: the standard library's challenge with our advert behind its random part.

    Args:
        random: RANDOM_BYTES from a cryptographic source, never used twice.
    """
    if len(random) != RANDOM_BYTES:
        raise ValueError(f"a challenge needs {RANDOM_BYTES} random bytes")
    return CHALLENGE + DIGEST_NAME + random + _ADVERT.pack(ADVERT, VERSION, VERSION, flags) + certificate_hash


def read_challenge(body: bytes) -> Challenge:
    """A server's first message.

    Raises:
        ProtocolError: it is no challenge, or an advert with flags that this version does not know.
    """
    if not body.startswith(CHALLENGE):
        raise ProtocolError("its first message is not a challenge")
    advert = body[len(CHALLENGE) + len(DIGEST_NAME) + RANDOM_BYTES :]
    if not advert.startswith(ADVERT) or len(advert) < _ADVERT.size:
        return Challenge(body, is_native=False)
    _, oldest, newest, flags = _ADVERT.unpack_from(advert)
    certificate_hash = advert[_ADVERT.size :]
    if not oldest <= VERSION <= newest:
        return Challenge(body, is_native=True, oldest=oldest, newest=newest)  # its flags may mean anything
    if flags & ~(OFFERS_TLS | REQUIRES_TLS) or len(certificate_hash) != (32 if flags & OFFERS_TLS else 0):
        raise ProtocolError("its advert has flags or fields that this version of manyhands does not know")
    return Challenge(body, is_native=True, oldest=oldest, newest=newest, flags=flags, certificate_hash=certificate_hash)


# -- the native answer ------------------------------------------------------------------------------------------------


def build_hello(nonce: bytes, *, flags: int = 0) -> bytes:
    """A native client's first message. 45 bytes and a `#` in front: no digest of the standard library looks like it."""
    if len(nonce) != NONCE_BYTES:
        raise ValueError(f"a hello needs {NONCE_BYTES} random bytes")
    return HELLO + bytes((VERSION, flags)) + nonce


def build_auth(key_id: bytes, proof: bytes) -> bytes:
    return AUTH + key_id + proof


def build_failure(reason: str) -> bytes:
    return FAILURE + reason.encode("ascii")


def failure(body: bytes, where: str) -> AuthenticationFailed | ProtocolError:
    """What a server's FAILURE means, as the error to raise at the client."""
    reason = body[len(FAILURE) :].decode("ascii", "replace")
    match reason:
        case "" | "key":
            return AuthenticationFailed(
                f"The server at {where} has another authkey than this program; use the same on both sides."
            )
        case "version":
            return ProtocolError(
                f"The server at {where} does not speak version {VERSION} of the protocol; "
                "install the same manyhands on both sides."
            )
        case "tls_not_offered":
            return ProtocolError(f"The server at {where} does not offer TLS; start it with tls=, or connect without.")
        case "tls_required":
            return ProtocolError(f"The server at {where} takes connections with TLS only; connect with a tls:// address.")
        case _:
            return ProtocolError(f"The server at {where} refused the connection, giving the reason {reason!r}.")


# -- the standard library's answer ------------------------------------------------------------------------------------

PREFIXED = {
    b"{md5}": "md5",
    b"{sha256}": "sha256",
    b"{sha384}": "sha384",
    b"{sha3_256}": "sha3_256",
    b"{sha3_384}": "sha3_384",
}


def stock_dialect(body: bytes) -> str | None:
    """Which standard-library dialect this answer to a challenge is: a digest's name, "raw md5" (up to 3.11), "raw sha256"
    (some distributions' 3.9 to 3.11), or None when it is none."""
    if len(body) == 16:
        return "raw md5"
    if len(body) == 32:
        return "raw sha256"
    if not body.startswith(b"{"):
        return None
    return PREFIXED.get(body[: body.find(b"}") + 1])


def is_right_stock_digest(body: bytes, dialect: str, challenge: bytes, raw_key: bytes) -> bool:
    """Whether a standard-library client's digest over our challenge was made with the key."""
    name = dialect.removeprefix("raw ")
    digest = body if dialect.startswith("raw ") else body[len(name) + 2 :]
    try:
        expected = hmac.new(raw_key, challenge[len(CHALLENGE) :], getattr(hashlib, name)).digest()
    except ValueError:  # md5 on a machine in FIPS mode
        return False
    return hmac.compare_digest(digest, expected)
