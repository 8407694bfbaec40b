"""Seals: a body is signed by whoever made it and checked before anything of it is decoded.

The seal travels beside the body:

    version and algorithm 1 | encoding 1 | key id 4 | [nonce 16, Poly1305 only] | tag 16

The tag covers the encoding, the direction (a message, or a result), the kind, the queue, the message id and the body: a
body cannot be moved to another queue or answer another message. Small bodies take keyed BLAKE2b (0.5 µs). From 64 KiB it
is Poly1305 (ten times as fast per byte), whose key must never sign twice: it is derived from the body key over the same
context and a random nonce, because one id may be sealed twice (a call that ran twice has two results).
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Literal

from manyhands._memory import keep_freed_memory
from manyhands.codec.items import PICKLE, RAW_BYTES, Bytes, decode, encode
from manyhands.errors import SealBroken
from manyhands.model import Message

POLY1305_FROM_BYTES = 64 * 1024

_BLAKE2B, _POLY1305 = 0x11, 0x12  # format version 1 in the high half
_KEY_ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 4, 16, 16
_SMALL_SEAL = 2 + _KEY_ID_BYTES + _TAG_BYTES
LARGE_SEAL_BYTES = _SMALL_SEAL + _NONCE_BYTES

Direction = Literal["message", "result"]
_MESSAGE: Direction = "message"


class Codec:
    """Encodes, seals, verifies and decodes with one set of body keys. Immutable and safe in any thread.

    Args:
        body_keys: (key id of 4 bytes, key of 32 bytes); the first signs, any verifies.
        random_bytes: where nonces come from.
    """

    def __init__(
        self, body_keys: Sequence[tuple[bytes, bytes]], *, random_bytes: Callable[[int], bytes] = os.urandom
    ) -> None:
        if not body_keys:
            raise ValueError("a codec needs at least one body key")
        self._keys = dict(reversed(list(body_keys)))
        self._key_id, self._key = body_keys[0]
        self._put_key = blake2b(b"", digest_size=32, key=self._key, person=b"mh put ids").digest()
        self._random_bytes = random_bytes
        self._signers: dict[tuple[str, int, str, int, bytes], Any] = {}
        """By queue, kind, direction, encoding and key id: keyed states that absorbed what all such bodies share.

        A copy of one costs 0.6 µs less than a new keyed hash. A handful in any program."""
        self._plain: dict[str, Any] = {}
        """By queue: of those, the one for a pickled item under the key that signs. Nearly every body there is."""
        self._plain_prefix = b"\x11%c%b" % (PICKLE, self._key_id)
        self._raw: dict[str, Any] = {}
        """By queue: the same for bytes that were put as they are."""
        self._raw_prefix = b"\x11%c%b" % (RAW_BYTES, self._key_id)
        self._put_signers: dict[str, Any] = {}

    # -- messages --------------------------------------------------------------------------------------------------

    def seal(
        self, queue: str, message_id: str, encoding: int, body: bytes, kind: int = 0, direction: Direction = _MESSAGE
    ) -> bytes:
        """Sign a body; returns the seal that travels beside it."""
        if len(body) < POLY1305_FROM_BYTES:
            if not kind and direction is _MESSAGE:
                if encoding == PICKLE:
                    return self._plain_prefix + _tag(self._plain.get(queue) or self._plain_signer(queue), message_id, body)
                if encoding == RAW_BYTES:
                    return self._raw_prefix + _tag(self._raw.get(queue) or self._raw_signer(queue), message_id, body)
            context = (queue, kind, direction, encoding, self._key_id)
            signer = self._signers.get(context) or self._signer(*context)
            return b"\x11%c%b%b" % (encoding, self._key_id, _tag(signer, message_id, body))
        nonce = self._random_bytes(_NONCE_BYTES)
        tag = self._poly1305(queue, message_id, encoding, body, kind, direction, self._key_id, nonce)
        return b"\x12%c%b%b%b" % (encoding, self._key_id, nonce, tag)

    def verify(
        self, queue: str, message_id: str, seal: bytes, body: Bytes, kind: int = 0, direction: Direction = _MESSAGE
    ) -> int:
        """Check a body against its seal; returns its encoding.

        Raises:
            SealBroken: it was not made by a holder of one of our keys, or not for this place.
        """
        size = len(seal)
        if size == _SMALL_SEAL and seal[0] == _BLAKE2B and len(body) < POLY1305_FROM_BYTES:
            if not kind and direction is _MESSAGE and seal.startswith(self._plain_prefix):
                signer = self._plain.get(queue) or self._plain_signer(queue)
                if hmac.compare_digest(_tag(signer, message_id, body), seal[6:]):
                    return PICKLE
                raise SealBroken(self._why_broken(queue, message_id, seal))
            key_id, encoding = seal[2:6], seal[1]
            if key_id in self._keys:
                context = (queue, kind, direction, encoding, key_id)
                signer = self._signers.get(context) or self._signer(*context)
                if hmac.compare_digest(_tag(signer, message_id, body), seal[6:]):
                    return encoding
        elif size == LARGE_SEAL_BYTES and seal[0] == _POLY1305:
            key_id = seal[2:6]
            if key_id in self._keys:
                encoding = seal[1]
                tag = self._poly1305(queue, message_id, encoding, body, kind, direction, key_id, seal[6:22])
                if hmac.compare_digest(tag, seal[22:]):
                    return encoding
        raise SealBroken(self._why_broken(queue, message_id, seal))

    def open_message(self, queue: str, message: Message) -> Any:
        """Verify a delivered message and rebuild its object.

        Raises:
            SealBroken: see `verify`; nothing was decoded.
            UndecodableBody: see `decode`.
        """
        body = message.body
        return decode(self.verify(queue, message.id, message.seal, body, message.kind), body)

    def make_result(self, queue: str, message_id: str, value: Any, kind: int = 0) -> bytes:
        """What a consumer stores as the result of a message: a seal and, behind it, the body.

        Raises:
            PayloadNotEncodable: it cannot be pickled.
        """
        encoding, body = encode(value)
        return self.seal(queue, message_id, encoding, body, kind, "result") + body

    def open_result(self, queue: str, message_id: str, data: bytes, kind: int = 0) -> Any:
        """Verify a stored result and rebuild its object.

        Raises:
            SealBroken, UndecodableBody: as `open_message`.
        """
        encoding, start = self.verify_result(queue, message_id, data, kind)
        return decode(encoding, data[start:])

    def sealed(self, queue: str, message_id: str, encoding: int, parts: Sequence[Bytes], kind: int) -> bytes:
        """A result that is still in parts, as `make_result` gives one: put together in a single copy."""
        size = sum(map(len, parts))
        if size < POLY1305_FROM_BYTES:
            body = b"".join(parts)
            return self.seal(queue, message_id, encoding, body, kind, "result") + body
        nonce = self._random_bytes(_NONCE_BYTES)
        key = self._poly1305_key(queue, message_id, encoding, kind, "result", self._key_id, nonce)
        return b"".join((b"\x12%c%b%b%b" % (encoding, self._key_id, nonce, _poly1305(key, *parts)), *parts))

    def verify_result(self, queue: str, message_id: str, data: bytes, kind: int = 0) -> tuple[int, int]:
        """Check a stored result against the seal before it; returns its encoding and where its body begins.

        Raises:
            SealBroken: as `verify`.
        """
        size = LARGE_SEAL_BYTES if data[:1] == b"\x12" else _SMALL_SEAL
        return self.verify(queue, message_id, data[:size], memoryview(data)[size:], kind, "result"), size

    def put_id(self, cause: str, queue: str, body: bytes) -> str:
        """The id of a message that is put under the lease of message `cause`: the same again when the task runs again.

        The holder of the lease adds the occurrence when it puts the same body there more than once.
        """
        base = self._put_signers.get(queue)
        if base is None:
            base = self._put_signers[queue] = blake2b(_length_first(queue), digest_size=16, key=self._put_key)
        signer = base.copy()
        if len(body) < POLY1305_FROM_BYTES:
            signer.update(b"%d:%b%b" % (len(cause), cause.encode(), body))
        else:
            # A fingerprint, not a signature: one key for all bodies, which never leaves this process.
            signer.update(b"%d:%b:poly1305:%b" % (len(cause), cause.encode(), _poly1305(self._put_key, body)))
        return signer.hexdigest()

    # -- the two algorithms ----------------------------------------------------------------------------------------

    def _plain_signer(self, queue: str) -> Any:
        base = self._plain[queue] = self._signer(queue, 0, _MESSAGE, PICKLE, self._key_id)
        return base

    def _raw_signer(self, queue: str) -> Any:
        base = self._raw[queue] = self._signer(queue, 0, _MESSAGE, RAW_BYTES, self._key_id)
        return base

    def _signer(self, queue: str, kind: int, direction: Direction, encoding: int, key_id: bytes) -> Any:
        made = blake2b(_context(queue, kind, direction, encoding, key_id), digest_size=_TAG_BYTES, key=self._keys[key_id])
        self._signers[queue, kind, direction, encoding, key_id] = made
        return made

    def _poly1305(
        self,
        queue: str,
        message_id: str,
        encoding: int,
        body: Bytes,
        kind: int,
        direction: Direction,
        key_id: bytes,
        nonce: bytes,
    ) -> bytes:
        return _poly1305(self._poly1305_key(queue, message_id, encoding, kind, direction, key_id, nonce), body)

    def _poly1305_key(
        self, queue: str, message_id: str, encoding: int, kind: int, direction: Direction, key_id: bytes, nonce: bytes
    ) -> bytes:
        context = b"poly1305" + nonce + _context(queue, kind, direction, encoding, key_id) + _length_first(message_id)
        return blake2b(context, digest_size=32, key=self._keys[key_id]).digest()

    def _why_broken(self, queue: str, message_id: str, seal: bytes) -> str:
        known = len(seal) in (_SMALL_SEAL, LARGE_SEAL_BYTES) and seal[2:6] in self._keys
        reason = (
            "its signature does not fit: it was changed, or made for another queue or message"
            if known
            else "it is unsigned or signed with a key that this process does not have"
        )
        return (
            f"message {message_id} on queue {queue!r} was refused before decoding, because {reason}; "
            "check that every program uses the same authkey, and who can write to the store"
        )


def _tag(signer: Any, message_id: str, body: Bytes) -> bytes:
    signer = signer.copy()
    id_bytes = message_id.encode()
    signer.update(b"%d:%b%b" % (len(id_bytes), id_bytes, body))  # type: ignore[str-format]
    tag: bytes = signer.digest()
    return tag


def _poly1305(one_time_key: bytes, *parts: Bytes) -> bytes:
    from cryptography.hazmat.primitives.poly1305 import Poly1305  # 20 ms to import, needed for large bodies only

    keep_freed_memory()
    signer = Poly1305(one_time_key)
    for part in parts:
        signer.update(part)
    return signer.finalize()


def _length_first(text: str) -> bytes:
    data = text.encode()
    return b"%d:%b" % (len(data), data)


def _context(queue: str, kind: int, direction: Direction, encoding: int, key_id: bytes) -> bytes:
    # Every field has a fixed size or its length first, so that no two contexts have the same bytes.
    return b"manyhands 1 %b %d %d " % (_length_first(direction), kind, encoding) + key_id + _length_first(queue)
