"""Whether a standard-library consumer ended in good order: what each host has let go, beside which connections ended. Pure.

A standard-library program that ends tells the manager of each proxy that it lets go (`decref`), over connections of their
own, and then closes its connection; one that is killed says nothing. But a decref names no process: all that ties it to the
connection that ends next is the host and the moment. So the rule is strict, and where it is not certain the end counts as
lost, because an item that comes twice is better than one that is gone:

* every object and queue that the connection has used was let go by its host, and one of them within RECENT_S before its end;
* each letting go counts for one end only;
* nobody else of that host, who could have been the one, ended within CONTEST_S after it. Then neither counts.

The decref that belongs to making a proxy (create, incref, decref) is no letting go.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection

RECENT_S = CONTEST_S = 0.5
_CREATING_S = 5.0
"""A create that was not followed by its decref in this time never will be: its program died in between."""
_KEPT, _MAX_KEYS = 256, 10_000
_NONE: deque[float] = deque(maxlen=0)


class Claim:
    """One end that looks orderly; it is, unless it is contested within CONTEST_S."""

    __slots__ = ("at", "idents", "is_contested")

    def __init__(self, idents: frozenset[str], at: float) -> None:
        self.idents = idents
        self.at = at
        self.is_contested = False


class Hosts:
    """What every host has created and let go. The time is an argument, in monotonic seconds."""

    def __init__(self) -> None:
        self._creating: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._let_go: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()
        self._claims: dict[str, list[Claim]] = {}

    def created(self, host: str, ident: str, now: float) -> None:
        """A program there is making a proxy of it."""
        _times(self._creating, (host, ident)).append(now)

    def decreffed(self, host: str, ident: str, now: float) -> None:
        """A program there has one reference less."""
        creating = self._creating.get((host, ident), _NONE)
        while creating and now - creating[0] > _CREATING_S:
            creating.popleft()
        if creating:
            creating.popleft()
        else:
            _times(self._let_go, (host, ident)).append(now)

    def ended(self, host: str, idents: Collection[str], now: float) -> Claim | None:
        """A connection from there, on which these were used, has ended; None: as that of a killed program does."""
        found = [self._let_go.get((host, ident), _NONE) for ident in idents]
        if found and all(found) and now - max(times[-1] for times in found) <= RECENT_S:
            for times in found:
                times.pop()
            claim = Claim(frozenset(idents), now)
            self._recent(host, now).append(claim)
            return claim
        for claim in self._recent(host, now):
            if claim.idents.issuperset(idents):
                claim.is_contested = True
        return None

    def _recent(self, host: str, now: float) -> list[Claim]:
        claims = [claim for claim in self._claims.pop(host, ()) if now - claim.at <= CONTEST_S]
        self._claims[host] = claims
        if len(self._claims) > _MAX_KEYS:
            del self._claims[next(iter(self._claims))]
        return claims


def _times(table: OrderedDict[tuple[str, str], deque[float]], key: tuple[str, str]) -> deque[float]:
    times = table.get(key)
    if times is None:
        times = table[key] = deque(maxlen=_KEPT)
        if len(table) > _MAX_KEYS:
            table.popitem(last=False)
    table.move_to_end(key)
    return times
