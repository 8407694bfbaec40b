"""What a manager class has registered: typeids, and how each is made and shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from manyhands.errors import UsageError


class Entry(NamedTuple):
    """One registered typeid, in the order in which the standard library keeps it."""

    callable: Callable[..., Any] | None
    """What makes the object; None in a worker, which only names what its master offers."""
    exposed: tuple[str, ...] | None = None
    """The methods that a proxy may call; None is all public ones."""
    method_to_typeid: dict[str, str] | None = None
    """Methods whose result stays here and is served under that typeid."""
    proxytype: Callable[..., Any] | None = None
    """What a client makes of it; None: what fits the object."""


Registry = Mapping[str, Entry]


def check_registration(
    typeid: str,
    callable_: object,
    proxytype: object = None,
    exposed: Iterable[str] | None = None,
    method_to_typeid: Mapping[str, str] | None = None,
) -> Entry:
    """The entry for a registration.

    Args:
        typeid: the name under which it is offered.
        callable_: what makes the object; None in a worker.
        proxytype: a proxy class, or a function that takes a proxy class's arguments; what it exposes is the default.

    Raises:
        UsageError: the typeid is no name, what should make the object cannot be called, or a name is no text.
    """
    if not isinstance(typeid, str) or not typeid.isidentifier():
        raise UsageError(f"register() needs a name that can be called as a method, not {typeid!r}.")
    if callable_ is not None and not callable(callable_):
        kind = type(callable_).__name__
        raise UsageError(
            f"register({typeid!r}, callable=…) was given a {kind} itself, but needs something that returns it; "
            f"write callable=lambda: the_{kind.lower()}."
        )
    if proxytype is not None and not callable(proxytype):
        raise UsageError(f"register({typeid!r}, proxytype=…) needs a proxy class, not {proxytype!r}.")
    names = tuple(exposed or getattr(proxytype, "_exposed_", None) or ())
    results = dict(method_to_typeid or getattr(proxytype, "_method_to_typeid_", None) or {})
    for name in (*names, *results, *results.values()):
        if not isinstance(name, str):
            raise UsageError(f"register({typeid!r}, …) needs names of methods and typeids as text, not {name!r}.")
    return Entry(callable_, names or None, results or None, proxytype)


def names_of(entries: Registry, *, offered: bool = False) -> list[str]:
    """The registered typeids in order; offered: only those that have a callable here."""
    return sorted(typeid for typeid, entry in entries.items() if entry.callable is not None or not offered)
