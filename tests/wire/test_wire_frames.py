"""Frames: whatever goes in comes out, however it was cut; whatever is not this protocol is refused, cheaply."""

from __future__ import annotations

import contextlib
import gc
import random
import sys
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wire_talk import TO_CLIENT_KINDS, TO_SERVER_KINDS, any_event, any_struct, joined, pour

from manyhands.errors import PayloadTooLarge, ProtocolError
from manyhands.events import (
    Create,
    DeadLetters,
    Declare,
    Done,
    Granted,
    Outcome,
    Peeked,
    Ping,
    Put,
    Settle,
)
from manyhands.model import DeadLetter, Delivery, Message, Settlement
from manyhands.wire import frames
from manyhands.wire.frames import ATTACHING, HEADER, TO_CLIENT, FrameDecoder, FrameEncoder, error_frame

LARGE = b"0123456789abcdef" * 60_000  # 960,000 bytes
QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every limit so small that ordinary events meet it."""
    monkeypatch.setattr(frames, "INLINE_BODY_BYTES", 16)
    monkeypatch.setattr(frames, "CHUNK_BYTES", 32)
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 200)
    monkeypatch.setattr(frames, "_DIRECT_BYTES", 4)
    monkeypatch.setattr(frames, "GROW_BYTES", 64)


def frame(kind: int, payload: bytes, flags: int = 0, zero: int = 0) -> bytes:
    return HEADER.pack(len(payload), kind, flags, zero) + payload


def first_chunk(number: int, total: int, data: bytes) -> bytes:
    return frame(frames.BODY, frames.FIRST_CHUNK.pack(number, total) + data, frames.IS_FIRST)


def later_chunk(number: int, data: bytes) -> bytes:
    return frame(frames.BODY, frames.BODY_NUMBER.pack(number) + data)


def packed(value: Any) -> bytes:
    return msgspec.msgpack.encode(value)


# -- round trips -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TO_SERVER_KINDS, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_every_request_comes_out_as_it_went_in(kind: type, data: st.DataObject) -> None:
    event = data.draw(any_struct(kind))
    assert pour(FrameDecoder(ATTACHING), joined(FrameEncoder().encode([event]))) == [event]


@pytest.mark.parametrize("kind", TO_CLIENT_KINDS, ids=lambda kind: kind.__name__)
@QUICK
@given(data=st.data())
def test_every_reply_comes_out_as_it_went_in(kind: type, data: st.DataObject) -> None:
    event = data.draw(any_struct(kind))
    assert pour(FrameDecoder(TO_CLIENT), joined(FrameEncoder().encode([event]))) == [event]


@QUICK
@given(events=st.lists(any_event(TO_SERVER_KINDS), max_size=8), seed=st.integers(0, 2**32))
def test_events_survive_chunking_splitting_and_any_cut_of_the_stream(
    small_frames: None, events: list[Any], seed: int
) -> None:
    stream = joined(FrameEncoder().encode(events))
    cuts = random.Random(seed)
    decoder, got, at = FrameDecoder(ATTACHING), [], 0
    while at < len(stream):
        n = cuts.choice((1, 2, 7, 40, 500))
        got += pour(decoder, stream[at : at + n])
        at += n
    assert got == events
    assert decoder.pending_bytes == 0


def test_a_stream_fed_byte_by_byte_gives_the_same_events() -> None:
    events = [Put(1, "q", 1, 1, [Message("a", b"x" * 70_000), Message("b", b"y")]), Ping(2)]
    stream = joined(FrameEncoder().encode(events))
    decoder = FrameDecoder(ATTACHING)
    got = [event for i in range(len(stream)) for event in pour(decoder, stream[i : i + 1])]
    assert got == events


@pytest.mark.parametrize(
    "event",
    [
        Put(1, "q", 1, 1, [Message("a", b"small"), Message("b", LARGE), Message("c", LARGE[1:])]),
        Settle(1, 1, 1, [Settlement(1, result=LARGE), Settlement(2), Settlement(3, result=b"")]),
        Create(1, "get_q", Message("a", LARGE)),
    ],
    ids=lambda event: type(event).__name__,
)
def test_large_bodies_leave_the_batch_of_a_request(event: Any) -> None:
    buffers = FrameEncoder().encode([Ping(7), event])
    assert max(map(len, buffers)) <= frames.CHUNK_BYTES
    assert pour(FrameDecoder(ATTACHING), joined(buffers)) == [Ping(7), event]


@pytest.mark.parametrize(
    "event",
    [
        Granted(1, [Delivery(1, 1, Message("a", LARGE)), Delivery(2, 1, Message("b", b"small"))]),
        Outcome(1, "id", "q", LARGE),
        Peeked(1, [Message("a", LARGE)]),
        DeadLetters(1, [DeadLetter("q", Message("a", LARGE), 1.0, "why", [])]),
    ],
    ids=lambda event: type(event).__name__,
)
def test_large_bodies_leave_the_batch_of_a_reply(event: Any) -> None:
    buffers = FrameEncoder().encode([Done(7), event])
    assert max(map(len, buffers)) <= frames.CHUNK_BYTES
    assert pour(FrameDecoder(TO_CLIENT), joined(buffers)) == [Done(7), event]


def test_the_encoder_never_copies_a_large_body() -> None:
    views = [b for b in FrameEncoder().encode([Outcome(1, "id", "q", LARGE)]) if isinstance(b, memoryview)]
    assert [view.obj is LARGE for view in views] == [True, True, True, True, False]  # the last is the batch


def test_large_bodies_are_received_where_they_stay() -> None:
    """However much has arrived: what is read into the decoder's buffer first has to be moved."""
    stream = memoryview(joined(FrameEncoder().encode([Outcome(1, "a", value=LARGE)])) * 8)
    decoder = FrameDecoder(TO_CLIENT)
    first, moved, at, events = len(stream) // 8, 0, 0, []
    while at < len(stream):
        room = decoder.get_buffer()
        n = min(len(room), len(stream) - at)
        room[:n] = stream[at : at + n]
        if at > first and room.obj is decoder._buffer:
            moved += n
        del room
        at += n
        events += decoder.buffer_updated(n)
    assert events == [Outcome(1, "a", value=LARGE)] * 8
    assert moved < len(stream) // 8


