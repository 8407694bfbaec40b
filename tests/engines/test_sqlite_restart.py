"""What was sent twice around a restart is applied once; the suite notices if that memory is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyhands.engines.sqlite import SqliteEngine
from manyhands.model import Options
from manyhands.testing.contract import Peer, message

pytestmark = pytest.mark.faults

RESENDS = """
import sys
from manyhands.engines.sqlite import SqliteEngine
from manyhands.model import Options
from manyhands.testing.contract import Peer, message

engine = SqliteEngine(sys.argv[1])
peer = Peer(engine)
unconfirmed = peer.put_request("resent", message())
peer.start(unconfirmed).answer()
again = message(id="chosen by the caller", options=Options(dedupe=True))
peer.put("chosen", again)
peer.ack(peer.take("chosen"))
engine.close()

engine = SqliteEngine(sys.argv[1])
peer.resume(engine)
peer.start(unconfirmed).answer()
peer.put("chosen", again)
print(peer.size("resent").ready, peer.size("chosen").ready)
engine.close()
"""


def run(path: Path, planted: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", RESENDS, str(path)],
        env={**os.environ, "MANYHANDS_PLANT": planted},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_a_resend_after_a_restart_is_recognised(tmp_path: Path) -> None:
    assert run(tmp_path / "jobs.db", planted="") == "1 0"


def test_a_memory_that_a_restart_loses_is_noticed(tmp_path: Path) -> None:
    assert run(tmp_path / "jobs.db", planted="dedupe_lost_at_restart") == "2 1"


def test_a_lease_survives_a_restart_and_can_be_settled(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "jobs.db")
    peer = Peer(engine)
    peer.put("mail", message(b"a letter", options=Options(dedupe=True)))
    delivery = peer.take("mail")
    engine.close()
    assert peer.closings

    engine = SqliteEngine(tmp_path / "jobs.db")
    attached = peer.resume(engine, [delivery.token])

    assert attached.is_resumed
    assert attached.lost == []
    assert peer.ack(delivery)
    engine.close()


def test_the_durability_says_which_setting_was_read_back(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "jobs.db")

    assert engine.durability.level == "disk"
    assert "synchronous=2 FULL" in engine.durability.text
    assert "journal_mode=wal" in engine.durability.text
    engine.close()
