"""What a forked child does with the sockets it inherited: closes its copies, and never speaks on them.

A copy left open in a child keeps a connection half alive after the parent is gone; a copy that is shut down, or a byte
written to it, breaks the parent's. So the child closes the descriptors and nothing else. The objects around them are
kept alive for ever: were one collected, it would close its descriptor's number again, which by then may be another file.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Any, Protocol


class Inherited(Protocol):
    """Something with descriptors that a child must not use."""

    def close_in_child(self) -> None:
        """Close this process's copies of the descriptors. The lock of any other thread may be held: take none."""
        ...


_watched: weakref.WeakSet[Any] = weakref.WeakSet()
_pinned: list[Any] = []
_is_hooked = False
_lock = threading.Lock()


def watch(inherited: Inherited) -> None:
    """From now on, a forked child calls its close_in_child. On platforms that cannot fork this does nothing."""
    global _is_hooked
    if not hasattr(os, "register_at_fork"):
        return
    with _lock:
        if not _is_hooked:
            _is_hooked = True
            os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_in_child)
        _watched.add(inherited)


def forget(inherited: Inherited) -> None:
    """It was closed in the ordinary way."""
    with _lock:
        _watched.discard(inherited)


def _in_child() -> None:
    _lock.release()
    found = list(_watched)
    _watched.clear()
    _pinned.extend(found)
    for inherited in found:
        inherited.close_in_child()