def test_after_large_bodies_small_batches_come_many_in_one_read() -> None:
    encode = FrameEncoder().encode
    small = joined(encode([Outcome(1, "a", value=b"small")])) * 10_000
    decoder = FrameDecoder(TO_CLIENT)
    pour(decoder, small)
    assert len(pour(decoder, joined(encode([Outcome(1, "a", value=LARGE)])))) == 1
    assert len(decoder.get_buffer()) < frames._BUFFER_BYTES, "the next may be as large"
    pour(decoder, small)
    assert len(decoder.get_buffer()) == frames._BUFFER_BYTES


def test_encoding_leaves_the_sender_its_event() -> None:
    event = Put(1, "q", 1, 1, [Message("a", LARGE)])
    FrameEncoder().encode([event])
    assert event.messages[0].body is LARGE


def test_a_batch_over_the_cap_is_split_between_events() -> None:
    events = [Put(i, "q", i, 1, [Message("a", bytes(60_000))] * 20) for i in range(1, 31)]
    stream = joined(FrameEncoder().encode(events))
    lengths = []
    at = 0
    while at < len(stream):
        (length, kind, _, _) = HEADER.unpack_from(stream, at)
        lengths.append((kind, length))
        at += HEADER.size + length
    assert all(kind == frames.BATCH and length <= frames.MAX_FRAME_BYTES for kind, length in lengths)
    assert len(lengths) > 1
    assert pour(FrameDecoder(ATTACHING), stream) == events


def test_one_put_over_the_cap_stays_one_put() -> None:
    event = Put(1, "q", 1, 1, [Message(str(i), bytes(60_000)) for i in range(300)])
    buffers = FrameEncoder().encode([event])
    assert max(map(len, buffers)) <= frames.CHUNK_BYTES
    assert pour(FrameDecoder(ATTACHING), joined(buffers)) == [event]


