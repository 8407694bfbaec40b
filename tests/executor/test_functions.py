"""What a sender keeps of functions is never older than the function."""

from __future__ import annotations

from types import FunctionType
from typing import Any

import pytest

from manyhands.calls.bodies import Head
from manyhands.calls.functions import Functions
from manyhands.codec import pickles
from manyhands.errors import UsageError

FACTOR = 3


def scaled(n: int) -> int:
    return n * FACTOR


def as_in_a_main_program(source: str, **names: Any) -> FunctionType:
    """The function f of a program's main module."""
    space = {"__name__": "__main__", **names}
    exec(source, space)
    found = space["f"]
    assert isinstance(found, FunctionType)
    return found


def made(functions: Functions[Head], function: Any) -> Any:
    """The function as a worker has it."""
    head, before = functions.get(function)
    assert not before
    return pickles.load(head.code) if head.code else pickles.find(head.function)


@pytest.fixture
def functions() -> Functions[Head]:
    return Functions("3.11", lambda head: head)


def test_a_function_of_a_module_travels_by_name(functions: Functions[Head]) -> None:
    head, _ = functions.get(scaled)
    assert (head.function, head.code, head.python) == (f"{__name__}:scaled", b"", "")
    assert functions.get(scaled)[0] is head
    assert functions.get(abs)[0].function == "builtins:abs"


def test_a_function_of_the_main_program_is_made_once(functions: Functions[Head]) -> None:
    f = as_in_a_main_program("def f(n): return n + STEP", STEP=2)
    head, _ = functions.get(f)
    assert head.python == "3.11"
    assert made(functions, f)(1) == 3
    assert functions.get(f)[0] is head


def test_a_global_that_was_bound_anew_is_sent_anew(functions: Functions[Head]) -> None:
    f = as_in_a_main_program("def f(n): return n + STEP", STEP=2)
    assert made(functions, f)(1) == 3
    f.__globals__["STEP"] = 5
    assert made(functions, f)(1) == 6


def test_a_helper_that_was_defined_anew_is_sent_anew(functions: Functions[Head]) -> None:
    f = as_in_a_main_program("def g(n): return n + STEP\ndef f(n): return g(n)", STEP=2)
    assert made(functions, f)(1) == 3
    f.__globals__["STEP"] = 5
    assert made(functions, f)(1) == 6
    exec("def g(n): return 0", f.__globals__)
    assert made(functions, f)(1) == 0


def test_a_list_that_was_changed_in_place_is_sent_anew(functions: Functions[Head]) -> None:
    seen: list[int] = []
    f = as_in_a_main_program("def f(): return list(SEEN)", SEEN=seen)
    assert made(functions, f)() == []
    seen.append(1)
    assert made(functions, f)() == [1]


def test_a_closure_whose_variable_changed_is_sent_anew(functions: Functions[Head]) -> None:
    step = 2

    def f(n: int) -> int:
        return n + step

    assert made(functions, f)(1) == 3
    head = functions.get(f)[0]
    assert functions.get(f)[0] is head
    step = 5
    assert made(functions, f)(1) == 6


def test_a_method_goes_before_its_arguments(functions: Functions[Head]) -> None:
    head, before = functions.get("abc".upper)
    assert head.function == "_operator:call"
    assert before[0]() == "ABC"


async def fetch(n: int) -> int:
    return n


class Site:
    async def fetch(self, n: int) -> int:
        return n


@pytest.mark.parametrize("function", [fetch, Site().fetch])
def test_a_coroutine_function_is_refused_where_it_is_given(functions: Functions[Head], function: Any) -> None:
    with pytest.raises(UsageError, match=r"fetch is a coroutine function.*@mh\.task"):
        functions.get(function)


def test_what_cannot_be_called_is_refused_where_it_is_given(functions: Functions[Head]) -> None:
    with pytest.raises(UsageError, match="'shop:send' cannot be called"):
        functions.get("shop:send")  # type: ignore[arg-type]
