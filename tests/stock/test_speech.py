"""Requests and replies in bytes: nothing that a peer names is loaded, and what it puts comes out whole."""

from __future__ import annotations

import collections
import datetime
import decimal
import enum
import pickle
import pickletools
import queue
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyhands import codec
from manyhands.errors import PayloadTooLarge, ProtocolError, ShutDown, UndecodableBody, UsageError
from manyhands.managers.stock.answers import ERROR, NOTHING, RETURN, TRACEBACK, Answer
from manyhands.managers.stock.speech import PICKLE, XML, speech_of


class Plain:
    def __init__(self, value: int) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Slotted(Plain):
    __slots__ = ("extra",)


class Listed(list):  # type: ignore[type-arg]
    pass


class Color(enum.Enum):
    RED = 1


def _listed() -> Listed:
    made = Listed([1, 2])
    made.note = "kept"  # type: ignore[attr-defined]
    return made


ITEMS: dict[str, Any] = {
    "None": None,
    "a number": 7,
    "text": "零",
    "bytes": bytes(range(256)),
    "nested": {"a": [1, (2.5, {3})], "b": None},
    "the same twice": [["x"]] * 2,
    "an object": Plain(1),
    "with slots": Slotted(2),
    "a list of its own class": _listed(),
    "an enum": Color.RED,
    "a moment": datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC),
    "decimals as keys": {decimal.Decimal(1): 1, decimal.Decimal(2): 2},
    "containers": [collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.deque([1])],
    "a function": len,
    "an error": ValueError,
    "300 kB": b"x" * 300_000,
}


def handed(encoding: int, body: bytes) -> bytes:
    """The reply of a get as it crosses the wire."""
    return b"".join(PICKLE.hand(encoding, body))


def put(item: Any, protocol: int = 4) -> bytes:
    return pickle.dumps(("q:x", "put", (item, True), {"timeout": 3}), protocol)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_an_item_of_any_kind_and_protocol_is_a_normal_item_and_comes_back_whole(item: Any, protocol: int) -> None:
    call = speech_of(put(item, protocol)).read(put(item, protocol))
    assert (call.ident, call.method, call.kwds, len(call.args)) == ("q:x", "put", {"timeout": 3}, 2)
    encoding, body = PICKLE.item(call)
    assert codec.decode(encoding, body) == item  # as one of our workers reads it
    assert pickle.loads(handed(encoding, body)) == (RETURN, item)  # as a standard-library worker reads it
    python_own = pickle._loads(handed(encoding, body))  # type: ignore[attr-defined]
    assert python_own == (RETURN, item)


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_an_item_of_our_own_worker_reaches_a_standard_library_one_whole(item: Any) -> None:
    assert pickle.loads(handed(*codec.encode(item))) == (RETURN, item)


def test_an_item_may_be_given_by_name() -> None:
    call = PICKLE.read(pickle.dumps(("q:x", "put", (), {"item": Plain(5)}), 4))
    assert codec.decode(*PICKLE.item(call)) == Plain(5)


def test_an_item_passes_through_a_master_that_does_not_have_its_class() -> None:
    data = put(Plain(1)).replace(b"Plain", b"Plane")
    call = PICKLE.read(data)
    assert not call.is_whole
    reply = handed(*PICKLE.item(call))
    assert b"Plane" in reply
    with pytest.raises(AttributeError, match="Plane"):
        pickle.loads(reply)


class Bomb:
    def __reduce__(self) -> Any:
        return (exec, ("raise SystemExit('the peer ran code here')",))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_reading_a_request_runs_nothing_of_what_it_names(protocol: int) -> None:
    call = PICKLE.read(pickle.dumps(("q:x", "put", (Bomb(), {"deep": [Bomb()]}), {}), protocol))
    assert (call.method, call.is_whole) == ("put", False)
    handed(*PICKLE.item(call))
    with pytest.raises(SystemExit):
        PICKLE.rebuild(call, {})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        pickle.dumps(1),
        pickle.dumps(("q:x", "get", (), {}))[:-1],
        pickle.dumps(("q:x", "get", (), {})) + b"more",
        pickle.dumps(("q:x", "get", ())),
        pickle.dumps((1, "get", (), {})),
        pickle.dumps(("q:x", 5, (), {})),
        pickle.dumps(("q:x", "get", "no", {})),
        pickle.dumps(Plain(1)),
    ],
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        PICKLE.read(data)


