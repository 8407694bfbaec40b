"""One session's end of a Redis engine."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from manyhands._resuming import ResumingPort
from manyhands.engines.base import Sink
from manyhands.engines.redis.items import Detaching, Item
from manyhands.events import Attach, Reply, Request, StatsReply
from manyhands.model import public_id


class RedisPort(ResumingPort):
    """A port whose replies come from the script."""

    def __init__(self, attach: Attach, sink: Sink, put: Callable[[Item], None], check: Callable[[], None]) -> None:
        super().__init__(attach, sink, put, lambda port, goodbye: put(Detaching(port, goodbye)), check)
        self.gen = 0
        """Which of the session's attaches this is; what was meant for an earlier one is not delivered."""
        self.untold: list[Request] = []
        """Sent over a connection that broke, and nothing answers them: told again before everything else."""

    def quieten(self) -> None:
        """Nothing of this attach is delivered from now on, so that what is held and unanswered stays as it is."""
        with self._turn:
            self.gen = 0

    def _noted(self, reply: Reply) -> Reply:
        reply = super()._noted(reply)
        if type(reply) is StatsReply:
            # Who knows a session's id is that session; the script cannot hash.
            sessions = [msgspec.structs.replace(one, id=public_id(one.id)) for one in reply.sessions]
            return msgspec.structs.replace(reply, sessions=sessions)
        return reply
