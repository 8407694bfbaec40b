"""One end of a move: the requests that leave for it, who hears each answer, and its sequence numbers. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from manyhands.events import Failed, Reply, Request


class End:
    """The source's side or the target's."""

    def __init__(self, on_unasked: Callable[[Any], None], on_failed: Callable[[Failed], None]) -> None:
        self.outbox: list[Request] = []
        self._rids = count(1)
        self._awaited: dict[int, tuple[Callable[[Any], None], Callable[[Failed], None]]] = {}
        self._on_unasked = on_unasked
        self._on_failed = on_failed
        self._seqs: dict[str, Seqs] = {}

    def ask(
        self,
        make: Callable[[int], Request],
        then: Callable[[Any], None],
        otherwise: Callable[[Failed], None] | None = None,
    ) -> int:
        """Send make(rid); then gets the answer, otherwise a refusal. The rid."""
        rid = next(self._rids)
        self._awaited[rid] = then, otherwise or self._on_failed
        self.outbox.append(make(rid))
        return rid

    def tell(self, request: Request) -> None:
        """Send what has no answer."""
        self.outbox.append(request)

    def take(self, replies: Sequence[Reply]) -> None:
        """Replies have come, in order."""
        for reply in replies:
            awaited = self._awaited.pop(getattr(reply, "rid", 0), None)
            if awaited is None:
                self._on_unasked(reply)
            elif isinstance(reply, Failed):
                awaited[1](reply)
            else:
                awaited[0](reply)

    def seqs(self, stream: str) -> Seqs:
        """The numbers of a stream, as `events` explains them."""
        return self._seqs.setdefault(stream, Seqs())


class Seqs:
    """Counts one stream's requests from 1 and knows the lowest that has no answer yet."""

    __slots__ = ("_last", "_open")

    def __init__(self) -> None:
        self._last = 0
        self._open: dict[int, None] = {}

    def next(self) -> tuple[int, int]:
        """(seq, floor) of the next request."""
        self._last += 1
        self._open[self._last] = None
        return self._last, next(iter(self._open))

    def answered(self, seq: int) -> None:
        self._open.pop(seq, None)
