"""One object that a master serves, and which of its methods a proxy may call."""

from __future__ import annotations

from typing import Any

from manyhands.managers.objects.leased_queue import LeasedQueue

# The standard library's AutoProxy shows plain values as something that prints like the value and can do nothing with it.
# Values of these types show their operators too, so that a served number adds and a served text is compared.
_PLAIN = (int, float, complex, bool, str, bytes, bytearray, tuple, frozenset, set, range)
_CONTAINERS: dict[type, str] = {dict: "dict", list: "list"}
_OPERATORS = frozenset(
    {"__len__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__bool__", "__int__", "__float__", "__index__"}
    | {"__add__", "__radd__", "__sub__", "__rsub__", "__mul__", "__rmul__", "__truediv__", "__rtruediv__", "__floordiv__"}
    | {"__rfloordiv__", "__mod__", "__rmod__", "__pow__", "__rpow__", "__neg__", "__pos__", "__abs__", "__round__"}
    | {"__and__", "__rand__", "__or__", "__ror__", "__xor__", "__rxor__"}
    | {"__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"}
)


def public_methods(obj: Any) -> tuple[str, ...]:
    """The names of what can be called and does not begin with an underscore; what cannot even be looked at is left out."""
    names = []
    for name in dir(obj):
        if name.startswith("_"):
            continue
        try:
            found = getattr(obj, name)
        except Exception:  # a property may raise anything, and then it is no method
            continue
        if callable(found):
            names.append(name)
    return tuple(names)


def shape_of(obj: Any) -> str:
    """The name of the standard proxy that fits an object when nobody chose one: "dict", "list" or none."""
    return _CONTAINERS.get(type(obj), "")


def plain_operators(obj: Any) -> tuple[str, ...]:
    """The operators that a proxy of a plain value shows besides its methods."""
    if type(obj) not in _PLAIN:
        return ()
    return tuple(sorted(name for name in dir(obj) if name in _OPERATORS and callable(getattr(obj, name, None))))


class Served:
    """An object in the table. Lives as long as a holder's reference or a proxy in this process has it."""

    __slots__ = ("__weakref__", "exposed", "ident", "leasing", "method_to_typeid", "obj", "proxies", "shape", "typeid")

    def __init__(
        self,
        ident: str,
        typeid: str,
        obj: Any,
        exposed: tuple[str, ...] = (),
        method_to_typeid: dict[str, str] | None = None,
        shape: str = "",
        leasing: LeasedQueue | None = None,
    ) -> None:
        self.ident = ident
        self.typeid = typeid
        self.obj = obj
        self.leasing = leasing
        """Stands in for obj when it is a queue that leases its items."""
        self.exposed = exposed or (leasing.methods() if leasing is not None else ())
        self.method_to_typeid = method_to_typeid or {}
        self.shape = shape
        self.proxies = 0
        """How many proxies in this process lead here directly."""

    def __repr__(self) -> str:
        return f"<Served {self.ident} {self.typeid!r} {type(self.obj).__name__}>"
