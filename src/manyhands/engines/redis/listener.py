"""The thread that hears what other clients' steps bring about for the sessions of this one."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from manyhands.engines.redis.driver import Denied, Refusal, Unreachable, Wire

_log = logging.getLogger(__name__)


class Listener:
    """Waits on a subscribed connection and hands over what comes.

    Args:
        wire: subscribed already, so that nobody is told of a client that does not hear yet.
        deliver: takes one message's bytes.
        broke: called once when the connection ends by itself.
    """

    def __init__(self, wire: Wire, deliver: Callable[[bytes], None], broke: Callable[[Listener], None]) -> None:
        self.wire = wire
        self._deliver = deliver
        self._broke = broke
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="manyhands-redis-listener", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it; when this returns nothing more is delivered (but for a delivery that is calling)."""
        self._is_stopped = True
        self.wire.interrupt()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self.wire.close()

    def _run(self) -> None:
        while True:
            try:
                payload = self.wire.news()
            except (Unreachable, Refusal, Denied) as error:
                if not self._is_stopped:
                    _log.debug("the connection for news ended: %s", error)
                    self._broke(self)
                return
            if payload is not None and not self._is_stopped:
                try:
                    self._deliver(payload)
                except Exception:
                    _log.exception("news from another client could not be read; it was dropped")
