"""A call session's thread for what nobody waits for: late sending, results that nobody fetches, a server that is gone."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import Protocol

from manyhands.errors import ManyhandsError

log = logging.getLogger(__name__)

LATE_S = 0.001
"""What was left to gather is sent after this."""
LOOK_S = 5.0
"""How often the session is looked after while calls are out at a server."""


class Helped(Protocol):
    """A session, as its helper needs it."""

    is_closed: bool

    @property
    def must_look(self) -> bool:
        """Whether it has to be looked after from time to time."""
        ...

    def take_inbox(self) -> None: ...

    def flush(self) -> None: ...

    def look_after(self) -> None: ...


class Helper:
    """Starts when it is first needed; sleeps while nothing is left to do."""

    def __init__(self, session: Helped) -> None:
        self._session = session
        self.is_late = False
        """Whether something was left to gather. Raised by who left it, lowered by who sends."""
        self._signal = threading.Lock()
        self._signal.acquire()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None

    def rouse(self) -> None:
        """There is something to do."""
        if self._thread is None:
            with self._starting:
                if self._thread is None and not self._session.is_closed:
                    self._thread = threading.Thread(target=self._run, name="manyhands-calls", daemon=True)
                    self._thread.start()
        with contextlib.suppress(RuntimeError):  # it is roused already
            self._signal.release()

    def stop(self) -> None:
        """Wait for its end; the session was closed."""
        with self._starting:
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            with contextlib.suppress(RuntimeError):
                self._signal.release()
            thread.join()

    def _run(self) -> None:
        session = self._session
        flush_at = 0.0
        while not session.is_closed:
            timeout_s = LOOK_S if session.must_look else -1.0
            if flush_at:
                timeout_s = max(0.0, flush_at - time.monotonic())
            self._signal.acquire(timeout=timeout_s)
            try:
                session.take_inbox()
                if not self.is_late:
                    flush_at = 0.0
                elif not flush_at:
                    flush_at = time.monotonic() + LATE_S
                elif time.monotonic() >= flush_at:
                    flush_at = 0.0
                    self.is_late = False
                    session.flush()
                session.look_after()
            except ManyhandsError:
                log.debug("the helper of a session that has ended")
            except BaseException:  # what a callback raised, SystemExit too: this thread is the session's
                log.exception("Handing out results was interrupted")