def test_a_body_over_the_limit_is_refused_at_the_sender() -> None:
    with pytest.raises(PayloadTooLarge, match="960000 bytes is over the limit of 100000") as caught:
        FrameEncoder(max_body_bytes=100_000).encode([Put(1, "q", 1, 1, [Message("a", LARGE)])])
    assert caught.value.limit_bytes == 100_000


def test_what_the_server_would_close_the_connection_for_is_refused_at_the_sender() -> None:
    body = bytes(100_000)
    encoder = FrameEncoder(max_body_bytes=1_000_000)
    with pytest.raises(PayloadTooLarge, match="Put fewer messages at once"):
        encoder.encode([Put(1, "q", 1, 1, [Message(str(i), body) for i in range(20)])])
    with pytest.raises(PayloadTooLarge, match="Put fewer messages at once"):
        encoder.encode([Put(1, "q", 1, 1, [Message(str(i), body[:60_000]) for i in range(300)])])


def test_many_large_requests_at_once_stay_within_what_a_server_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_BATCH_BODIES_BYTES", 500_000)
    events = [Put(i, "q", i, 1, [Message(str(i), bytes(100_000))]) for i in range(1, 100)]
    stream = joined(FrameEncoder(max_body_bytes=1_000_000).encode(events))
    assert pour(FrameDecoder(ATTACHING, max_body_bytes=1_000_000), stream) == events


def test_a_grant_of_many_bodies_below_the_limit_of_large_ones_arrives_whole() -> None:
    granted = Granted(1, [Delivery(i, 1, Message(str(i), bytes(60_000))) for i in range(1, 400)])
    encoder = FrameEncoder(max_body_bytes=1_000_000, max_pending_bytes=frames.CLIENT_PENDING_BYTES)
    decoder = FrameDecoder(TO_CLIENT, max_body_bytes=1_000_000, max_pending_bytes=frames.CLIENT_PENDING_BYTES)
    assert pour(decoder, joined(encoder.encode([granted]))) == [granted]


def test_a_view_that_the_caller_still_holds_does_not_stop_a_body_from_growing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "GROW_BYTES", 50_000)
    event = Put(1, "q", 1, 1, [Message("a", LARGE)])
    stream = memoryview(joined(FrameEncoder().encode([event])))
    decoder, got, held = FrameDecoder(ATTACHING), [], []
    while stream:
        view = decoder.get_buffer()
        held.append(view)
        n = min(len(view), len(stream))
        view[:n] = stream[:n]
        stream = stream[n:]
        got += decoder.buffer_updated(n)
    assert got == [event]


# -- what is refused --------------------------------------------------------------------------------------------------

NUMBERS = frames.NAMES_BODIES


