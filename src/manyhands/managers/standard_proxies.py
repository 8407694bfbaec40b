"""The standard library's proxies with our way of calling, and what a typeid stands for when nobody registered it."""

from __future__ import annotations

from manyhands.managers.object_proxy import ObjectProxy
from manyhands.managers.registry import Entry, check_registration
from manyhands.managers.stdlib import theirs


class IteratorProxy(theirs.IteratorProxy, ObjectProxy):  # type: ignore[misc]
    """Of an iterator or generator."""


class AcquirerProxy(theirs.AcquirerProxy, ObjectProxy):  # type: ignore[misc]
    """Of a lock or semaphore. What its process holds when it is killed is released."""


class ConditionProxy(theirs.ConditionProxy, ObjectProxy):  # type: ignore[misc]
    """Of a condition."""


class EventProxy(theirs.EventProxy, ObjectProxy):  # type: ignore[misc]
    """Of an event."""


class BarrierProxy(theirs.BarrierProxy, ObjectProxy):  # type: ignore[misc]
    """Of a barrier."""


class NamespaceProxy(theirs.NamespaceProxy, ObjectProxy):  # type: ignore[misc]
    """Of an object whose attributes are read and set."""


class ValueProxy(theirs.ValueProxy, ObjectProxy):  # type: ignore[misc]
    """Of one value."""


class BaseListProxy(theirs.BaseListProxy, ObjectProxy):  # type: ignore[misc]
    """Of a list, without `+=` and `*=`."""


class ListProxy(theirs.ListProxy, ObjectProxy):  # type: ignore[misc]
    """Of a list."""


class DictProxy(theirs.DictProxy, ObjectProxy):  # type: ignore[misc]
    """Of a dict."""


class ArrayProxy(theirs.ArrayProxy, ObjectProxy):  # type: ignore[misc]
    """Of an array."""


class BasePoolProxy(theirs.BasePoolProxy, ObjectProxy):  # type: ignore[misc]
    """Of a pool, without `with`."""


class PoolProxy(theirs.PoolProxy, ObjectProxy):  # type: ignore[misc]
    """Of a pool of the master's processes."""


# What method_to_typeid of these proxies names, and what a plain container that a callable returns is shown as.
STANDARD: dict[str, Entry] = {
    "Iterator": check_registration("Iterator", None, IteratorProxy),
    "AsyncResult": check_registration("AsyncResult", None),
    "dict": check_registration("dict", None, DictProxy),
    "list": check_registration("list", None, ListProxy),
}
