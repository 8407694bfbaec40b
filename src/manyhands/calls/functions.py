"""What a sender keeps of functions, so that the thousandth call of one costs a dictionary look-up.

A function of the main program travels by value: its code, and what it refers to. Made once, that stays right for as long as
all of it stays the same, which can be seen at a glance when it refers to modules, other functions, classes and plain values
only. What refers to something that can change in place (a list, an array) is made again for each call that is submitted.
"""

from __future__ import annotations

import dis
from collections.abc import Callable, Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any, Generic, TypeVar

from manyhands.calls.bodies import Function, Head, Setup, to_function
from manyhands.codec.pickles import PLAIN_TYPES, reference_to
from manyhands.errors import UsageError

_KEPT = 256
_STABLE_TYPES = PLAIN_TYPES | {ModuleType, BuiltinFunctionType, type}
_MISSING = object()
_ASYNC = sum(flag for flag, name in dis.COMPILER_FLAG_NAMES.items() if name in ("COROUTINE", "ASYNC_GENERATOR"))


T = TypeVar("T")


class _Kept(Generic[T]):
    """What was made of a function, and what that rests on."""

    __slots__ = ("cells", "globals_", "is_pure", "made")

    def __init__(self, made: T) -> None:
        self.made = made
        self.globals_: list[tuple[dict[str, Any], str, Any]] = []
        """(the globals of a function, a name, what it meant)."""
        self.cells: list[tuple[Any, Any]] = []
        """(a cell of a closure, what was in it)."""
        self.is_pure = True
        """Whether there is nothing to look at."""

    def is_still_right(self) -> bool:
        """Whether all that the function refers to is what it was."""
        for names, name, value in self.globals_:
            if names.get(name, _MISSING) is not value:
                return False
        return all(_content(cell) is value for cell, value in self.cells)


class Functions(Generic[T]):
    """Makes and keeps the heads of functions.

    Args:
        python: this interpreter's minor version, "3.11".
        make: what to keep for a head; called once for each.
    """

    def __init__(
        self, python: str, make: Callable[[Head], T], *, timeout_s: float = 0.0, setup: Setup | None = None
    ) -> None:
        self._python = python
        self._make = make
        self._timeout_s = timeout_s
        self._setup = setup
        self._by_head: dict[Head, T] = {}
        self._kept: dict[Any, _Kept[T]] = {}

    def get(self, function: Callable[..., Any]) -> tuple[T, tuple[Any, ...]]:
        """What was made of the function's head, and what goes before the caller's arguments.

        Raises:
            UsageError: it is no function, or one that gives a coroutine.
            PayloadNotEncodable: it cannot be pickled.
        """
        kind = type(function)
        if kind is not FunctionType and kind is not BuiltinFunctionType:
            _check(function)
            return self._of(to_function(function, self._python, timeout_s=self._timeout_s, setup=self._setup))
        kept = self._kept.get(function)
        if kept is not None and (kept.is_pure or kept.is_still_right()):
            return kept.made, ()
        _check(function)
        found = to_function(function, self._python, timeout_s=self._timeout_s, setup=self._setup)
        made, before = self._of(found)
        kept = _Kept(made)
        if before:
            return made, before
        if found.head.function or (kind is FunctionType and _look(function, kept, set())):  # type: ignore[arg-type]
            kept.is_pure = not kept.globals_ and not kept.cells
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[function] = kept
        else:
            self._kept.pop(function, None)
        return made, before

    def _of(self, found: Function) -> tuple[T, tuple[Any, ...]]:
        made = self._by_head.get(found.head)
        if made is None:
            if len(self._by_head) >= _KEPT:
                self._by_head.clear()
            made = self._by_head[found.head] = self._make(found.head)
        return made, found.before


def _check(function: Any) -> None:
    """Refuse here what could only fail at the worker."""
    if not callable(function):
        raise UsageError(f"{function!r:.80} cannot be called; give the function itself, and its arguments after it.")
    code = getattr(getattr(function, "__func__", function), "__code__", None)
    if code is not None and code.co_flags & _ASYNC:
        raise UsageError(
            f"{function.__qualname__} is a coroutine function, and what it gives cannot travel; make it a task with "
            "@mh.task, or submit a function that calls asyncio.run."
        )


def _look(function: FunctionType, refers: _Kept[Any], seen: set[int]) -> bool:
    """Note what a function refers to; whether nothing of it can change unseen."""
    if id(function) in seen:
        return True
    seen.add(id(function))
    names = function.__globals__
    values = []
    for name in set(_global_names(function.__code__)):
        if name in names:
            refers.globals_.append((names, name, names[name]))
            values.append(names[name])
    for cell in function.__closure__ or ():
        refers.cells.append((cell, _content(cell)))
        values.append(_content(cell))
    values += function.__defaults__ or ()
    values += (function.__kwdefaults__ or {}).values()
    return not function.__dict__ and all(_is_stable(value, refers, seen) for value in values)


def _is_stable(value: Any, refers: _Kept[Any], seen: set[int]) -> bool:
    if type(value) is FunctionType:
        return bool(reference_to(value)) or _look(value, refers, seen)
    return type(value) in _STABLE_TYPES or (isinstance(value, type) and bool(reference_to(value)))


def _global_names(code: CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _global_names(constant)


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is empty
        return _MISSING