@pytest.mark.parametrize(
    ("stream", "sentence"),
    [
        (frame(0, b""), "type 0"),
        (frame(4, b""), "type 4"),
        (frame(255, b"x"), "type 255"),
        (frame(frames.BATCH, packed([]), flags=4), "flags 0x04"),
        (frame(frames.BATCH, packed([]), flags=0x80), "flags 0x80"),
        (frame(frames.BATCH, packed([]), zero=1), "0x0001"),
        (frame(frames.ERROR, b"", flags=1), "flags"),
        (HEADER.pack(16 * 1024 * 1024 + 1, frames.BATCH, 0, 0), "16777217 bytes"),
        (HEADER.pack(0xFFFF_FFFF, frames.BATCH, 0, 0), "4294967295 bytes"),
        (HEADER.pack(0x8000_0000, frames.BODY, 1, 0), "2147483648 bytes"),
        (HEADER.pack(1025, frames.ERROR, 0, 0), "1025 bytes"),
        (b"\xff" * 8, "type 255"),
        (b"GET / HTTP/1.1\r\n\r\n", "type 47"),
        (frame(frames.BATCH, b""), "truncated"),
        (frame(frames.BATCH, packed([])[:-1] + b"\x91"), "truncated"),
        (frame(frames.BATCH, packed([[14, 1]]) + b"\x00"), "trailing"),
        (frame(frames.BATCH, packed({})), "not a list"),
        (frame(frames.BATCH, packed([[99, 1]])), "not a list"),
        (frame(frames.BATCH, packed([[64, 1]])), "not a list"),  # a reply where requests belong
        (frame(frames.BATCH, packed([[14, "one"]])), "not a list"),
        (frame(frames.BATCH, packed([[1, 1]])), "not a list"),  # a field is missing
        (frame(frames.BATCH, b"\x91\x93\x0c\x01\xa1\xff"), "utf-8"),
        (frame(frames.BATCH, b"\xdd\xff\xff\xff\xff"), "truncated"),
        (frame(frames.BODY, b""), "no room"),
        (frame(frames.BODY, bytes(12), flags=1), "no room"),
        (later_chunk(1, b"x"), "not announced"),
        (first_chunk(1, 0, b"x"), "of 0 bytes"),
        (first_chunk(1, 2**63, b"x"), "9223372036854775808 bytes; the limit"),
        (first_chunk(1, 256 * 1024 * 1024 + 1, b"x"), "the limit is 268435456"),
        (first_chunk(1, 2, b"xyz"), "more than it announced"),
        (first_chunk(1, 3, b"x") + later_chunk(1, b"yzz"), "more than it announced"),
        (first_chunk(1, 3, b"x") + first_chunk(1, 3, b"x"), "twice"),
        (first_chunk(1, 1, b"x") + first_chunk(1, 1, b"x"), "twice"),
        (first_chunk(1, 1, b"x") + later_chunk(1, b"x"), "not announced"),
        (b"".join(first_chunk(n, 2, b"x") for n in range(9)), "more than 8 bodies"),
        (b"".join(first_chunk(n, 2**28, b"x") for n in range(9)), "before the batch that names them"),
        (frame(frames.BATCH, packed([[[0, 0, 1]], [[2, 1, "q", 1, 1, [["a", b""]]]]]), NUMBERS), "body 1, which has not"),
        (first_chunk(1, 2, b"x") + frame(frames.BATCH, b"\0\0\0\1", frames.IS_BODY), "body 1, which has not"),
        (first_chunk(1, 1, b"x") + frame(frames.BATCH, b"\0\0\1", frames.IS_BODY), "only a body's number"),
        (first_chunk(1, 1, b"\x80") + frame(frames.BATCH, b"\0\0\0\1", frames.IS_BODY), "not a list"),
        (
            first_chunk(1, 1, b"x") + frame(frames.BATCH, packed([[[1, 0, 1]], [[14, 1]]]), NUMBERS),
            "event 1 of a batch of 1",
        ),
        (first_chunk(1, 1, b"x") + frame(frames.BATCH, packed([[[-1, 0, 1]], [[14, 1]]]), NUMBERS), "event -1"),
        (first_chunk(1, 1, b"x") + frame(frames.BATCH, packed([[[0, 0, 1]], [[14, 1]]]), NUMBERS), "item 0 of a Ping"),
        (
            first_chunk(1, 1, b"x") + frame(frames.BATCH, packed([[[0, 1, 1]], [[2, 1, "q", 1, 1, [["a", b""]]]]]), NUMBERS),
            "item 1 of a Put",
        ),
        (
            first_chunk(1, 1, b"x")
            + frame(frames.BATCH, packed([[[0, 0, 1], [0, 0, 1]], [[2, 1, "q", 1, 1, [["a", b""]]]]]), NUMBERS),
            "named before",
        ),
        (error_frame("the engine failed"), "saying: the engine failed"),
    ],
)
def test_what_is_not_this_protocol_is_refused_with_a_sentence(stream: bytes, sentence: str) -> None:
    with pytest.raises(ProtocolError, match=sentence):
        pour(FrameDecoder(ATTACHING), stream)
    with pytest.raises(ProtocolError, match=sentence):
        byte_by_byte(FrameDecoder(ATTACHING), stream)


