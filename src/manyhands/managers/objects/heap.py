"""A heap that takes what `<` cannot tell apart, and loses nothing when a comparison fails.

`heapq`, and so `queue.PriorityQueue`, ends in `'<' not supported between instances of 'dict' and 'dict'` as soon as two
items have the same priority and a payload without an order. Worse, a failing `heappop` has already taken the item that it
then does not return, and a failing `heappush` leaves its item in a list that is no heap any more. Here such items count as
equal, which of them comes first is open (as among equals in heapq), and all comparisons are made before anything moves.
"""

from __future__ import annotations

import itertools
from typing import Any


def push(heap: list[Any], item: Any) -> None:
    """Add an item. If a comparison raises anything but TypeError, nothing was added."""
    path = [len(heap)]
    while path[-1] > 0:
        parent = (path[-1] - 1) // 2
        if not _is_less(item, heap[parent]):
            break
        path.append(parent)
    heap.append(item)
    _shift(heap, path, item)


def pop(heap: list[Any]) -> Any:
    """Take the smallest item out of a heap that is not empty. If a comparison raises anything but TypeError, nothing was."""
    first, last, end = heap[0], heap[-1], len(heap) - 1
    path = [0]
    while (child := 2 * path[-1] + 1) < end:
        if child + 1 < end and _is_less(heap[child + 1], heap[child]):
            child += 1
        if not _is_less(heap[child], last):
            break
        path.append(child)
    heap.pop()
    if heap:
        _shift(heap, path, last)
    return first


def _shift(heap: list[Any], path: list[int], item: Any) -> None:
    """Move each item of the path one place back along it, and put the new one at its end."""
    for to, source in itertools.pairwise(path):
        heap[to] = heap[source]
    heap[path[-1]] = item


def _is_less(one: Any, other: Any) -> bool:
    try:
        return bool(one < other)
    except TypeError:
        return False
