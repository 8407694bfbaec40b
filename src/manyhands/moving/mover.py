"""The shell around `Move`: two sessions, a thread that waits for both, and the time."""

from __future__ import annotations

import queue
import secrets
import time
from collections.abc import Callable, Sequence

from manyhands.auth import Keyring
from manyhands.client.session import session_name
from manyhands.engines.base import Engine
from manyhands.errors import UnsupportedFeature
from manyhands.events import Attach, Reply
from manyhands.model import public_id
from manyhands.moving.move import LOOK_S, Move
from manyhands.moving.progress import Progress
from manyhands.moving.translating import Translator

STOP_S = 10.0
"""How long a stopped move waits for the answers to what is on its way."""


class Mover:
    """Moves queues from one engine to another; see the package.

    Args:
        source, target: stay the caller's, who closes them.
        source_keys, target_keys: where they differ, what is moved is signed anew.
        place: the target's URL as it may be shown to those who wait at the source.
        queues: their names; none is all.
        is_following: go on when nothing is left, until `stop`.

    Raises:
        UnsupportedFeature: the source cannot give messages away.
        EngineUnavailable, ServerUnavailable, AuthenticationFailed: as either end fails to attach.
    """

    def __init__(
        self,
        source: Engine,
        target: Engine,
        *,
        source_keys: Keyring,
        target_keys: Keyring,
        place: str,
        queues: Sequence[str] = (),
        is_following: bool = False,
    ) -> None:
        self._news: queue.SimpleQueue[tuple[bool, Sequence[Reply]] | None] = queue.SimpleQueue()
        ids = secrets.token_hex(16), secrets.token_hex(16)
        here = [Attach(each, f"{session_name()} (queue move)", is_here=True) for each in ids]
        self._source = source.attach(here[0], lambda replies: self._news.put((True, replies)))
        try:
            if not self._source.attached.features.moves:
                raise UnsupportedFeature(
                    f"A {self._source.attached.engine} store cannot give its messages away in this version; let its workers "
                    "finish them there, and send new ones to the other place."
                )
            self._target = target.attach(here[1], lambda replies: self._news.put((False, replies)))
        except BaseException:
            self._source.detach()
            raise
        attached = self._target.attached
        self._move = Move(
            Translator(source_keys, target_keys, place),
            queues,
            is_following=is_following,
            features=attached.features,
            max_body_bytes=attached.limits.max_body_bytes,
            sessions=(public_id(ids[0]), public_id(ids[1])),
        )
        self._is_stopped = False

    def stop(self) -> None:
        """From any thread or signal handler: take nothing more. `run` returns when what is on its way has arrived."""
        self._is_stopped = True
        self._news.put(None)

    def run(self, on_progress: Callable[[Progress], None] = lambda _: None) -> Progress:
        """Move until nothing is left (or, following, until `stop`).

        Args:
            on_progress: called in this thread after every few answers, and about once a second; it may call `stop`.

        Raises:
            UsageError, UnknownId: both ends are the same, or a queue is not there.
            ManyhandsError: an engine refused; what it had not acknowledged is still at the source.
        """
        move = self._move
        stops_at = 0.0
        try:
            while not move.is_over:
                now = time.monotonic()
                if self._is_stopped and not move.is_stopping:
                    move.stop()
                    stops_at = now + STOP_S
                if stops_at and now > stops_at:
                    break
                move.tick(now)
                self._send()
                self._hear(LOOK_S)
                on_progress(move.progress())
        finally:
            self._source.detach()  # with a goodbye: what was leased and not put is back at once
            self._target.detach()
        if move.failure is not None:
            raise move.failure
        return move.progress()

    def _send(self) -> None:
        """Let both ends have what was decided, the target first: the source is told nothing that has not left."""
        for port, end in ((self._target, self._move.target), (self._source, self._move.source)):
            batch, end.outbox = end.outbox, []
            if batch:
                port.send(batch)

    def _hear(self, timeout_s: float) -> None:
        """Take in everything that has come, waiting for the first."""
        try:
            news = self._news.get(timeout=timeout_s)
            while True:
                if news is not None:
                    is_source, replies = news
                    (self._move.source if is_source else self._move.target).take(replies)
                news = self._news.get_nowait()
        except queue.Empty:
            return
