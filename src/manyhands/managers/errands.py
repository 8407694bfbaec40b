"""One thread that runs the program's own code where others may not: callables that may take long, say."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

_log = logging.getLogger(__name__)


class Errands:
    """Runs what it is given in order. `put` never waits and may be called in any thread and inside any lock."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="manyhands-offers", daemon=True)
        self._thread.start()

    def put(self, errand: Callable[[], object]) -> None:
        """Run it later; one that raises is logged and hurts no other."""
        self._work.put(errand)

    def stop(self) -> None:
        """End the thread after what was put before."""
        self._work.put(None)

    def _run(self) -> None:
        while (errand := self._work.get()) is not None:
            try:
                errand()
            except Exception:
                _log.exception("answering a worker failed")
            del errand  # nothing is kept alive by waiting
