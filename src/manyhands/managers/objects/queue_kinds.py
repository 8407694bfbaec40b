"""Which of the program's queue objects become queues of the engine, and which stay objects with leases around them.

A plain queue is a `queue.Queue`, or of a subclass that changes nothing that anybody could notice from elsewhere: it may
have an `__init__`, attributes and private helpers of its own. Whatever overrides a method of the queue or one of its hooks
(`_init`, `_qsize`, `_put`, `_get`) has an order or rules that the engine cannot know, and what has further public methods
could not be called through an engine's queue; both stay in the master.
"""

from __future__ import annotations

import queue
from collections.abc import Hashable
from functools import lru_cache
from typing import Any

_OWN = {name for name in vars(queue.Queue) if not name.startswith("__")}


def is_plain_queue(made: object) -> bool:
    """Whether the engine can be this queue."""
    kind: Any = type(made)
    return isinstance(made, queue.Queue) and _changes_nothing(kind)


def is_leased_queue(made: object) -> bool:
    """Whether it is a queue that keeps an order or rules of its own: it stays, with leases around it."""
    return isinstance(made, queue.Queue | queue.SimpleQueue) and not is_plain_queue(made)


@lru_cache(maxsize=256)
def _changes_nothing(kind: Hashable) -> bool:
    if any(getattr(kind, name, None) is not getattr(queue.Queue, name) for name in _OWN):
        return False
    return not any(callable(getattr(kind, name)) and name not in _OWN for name in dir(kind) if not name.startswith("_"))
