"""Arguments of tasks: what arrives is what was given, and what would not is refused where it is given."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyhands.errors import PayloadNotEncodable, UsageError, WrongArguments
from manyhands.tasks.arguments import Arguments
from manyhands.tasks.plain import pack_exactly, unpack_exactly


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Address:
    street: str
    since: date | None = None


@dataclass
class User:
    name: str
    addresses: list[Address] = field(default_factory=list)


@dataclass
class Admin(User):
    rights: int = 0


class Point(msgspec.Struct):
    x: float
    y: float


class Pair(NamedTuple):
    left: int
    right: str


class Row(TypedDict):
    id: int
    note: str


@dataclass(eq=False)
class Identity:
    n: int


def hinted(value: Any, hint: Any) -> tuple[Any, type]:
    """What arrives of a value whose parameter has that hint."""

    def f(value: Any) -> None:
        pass

    f.__annotations__["value"] = hint
    arguments = Arguments("m:f", f)
    args, kwargs = arguments.unpack(arguments.pack((value,), {}))
    assert not kwargs
    return args[0], type(args[0])


BY_HINT = [
    (Colour.RED, Colour),
    (User("Ada", [Address("Mill Lane", date(2026, 1, 2))]), User),
    (Point(1.5, -2.0), Point),
    (Pair(1, "x"), Pair),
    ({"id": 1, "note": ""}, Row),
    (datetime(2026, 1, 2, 3, 4, 5, 678901), datetime),
    (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), datetime),
    (time(1, 2, 3), time),
    (timedelta(days=-1, microseconds=5), timedelta),
    (uuid4(), UUID),
    (Decimal("1.500"), Decimal),
    ({1, 2}, set[int]),
    (frozenset({"a"}), frozenset[str]),
    ((1, "a", 2.5), tuple[int, str, float]),
    ({(1, 2): [Colour.RED]}, dict[tuple[int, int], list[Colour]]),
    (None, User | None),
    (b"\x00\xff", bytes),
    ("on", Literal["on", "off"]),
    (PurePosixPath("/a/b"), PurePosixPath),
    ({"a": {"b": [1, None, "x"]}}, Mapping[str, Any]),
]


@pytest.mark.parametrize(("value", "hint"), BY_HINT, ids=[str(hint) for _, hint in BY_HINT])
def test_what_a_hint_names_arrives_as_it_was(value: Any, hint: Any) -> None:
    assert hinted(value, hint) == (value, type(value))


def test_whole_numbers_do_for_floats_and_a_nan_arrives() -> None:
    assert hinted(3, float) == (3.0, float)
    assert math.isnan(hinted(math.nan, float)[0])


def test_an_object_without_equality_arrives_with_its_fields() -> None:
    assert hinted(Identity(4), Identity)[0].n == 4


def test_a_tuple_does_for_a_sequence() -> None:
    assert hinted((1, 2), Sequence[int])[0] == [1, 2]


REFUSED = [
    ("3", int, "int"),
    (3, str, "str"),
    (True, int, "int"),
    (None, User, "User"),
    (User("Ada", [Address(3)]), User, "street"),  # type: ignore[arg-type]
    ({"name": "Ada", "addresses": []}, User, "User"),
    (Admin("Ada", [], 7), User, "Admin"),
    ("2026-01-02", date, "date"),
    ("red", Colour, "Colour"),
    ([1, 2, 3], tuple[int, int], "length 2"),
    ({"when": datetime(2026, 1, 2)}, dict[str, Any], "['when']"),
    (2**70, int, "int"),
    ("maybe", Literal["on", "off"], "maybe"),
]


@pytest.mark.parametrize(("value", "hint", "says"), REFUSED, ids=[f"{value!r:.20} for {hint}" for value, hint, _ in REFUSED])
def test_what_its_hint_does_not_say_is_refused_by_the_arguments_name(value: Any, hint: Any, says: str) -> None:
    with pytest.raises(UsageError, match="'value' of task m:f") as caught:
        hinted(value, hint)
    assert says in str(caught.value)
    assert isinstance(caught.value, TypeError)


class Opaque:
    pass


@pytest.mark.parametrize("hint", [Any, Opaque, list[Any]])
def test_what_is_no_plain_data_is_refused_by_its_type(hint: Any) -> None:
    value: Any = [Opaque()] if hint == list[Any] else Opaque()
    with pytest.raises(PayloadNotEncodable, match=r"Argument 'value' of task m:f cannot be sent: .*Opaque"):
        hinted(value, hint)


@pytest.mark.parametrize("hint", [Any, list[Any]])
def test_a_list_that_contains_itself_is_refused_in_a_sentence(hint: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(PayloadNotEncodable, match="contains itself"):
        hinted(endless, hint)


plain_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.binary().map(bytearray)
    | st.datetimes()
    | st.datetimes(timezones=st.just(UTC))
    | st.dates()
    | st.times()
    | st.timedeltas(timedelta(days=-9999), timedelta(days=9999))
    | st.uuids()
    | st.decimals(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.tuples(st.integers(), st.dates()), inner)
        | st.sets(st.integers() | st.dates() | st.tuples(st.text("ab"), st.uuids()))
        | st.frozensets(st.text("abc") | st.booleans())
    ),
    max_leaves=12,
)


def same(a: Any, b: Any) -> bool:
    """Equal, and of the same types all the way down."""
    if type(a) is not type(b) or a != b:
        return False
    if isinstance(a, (list, tuple)):
        return all(map(same, a, b))
    if isinstance(a, dict):
        return all(same(*pair) for items in zip(a.items(), b.items(), strict=True) for pair in zip(*items, strict=True))
    return True


@settings(max_examples=60, deadline=None)
@given(plain_values)
def test_without_a_hint_every_builtin_value_arrives_equal_and_of_the_same_type(value: Any) -> None:
    assert same(value, unpack_exactly(pack_exactly(value)))


def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    arguments = Arguments("m:f", function)
    return arguments.unpack(arguments.pack(args, kwargs))


def test_all_kinds_of_parameters_arrive_where_they_belong() -> None:
    def f(a: int, /, b: str = "x", *rest: date, c: Colour, **more: Point) -> None:
        pass

    day = date(2026, 1, 2)
    assert call(f, 1, "b", day, c=Colour.RED, p=Point(1, 2)) == (
        [1, "b", day],
        {"c": Colour.RED, "p": Point(1, 2)},
    )
    assert call(f, 1, c=Colour.RED) == ([1, "x"], {"c": Colour.RED})


def test_unhinted_rests_arrive_exactly() -> None:
    def f(*rest, **more):  # type: ignore[no-untyped-def]
        pass

    assert call(f, (1,), x={2}) == ([(1,)], {"x": {2}})


@pytest.mark.parametrize(
    ("args", "kwargs", "says"),
    [((), {}, "'a'"), ((1,), {"a": 2}, "multiple values"), ((1, 2, 3), {}, "too many"), ((1,), {"z": 1}, "'z'")],
)
def test_a_call_that_python_would_refuse_is_refused_at_submit(args: Any, kwargs: Any, says: str) -> None:
    def f(a: int, b: int = 0) -> None:
        pass

    with pytest.raises(WrongArguments, match="Task m:f cannot be called like that") as caught:
        call(f, *args, **kwargs)
    assert says in str(caught.value)


def test_the_worker_s_own_defaults_hold_for_what_was_not_given() -> None:
    def old(a: int) -> None:
        pass

    def new(a: int, b: str = "new", *rest: int) -> None:
        pass

    assert Arguments("m:f", new).unpack(Arguments("m:f", old).pack((1,), {})) == ([1, "new"], {})


def test_arguments_that_do_not_fit_the_worker_s_function_are_named() -> None:
    def old(a: int, b: int = 0) -> None:
        pass

    def without(a: int) -> None:
        pass

    def needs(a: int, c: int) -> None:
        pass

    def other(a: str) -> None:
        pass

    body = Arguments("m:f", old).pack((1,), {})
    with pytest.raises(WrongArguments, match="`b`"):
        Arguments("m:f", without).unpack(Arguments("m:f", old).pack((1, 2), {}))
    with pytest.raises(WrongArguments, match="'c'"):
        Arguments("m:f", needs).unpack(body)
    with pytest.raises(WrongArguments, match="same version"):
        Arguments("m:f", other).unpack(body)


def test_a_hint_that_plain_data_cannot_follow_is_said_with_its_parameter() -> None:
    def f(who: User | Address) -> None:
        pass

    with pytest.raises(UsageError, match="argument 'who' of task m:f"):
        Arguments("m:f", f)


def test_a_hint_that_names_nothing_is_said() -> None:
    def f(who: Nobody) -> None:  # type: ignore[name-defined]  # noqa: F821
        pass

    with pytest.raises(UsageError, match="TYPE_CHECKING"):
        Arguments("m:f", f)
