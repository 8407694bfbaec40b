"""The codec: what is signed comes back, and nothing else is ever decoded."""

from __future__ import annotations

import collections
import pickle
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands.codec import PICKLE, POLY1305_FROM_BYTES, RAW_BYTES, Codec, check_size, decode, encode, items
from manyhands.errors import PayloadNotEncodable, PayloadTooLarge, SealBroken, UndecodableBody
from manyhands.model import Message

KEYS = [(b"one!", b"k" * 32), (b"two!", b"j" * 32)]
SIZES = [0, 60, POLY1305_FROM_BYTES - 1, POLY1305_FROM_BYTES, POLY1305_FROM_BYTES + 1]


@pytest.fixture
def codec() -> Codec:
    return Codec(KEYS)


@pytest.mark.parametrize("size", SIZES)
def test_a_sealed_body_is_verified_and_names_its_encoding(codec: Codec, size: int) -> None:
    body = b"x" * size
    seal = codec.seal("q", "id", RAW_BYTES, body)
    assert codec.verify("q", "id", seal, body) == RAW_BYTES


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("change", ["queue", "id", "kind", "direction", "body", "longer"])
def test_a_body_cannot_be_moved_or_changed(codec: Codec, size: int, change: str) -> None:
    body = b"x" * size
    seal = codec.seal("q", "id", RAW_BYTES, body)
    place: dict[str, Any] = {"queue": "q", "message_id": "id", "kind": 0, "direction": "message", "body": body}
    place |= {
        "queue": {"queue": "r"},
        "id": {"message_id": "ie"},
        "kind": {"kind": 1},
        "direction": {"direction": "result"},
        "body": {"body": b"y" + body[1:] if body else b"y"},
        "longer": {"body": body + b"x"},
    }[change]
    with pytest.raises(SealBroken):
        codec.verify(seal=seal, **place)


@pytest.mark.parametrize("size", SIZES)
def test_every_bit_of_a_seal_counts(codec: Codec, size: int) -> None:
    body = b"x" * size
    seal = codec.seal("q", "id", RAW_BYTES, body)
    for position in range(len(seal)):
        broken = bytearray(seal)
        broken[position] ^= 1
        with pytest.raises(SealBroken):
            codec.verify("q", "id", bytes(broken), body)
    for cut in (b"", seal[:-1], seal + b"\0"):
        with pytest.raises(SealBroken):
            codec.verify("q", "id", cut, body)


@given(st.text(max_size=5), st.text(max_size=5), st.text(max_size=5), st.text(max_size=5))
def test_no_two_places_share_a_signature(queue: str, message_id: str, other_queue: str, other_id: str) -> None:
    codec = Codec(KEYS)
    seal = codec.seal(queue, message_id, RAW_BYTES, b"body")
    if (queue, message_id) == (other_queue, other_id):
        codec.verify(other_queue, other_id, seal, b"body")
    else:
        with pytest.raises(SealBroken):
            codec.verify(other_queue, other_id, seal, b"body")


def test_the_first_key_signs_and_any_verifies(codec: Codec) -> None:
    theirs = Codec([KEYS[1]])
    assert codec.verify("q", "id", theirs.seal("q", "id", RAW_BYTES, b"b"), b"b") == RAW_BYTES
    with pytest.raises(SealBroken, match="a key that this process does not have"):
        theirs.verify("q", "id", codec.seal("q", "id", RAW_BYTES, b"b"), b"b")


def test_nothing_is_unpickled_before_its_seal_was_verified(codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[bytes] = []
    monkeypatch.setattr(items.pickle, "loads", decoded.append)
    with pytest.raises(SealBroken):
        codec.open_message("q", Message("id", pickle.dumps("item"), b"\x11\0one!" + b"\0" * 16))
    assert decoded == []


def test_two_large_bodies_with_one_id_never_share_a_one_time_key(codec: Codec) -> None:
    body = b"x" * POLY1305_FROM_BYTES
    assert codec.seal("q", "id", RAW_BYTES, body) != codec.seal("q", "id", RAW_BYTES, body)


def test_a_result_comes_back_and_is_not_taken_for_a_message(codec: Codec) -> None:
    for value in ({"sum": 5}, b"x" * POLY1305_FROM_BYTES):
        data = codec.make_result("q", "id", value)
        assert codec.open_result("q", "id", data) == value
        with pytest.raises(SealBroken):
            codec.open_result("q", "other", data)


@pytest.mark.parametrize(
    "item",
    [None, 5, "text", b"bytes", [1, {"a": (2.5, {3})}], 1 << 20_000, float("inf"), "\ud800"],
    ids=lambda item: type(item).__name__,
)
def test_items_come_back_equal(item: Any) -> None:
    assert decode(*encode(item)) == item


def test_bytes_travel_as_they_are_and_are_copied_by_nobody() -> None:
    item = b"x" * 100
    encoding, body = encode(item)
    assert encoding == RAW_BYTES
    assert body is item
    assert decode(encoding, body) is item


class Broken:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("item", "name"),
    [(lambda: 1, "lambda"), (threading.Lock(), "_thread.lock"), (Broken(), "Broken"), ([Broken()], "list")],
    ids=["lambda", "lock", "raises", "inside"],
)
def test_what_cannot_be_pickled_fails_at_put_and_the_sentence_names_its_type(item: Any, name: str) -> None:
    with pytest.raises(PayloadNotEncodable, match=name) as caught:
        encode(item)
    assert "put plain data" in str(caught.value)


def test_a_deep_item_is_refused_in_a_sentence() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(PayloadNotEncodable, match="RecursionError"):
        encode(deep)


def test_a_body_over_the_limit_is_refused_with_both_sizes() -> None:
    check_size(b"12345", 5)
    with pytest.raises(PayloadTooLarge, match="6 bytes and max_body_bytes is 5") as caught:
        check_size(b"123456", 5)
    assert (caught.value.size_bytes, caught.value.limit_bytes) == (6, 5)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"cno_such_module\nThing\n.", "needs the module 'no_such_module'"),
        (b"c__main__\nThing\n.", "move the class to a module that both programs import"),
        (b"ccollections\nNoSuchThing\n.", "the same version of the module"),
        (b"garbage", "rebuilding it failed here"),
    ],
)
def test_an_item_whose_class_is_missing_says_what_to_share(body: bytes, sentence: str) -> None:
    with pytest.raises(UndecodableBody, match=sentence):
        decode(PICKLE, body)


def test_an_unknown_encoding_is_refused() -> None:
    with pytest.raises(UndecodableBody, match="encoding 77"):
        decode(77, b"")


def test_the_id_of_a_put_is_the_same_when_its_task_runs_again_and_only_then(codec: Codec) -> None:
    bodies = [b"a", b"b", b"x" * POLY1305_FROM_BYTES, b"y" * POLY1305_FROM_BYTES]
    made = [codec.put_id(cause, queue, body) for cause in ("m1", "m2") for queue in ("q", "r") for body in bodies]
    again = Codec([KEYS[0]])
    assert made == [again.put_id(cause, queue, body) for cause in ("m1", "m2") for queue in ("q", "r") for body in bodies]
    assert not [name for name, n in collections.Counter(made).items() if n > 1]
