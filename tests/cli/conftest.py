"""A server in this process, and the command line run against it here too: a process for each command costs 0.4 s."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest

import manyhands as mh
from manyhands.cli.app import run


@dataclass(frozen=True)
class Answer:
    """What a command ended with and printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one document it printed."""
        assert self.code == 0, self
        assert self.out.count("\n") == 1, self.out
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def server() -> Iterator[mh.Server]:
    with mh.serve("tcp://127.0.0.1:0") as serving:
        yield serving


@pytest.fixture
def command(server: mh.Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs `manyhands …` against the server."""

    def command(*words: str, url: str | None = None) -> Answer:
        monkeypatch.setenv("MANYHANDS_URL", url or server.url)
        monkeypatch.setattr(sys, "argv", ["manyhands", *words])
        capsys.readouterr()
        code = run()
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return command


@pytest.fixture
def dead_id(server: mh.Server) -> str:
    """The id of a message in queue 'mail' that failed until it became a dead letter."""
    mail = server.queue("mail")
    mail.put({"to": "x@example.org"})
    for _ in range(3):
        with suppress(OSError), mail.receive(timeout=5) as delivery:
            found = delivery.id
            raise OSError("the mail server said no")
    return found
