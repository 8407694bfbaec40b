"""In which order the gate lets a session's requests through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from manyhands.events import Begin, Invoke, Ping, Request, Settle, Withdraw
from manyhands.managers.gate import _GatePort
from manyhands.model import Message


class Behind:
    """The engine's port and the manager's answers; both note what comes."""

    def __init__(self) -> None:
        self.came: list[Request] = []

    def send(self, requests: Sequence[Request], *, may_gather: bool = False) -> None:
        self.came += requests

    def take(self, request: Request) -> bool:
        if isinstance(request, Withdraw):
            return False  # a get's: the engine's
        self.came.append(request)
        return True


def test_what_was_asked_before_a_call_has_reached_the_engine_when_the_call_begins() -> None:
    # A worker took an item that it had prefetched, then set an event: whoever sees the event finds the item taken.
    behind = Behind()
    port = _GatePort(cast(Any, None), cast(Any, behind), "s", lambda replies: None)
    port.peer = cast(Any, behind)
    requests = [Begin("q", [1]), Invoke(1, 1, Message("m", b"", b"")), Settle(2, 1, 1, []), Withdraw(3), Ping(4)]
    port.send(requests)
    assert behind.came == requests
