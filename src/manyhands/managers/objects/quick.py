"""Calls so short and harmless that the server's loop makes them itself: a look into a dict or list of plain values.

A call's own thread costs two switches between threads. So where the object is exactly a dict or a list, the arguments and
the result are plain, and no code of the program's can run (nothing is dropped whose end could be noticed), no thread is
asked. Whatever is not sure to be so goes the ordinary way; a read that failed does too, and fails there again.
"""

from __future__ import annotations

from typing import Any

_PLAIN = frozenset({int, str, bytes, float, bool, type(None)})
_MOST_CHARS = 4096
_READS: dict[type, frozenset[str]] = {
    dict: frozenset({"get", "__getitem__", "__contains__", "__len__"}),
    list: frozenset({"__getitem__", "__len__"}),
}


def quick_call(obj: Any, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> tuple[bool, Any]:
    """Whether the call was made, and what it returned."""
    kind = type(obj)
    if kwds or not all(_is_plain(arg) for arg in args):
        return False, None
    if method in _READS.get(kind, ()):
        try:
            value = getattr(obj, method)(*args)
        except Exception:
            return False, None
        return (True, value) if _is_plain(value) else (False, None)
    if kind is dict and method == "__setitem__" and len(args) == 2:
        # What it replaces ends here, and an object of the program's might have something to say to that.
        if not _is_plain(obj.get(args[0])):
            return False, None
        obj[args[0]] = args[1]
        return True, None
    if kind is list and method == "append" and len(args) == 1:
        obj.append(args[0])
        return True, None
    return False, None


def _is_plain(value: Any) -> bool:
    kind = type(value)
    return kind in _PLAIN and (kind not in (str, bytes) or len(value) <= _MOST_CHARS)