@given(st.binary(max_size=200))
def test_garbage_raises_nothing_else(data: bytes) -> None:
    for speech in (PICKLE, XML):
        try:
            speech.read(data)
        except ProtocolError:
            continue


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (queue.Empty(), queue.Empty, ""),
        (queue.Full(), queue.Full, ""),
        (ValueError("no"), ValueError, "no"),
        (UsageError("say it otherwise"), ValueError, "say it otherwise"),
        (PayloadTooLarge("too large"), ValueError, "too large"),
    ],
)
def test_errors_are_of_classes_that_every_peer_has(error: Exception, kind: type, text: str) -> None:
    data = PICKLE.say(Answer(ERROR, error))
    told, found = pickle.loads(data)
    assert (told, type(found), str(found)) == (ERROR, kind, text)
    assert b"manyhands" not in data
    assert b"_queue" not in data  # which 3.6 does not have


@pytest.mark.parametrize(("method", "older"), [("get", queue.Empty), ("put", queue.Full)])
def test_a_queue_that_was_shut_down_says_so_in_the_way_that_the_peers_version_knows(
    method: str, older: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = PICKLE.say(Answer(ERROR, ShutDown(method)))

    class Newer(Exception):
        pass

    monkeypatch.setattr(queue, "ShutDown", Newer, raising=False)
    assert type(pickle.loads(data)[1]) is Newer
    monkeypatch.delattr(queue, "ShutDown")
    assert type(pickle.loads(data)[1]) is older


def test_replies_need_no_newer_pickle_than_the_oldest_peer_has() -> None:
    for data in (PICKLE.say(NOTHING), PICKLE.say(Answer(RETURN, {"a": 1})), PICKLE.say(Answer(ERROR, queue.Empty()))):
        assert max(opcode.proto for opcode, _, _ in pickletools.genops(data)) <= 4


class Incomparable:
    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of an array is ambiguous")

    __hash__ = None  # type: ignore[assignment]


def test_a_value_is_never_compared() -> None:
    assert type(pickle.loads(PICKLE.say(Answer(RETURN, Incomparable())))[1]) is Incomparable


def test_an_answer_that_cannot_be_pickled_says_so() -> None:
    assert pickle.loads(PICKLE.say(Answer(RETURN, lambda: None)))[0] == "#UNSERIALIZABLE"


def test_the_serializer_is_told_by_the_first_byte() -> None:
    assert speech_of(put(1)) is PICKLE
    assert speech_of(b"<params></params>") is XML
    for other in (b"GET / HTTP/1.1", put(1, 2), put(1, 0), b""):
        with pytest.raises(ProtocolError, match="neither"):
            speech_of(other)


def test_a_message_of_a_kind_that_is_no_item_is_not_handed_out() -> None:
    with pytest.raises(UndecodableBody, match="encoding 2"):
        handed(codec.PLAIN, b"\x90")


def test_xml_carries_calls_answers_and_items() -> None:
    import xmlrpc.client

    data = xmlrpc.client.dumps((["q:x", "put", ({"a": [1, None]},), {}],), allow_none=True).encode()
    call = XML.read(data)
    assert codec.decode(*XML.item(call)) == {"a": [1, None]}
    (answer,), _ = xmlrpc.client.loads(b"".join(XML.hand(*codec.encode([1, "two"]))).decode())
    assert answer == [RETURN, [1, "two"]]
    (answer,), _ = xmlrpc.client.loads(XML.say(Answer(ERROR, queue.Empty())).decode())
    assert answer == [TRACEBACK, "Empty\n"]
