"""What a manager class has registered: typeids, and how each is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from manyhands.errors import UnsupportedFeature, UsageError


class Entry(NamedTuple):
    """One registered typeid."""

    typeid: str
    make: Callable[..., Any] | None
    """None in a worker, which only names what its master offers."""


def check_registration(typeid: str, callable_: object, **unsupported: object) -> Entry:
    """The entry for a registration.

    Args:
        typeid: the name under which it is offered.
        callable_: what makes the object; None in a worker.
        unsupported: further arguments of the standard library's register that must not be given.

    Raises:
        UsageError: the typeid is no name, or what should make the object cannot be called.
        UnsupportedFeature: something that this version would have to ignore was given.
    """
    if not isinstance(typeid, str) or not typeid.isidentifier():
        raise UsageError(f"register() needs a name that can be called as a method, not {typeid!r}.")
    if callable_ is not None and not callable(callable_):
        kind = type(callable_).__name__
        raise UsageError(
            f"register({typeid!r}, callable=…) was given a {kind} itself, but needs something that returns it; "
            f"write callable=lambda: the_{kind.lower()}."
        )
    for argument, value in unsupported.items():
        if value is not None:
            raise UnsupportedFeature(
                f"register({typeid!r}, {argument}=…) is not in this version of manyhands, which offers queues only; "
                f"leave {argument} out: a queue's proxy has all methods of queue.Queue."
            )
    return Entry(typeid, callable_)


def names_of(entries: dict[str, Entry], *, offered: bool = False) -> list[str]:
    """The registered typeids in order; offered: only those that have a callable here."""
    return sorted(typeid for typeid, entry in entries.items() if entry.make is not None or not offered)
