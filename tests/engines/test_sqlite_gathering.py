"""A commit waits for the producers that were just answered, and for nobody who has sent again already."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from manyhands._inbox import Inbox
from manyhands.engines.base import Port
from manyhands.engines.sqlite import SqliteEngine
from manyhands.events import Attach, Closing, Done, Put, Reply
from manyhands.model import Message

PRODUCERS, PUTS = 4, 20


class Producer:
    """Puts again as soon as it is answered, in the writer's own thread: before the others have their answers."""

    def __init__(self, engine: SqliteEngine, name: str) -> None:
        self.is_done = threading.Event()
        self._name = name
        self._n = 0
        self._port: Port = engine.attach(Attach(name, name), self._on_replies)

    def put(self) -> None:
        self._n += 1
        self._port.send([Put(self._n, "work", self._n, self._n, [Message(f"{self._name}-{self._n}", b"")])])

    def _on_replies(self, replies: Sequence[Reply]) -> None:
        for reply in replies:
            if isinstance(reply, Closing):
                return
            assert isinstance(reply, Done), reply
            if self._n == PUTS:
                self.is_done.set()
            else:
                self.put()


def test_a_producer_that_was_answered_and_sent_again_is_not_expected_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted: list[int] = []
    wait = Inbox.wait

    def note(inbox: Inbox[object], timeout_s: float | None, **kwargs: int) -> None:
        wanted.append(kwargs.get("wanted", 1))
        wait(inbox, timeout_s, **kwargs)

    monkeypatch.setattr(Inbox, "wait", note)
    engine = SqliteEngine(tmp_path / "jobs.db")
    try:
        producers = [Producer(engine, f"{i:032x}") for i in range(PRODUCERS)]
        for producer in producers:
            producer.put()
        for producer in producers:
            assert producer.is_done.wait(30)
    finally:
        engine.close()

    assert max(wanted) <= PRODUCERS
