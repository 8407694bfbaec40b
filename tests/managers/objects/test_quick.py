"""The loop itself makes only calls that are sure to be short and to run no code of the program's."""

from __future__ import annotations

from typing import Any

import pytest

from manyhands.managers.objects.quick import quick_call


class Own:
    """Something of the program's."""


class OwnDict(dict[str, int]):
    pass


@pytest.mark.parametrize(
    ("obj", "method", "args", "value"),
    [
        ({"a": 1}, "get", ("a",), 1),
        ({"a": 1}, "get", ("b", 2), 2),
        ({"a": 1}, "__getitem__", ("a",), 1),
        ({"a": 1}, "__contains__", ("b",), False),
        ({"a": 1}, "__len__", (), 1),
        ([5, 6], "__getitem__", (-1,), 6),
        ([5, 6], "__len__", (), 2),
    ],
)
def test_a_look_at_plain_values_is_made(obj: Any, method: str, args: tuple[Any, ...], value: Any) -> None:
    assert quick_call(obj, method, args, {}) == (True, value)


def test_plain_values_are_set_and_appended() -> None:
    shared: dict[str, int] = {}
    numbers: list[int] = []
    assert quick_call(shared, "__setitem__", ("a", 1), {}) == (True, None)
    assert quick_call(shared, "__setitem__", ("a", 2), {}) == (True, None)
    assert quick_call(numbers, "append", (3,), {}) == (True, None)
    assert (shared, numbers) == ({"a": 2}, [3])


@pytest.mark.parametrize(
    ("obj", "method", "args"),
    [
        ({"a": 1}, "__getitem__", ("missing",)),
        ({"a": Own()}, "get", ("a",)),
        ({"a": Own()}, "__setitem__", ("a", 1)),
        ({"a": [1]}, "get", ("a",)),
        ({"a": "x" * 5000}, "get", ("a",)),
        ({}, "__setitem__", ("a", [1])),
        ({"a": 1}, "pop", ("a",)),
        ({"a": 1}, "keys", ()),
        ([1], "sort", ()),
        ([1], "__getitem__", (slice(0, 1),)),
        (OwnDict(a=1), "get", ("a",)),
        (Own(), "get", ("a",)),
    ],
)
def test_everything_else_goes_the_ordinary_way_and_nothing_has_happened(
    obj: Any, method: str, args: tuple[Any, ...]
) -> None:
    before = str(obj)
    assert quick_call(obj, method, args, {}) == (False, None)
    assert str(obj) == before


def test_arguments_by_name_go_the_ordinary_way() -> None:
    assert quick_call({"a": 1}, "get", ("a",), {"default": 1}) == (False, None)
