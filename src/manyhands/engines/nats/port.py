"""One session's end of a NATS engine, and what its program's loop is handed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from manyhands._resuming import ResumingPort
from manyhands.engines.base import Sink
from manyhands.events import Attach, Offer, Reply, Request, Withdraw


class NatsPort(ResumingPort):
    """A port that may have to say again to a new owner what it said to the one before."""

    def __init__(self, attach: Attach, sink: Sink, put: Callable[[Item], None], check: Callable[[], None]) -> None:
        super().__init__(attach, sink, put, lambda port, goodbye: put(Detaching(port, goodbye)), check)
        self.key = 0
        """The number of its newest attach; 0: none."""
        self._offer: Offer | None = None
        self._withdrawn: dict[int, Withdraw] = {}

    def note_sent(self, request: Request) -> None:
        super().note_sent(request)
        if type(request) is Withdraw:
            self._withdrawn[request.target] = request
        elif type(request) is Offer:
            self._offer = request

    def _noted(self, reply: Reply) -> Reply:
        if self._withdrawn:
            self._withdrawn.pop(getattr(reply, "rid", 0), None)
        return super()._noted(reply)

    def again(self, untold: Sequence[Request]) -> list[Request | Attach]:
        """What to say to an owner that may not know of this session's latest.

        Args:
            untold: requests without an answer of which nobody knows whether they arrived.
        """
        attach = self.attach
        held = sorted(self.held) if self.is_attached else attach.held
        said: list[Request | Attach] = [
            Attach(attach.session, attach.name, held, attach.next_seq, attach.is_here, attach.parent)
        ]
        if self._offer is not None:
            said.append(self._offer)
        unanswered = list(self.unanswered.items())
        said += untold
        said += [request for _, request in unanswered]
        self._withdrawn = {rid: self._withdrawn[rid] for rid, _ in unanswered if rid in self._withdrawn}
        said += self._withdrawn.values()
        return said


class Attaching(NamedTuple):
    """Open or resume this port's session."""

    port: NatsPort


class Detaching(NamedTuple):
    """This port's session ends, with a goodbye for good or as if its connection had been cut."""

    port: NatsPort
    goodbye: bool


Asking = tuple[NatsPort, Sequence[Request]]
"""A port and its requests; a bare tuple, because there is one for every send."""
Item = Asking | Attaching | Detaching
