"""The arguments of one function as plain data: checked where they are given, rebuilt where they are used.

    send("ada@example.org", when=datetime(…))       -> {"to": "ada@example.org", "when": "2026-…"}     -> the same call

They travel by the parameters' names and only those that were given: a worker whose function has one more parameter with a
default, or another default, runs what an older program sent.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from contextlib import suppress
from inspect import Parameter
from typing import Any

import msgspec
from msgspec import UNSET

from manyhands.errors import PayloadNotEncodable, UsageError, WrongArguments
from manyhands.tasks.plain import UNHINTED, difference, exactly, pack, type_name, unpacker

_BY_POSITION = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


class Arguments:
    """The parameters of a task's function, with what its hints say of them.

    Raises:
        UsageError: a hint cannot be resolved, or plain data cannot tell what it allows apart.
    """

    def __init__(self, task: str, function: Callable[..., Any]) -> None:
        self._task = task
        self._signature = inspect.signature(function)
        self._parameters = list(self._signature.parameters.values())
        hints = resolve(task, function)
        self._hints = {each.name: _hint_of(each, hints.get(each.name, Any)) for each in self._parameters}
        self._unhinted = [each.name for each in self._parameters if hints.get(each.name, Any) in UNHINTED]
        for name, hint in self._hints.items():
            try:
                unpacker(hint)
            except (TypeError, ValueError) as error:
                raise UsageError(
                    f"The hint of argument {name!r} of task {task} cannot be used to rebuild plain data: {error}. Give the "
                    "parameter a simpler hint (or none, for builtin values)."
                ) from error
        self._make = msgspec.defstruct(
            "Arguments",
            [(name, hint, UNSET) for name, hint in self._hints.items()],
            omit_defaults=True,
            forbid_unknown_fields=True,
        )
        self._decoder = unpacker(self._make)
        kinds = {each.kind for each in self._parameters}
        self._positional = (
            [each.name for each in self._parameters if each.kind is not Parameter.KEYWORD_ONLY]
            if kinds <= {Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY}
            else None
        )
        self._required = frozenset(each.name for each in self._parameters if each.default is Parameter.empty)
        self.returns = hints.get("return", Any)
        """The hint of what it returns."""
        self.rebuild: Callable[[bytes | msgspec.Raw], Any] | None = None
        """Makes what it returned again; None where there is no such hint, or none that plain data could follow."""
        if self.returns not in UNHINTED:
            with suppress(TypeError, ValueError):
                self.rebuild = unpacker(self.returns).decode

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Bind a call's arguments to the parameters, check and write them.

        Raises:
            WrongArguments: one is missing, unknown, or not what its hint says; the sentence names it.
            PayloadNotEncodable: one is no plain data; likewise.
        """
        given = self._bind(args, kwargs)
        written = dict(given)
        for name in self._unhinted:
            if name in written:
                written[name] = self._exactly(name, written[name])
        try:
            body = pack(self._make(**written))
            arrived = self._decoder.decode(body)
        except (PayloadNotEncodable, msgspec.ValidationError):
            self._find_fault(written)
            raise
        for name, value in given.items():
            rebuilt = getattr(arrived, name)
            if (rebuilt != value or type(rebuilt) is not type(value)) and (found := difference(value, rebuilt)):
                raise WrongArguments(
                    f"Argument {name!r} of task {self._task} is {_article(self._hints[name])} by its hint: {found}, so "
                    "nothing was sent; pass what the hint says, or change the hint.",
                    argument=name,
                )
        return body

    def unpack(self, body: bytes | msgspec.Raw) -> tuple[list[Any], dict[str, Any]]:
        """Rebuild the call: positional and keyword arguments.

        Raises:
            WrongArguments: they do not fit this function, which is not the one that the sender has.
        """
        try:
            arrived = self._decoder.decode(body)
        except (msgspec.DecodeError, ValueError, NotImplementedError) as error:
            raise WrongArguments(
                f"The arguments that arrived do not fit task {self._task} as it is here ({error}); run the same version of "
                "its module on both sides."
            ) from error
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for each in self._parameters:
            value = getattr(arrived, each.name)
            if each.kind is Parameter.VAR_POSITIONAL:
                args += () if value is UNSET else value
            elif each.kind is Parameter.VAR_KEYWORD:
                kwargs |= {} if value is UNSET else value
            elif value is UNSET and each.default is Parameter.empty:
                raise WrongArguments(
                    f"Task {self._task} as it is here needs argument {each.name!r}, which was not sent; run the same "
                    "version of its module on both sides.",
                    argument=each.name,
                )
            elif each.kind in _BY_POSITION:
                args.append(each.default if value is UNSET else value)
            elif value is not UNSET:
                kwargs[each.name] = value
        return args, kwargs

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        names = self._positional
        if names is not None and len(args) <= len(names):
            given = dict(zip(names, args, strict=False))  # inspect's own way takes 6 µs
            n = len(given) + len(kwargs)
            given |= kwargs
            if len(given) == n and given.keys() <= self._hints.keys() and self._required <= given.keys():
                return given
        try:
            return self._signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise WrongArguments(f"Task {self._task} cannot be called like that: {error}.") from error

    def _exactly(self, name: str, value: Any) -> Any:
        kind = self._signature.parameters[name].kind
        try:
            if kind is Parameter.VAR_POSITIONAL:
                return [exactly(each) for each in value]
            if kind is Parameter.VAR_KEYWORD:
                return {key: exactly(each) for key, each in value.items()}
            return exactly(value)
        except RecursionError:
            raise self._not_plain(name, "it contains itself, or is nested too deeply") from None
        except PayloadNotEncodable as error:
            raise self._not_plain(name, str(error)) from error

    def _find_fault(self, written: dict[str, Any]) -> None:
        """Say which argument it is: the whole was refused, so each is tried alone."""
        for name, value in written.items():
            try:
                body = pack(value)
            except PayloadNotEncodable as error:
                raise self._not_plain(name, str(error)) from error
            try:
                unpacker(self._hints[name]).decode(body)
            except (msgspec.ValidationError, NotImplementedError) as error:
                raise WrongArguments(
                    f"Argument {name!r} of task {self._task} is {_article(self._hints[name])} by its hint, and what was "
                    f"given ({type_name(type(value))}) is not ({error}), so nothing was sent; pass what the hint says, or "
                    "change the hint.",
                    argument=name,
                ) from error

    def _not_plain(self, name: str, why: str) -> PayloadNotEncodable:
        return PayloadNotEncodable(
            f"Argument {name!r} of task {self._task} cannot be sent: {why}. A task takes plain data: builtin values, and by "
            "its type hints dataclasses, Structs, datetimes, UUIDs, Decimals, enums, sets and tuples.",
            argument=name,
        )


def resolve(task: str, function: Callable[..., Any]) -> dict[str, Any]:
    """A function's type hints.

    Raises:
        UsageError: one names what is not there when the task is used.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # a hint is an expression, which may raise anything
        raise UsageError(
            f"The type hints of task {task} cannot be resolved ({type(error).__name__}: {error}); import what they name at "
            "the top of its module, not under TYPE_CHECKING."
        ) from error


def _hint_of(parameter: Parameter, hint: Any) -> Any:
    hint = Any if hint in UNHINTED else hint
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return list[hint]
    if parameter.kind is Parameter.VAR_KEYWORD:
        return dict[str, hint]
    return hint


def _article(hint: Any) -> str:
    name = type_name(hint)
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"