def byte_by_byte(decoder: FrameDecoder[Any], stream: bytes) -> None:
    for i in range(len(stream)):
        pour(decoder, stream[i : i + 1])


def test_a_torn_frame_gives_nothing_and_raises_nothing() -> None:
    stream = joined(FrameEncoder().encode([Declare(1, "q")]))
    for end in range(len(stream)):
        assert pour(FrameDecoder(ATTACHING), stream[:end]) == []


@pytest.mark.parametrize(
    ("stream", "most"),
    [
        (HEADER.pack(16 * 1024 * 1024, frames.BATCH, 0, 0) + bytes(300_000), 2 * frames.GROW_BYTES),
        (b"".join(first_chunk(n, 60 * 1024 * 1024, b"x") for n in range(8)), 9 * frames.GROW_BYTES),
        (frame(frames.BATCH, b"\x91\x97\x02\x01\xa1q\x01\x01\xdd\xff\xff\xff\xff"), 100_000),
        (frame(frames.BATCH, b"\xdd\xff\xff\xff\xff\x91\x0e"), 100_000),
    ],
    ids=["a batch", "eight bodies", "an inner list", "the list of events"],
)
def test_nothing_large_is_allocated_for_what_a_header_claims(stream: bytes, most: int) -> None:
    tracemalloc.start()
    try:
        decoder = FrameDecoder(ATTACHING)
        with contextlib.suppress(ProtocolError):
            pour(decoder, stream)
            decoder.get_buffer()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def test_an_idle_connection_keeps_a_small_buffer() -> None:
    decoder = FrameDecoder(ATTACHING)
    pour(decoder, joined(FrameEncoder().encode([Ping(1)])))
    assert len(decoder.get_buffer()) <= 4096


def test_the_buffer_of_a_large_batch_is_given_back() -> None:
    decoder = FrameDecoder(ATTACHING)
    pour(decoder, joined(FrameEncoder().encode([Put(1, "q", 1, 1, [Message("a", bytes(60_000))] * 100)])))
    assert len(decoder.get_buffer()) <= 256 * 1024


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_raises_nothing_but_protocol_error(garbage: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        pour(FrameDecoder(ATTACHING), garbage)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from([1, 2, 3]), st.sampled_from([0, 1, 2, 3]), st.binary(max_size=60)).map(
            lambda t: frame(t[0], t[2], t[1])
        )
        | st.builds(first_chunk, st.integers(0, 2), st.integers(0, 20), st.binary(min_size=1, max_size=20))
        | st.builds(later_chunk, st.integers(0, 2), st.binary(min_size=1, max_size=20)),
        max_size=6,
    )
)
def test_well_framed_garbage_raises_nothing_but_protocol_error(parts: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        pour(FrameDecoder(ATTACHING), b"".join(parts))


@settings(max_examples=300, deadline=None)
@given(event=any_event(TO_SERVER_KINDS), at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_a_flipped_bit_raises_nothing_but_protocol_error(event: Any, at: int, bit: int) -> None:
    stream = bytearray(joined(FrameEncoder().encode([event])))
    stream[at % len(stream)] ^= 1 << bit
    with contextlib.suppress(ProtocolError):
        pour(FrameDecoder(ATTACHING), bytes(stream))


def test_a_decoder_that_is_dropped_in_the_middle_of_a_body_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is part of a cycle in any client, so the collector may finalise the body's memory before the view of it."""
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    decoder: Any = FrameDecoder(TO_CLIENT)
    decoder.feed(first_chunk(1, 200_000, bytes(1_000)) + HEADER.pack(frames.BODY_NUMBER.size + 100_000, frames.BODY, 0, 0))
    decoder.feed(frames.BODY_NUMBER.pack(1))
    given = decoder.get_buffer()
    decoder.cycle = [decoder, given]
    del decoder, given
    gc.collect()
    assert not complaints
