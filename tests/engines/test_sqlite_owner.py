"""One process owns a store, its lock dies with it, and a forked child touches nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manyhands.engines.sqlite import SqliteEngine
from manyhands.errors import EngineBusy
from manyhands.testing.contract import Peer, message

pytestmark = pytest.mark.faults

OWNS = """
import sys
from manyhands.engines.sqlite import SqliteEngine
engine = SqliteEngine(sys.argv[1])
print("open", flush=True)
sys.stdin.readline()
"""

FORKS = """
import gc, os, sys
from manyhands.engines.sqlite import SqliteEngine
from manyhands.errors import UsageError
from manyhands.testing.contract import Peer, message

engine = SqliteEngine(sys.argv[1])
peer = Peer(engine)
peer.put("mail", message(b"before"))
child = os.fork()
if not child:
    for use in (lambda: Peer(engine), lambda: peer.put("mail", message(b"by the child"))):
        try:
            use()
            os._exit(1)
        except UsageError:
            pass
    engine.close()
    del engine, peer, use
    gc.collect()
    sys.exit(0)  # an ordinary end, with everything freed
_, status = os.waitpid(child, 0)
assert status == 0, status
peer.put("mail", message(b"after"))
assert [delivery.message.body for delivery in peer.lease("mail", 9)] == [b"before", b"after"]
os._exit(0)  # a crash: whatever is on the disk now must be enough
"""

LEAVES_A_CHILD = """
import os, sys
from manyhands.engines.sqlite import SqliteEngine
engine = SqliteEngine(sys.argv[1])
if not os.fork():
    print("forked", flush=True)
    sys.stdin.readline()
os._exit(0)
"""

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork, so nothing is inherited")


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has the store open."""
    command = [sys.executable, "-c", OWNS, str(tmp_path / "jobs.db")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_told_who_owns_the_store_and_how_to_serve_it(
    tmp_path: Path, owner: subprocess.Popen[str]
) -> None:
    with pytest.raises(EngineBusy) as refusal:
        SqliteEngine(tmp_path / "jobs.db")

    assert refusal.value.pid == owner.pid
    assert f"process {owner.pid}" in str(refusal.value)
    assert f"manyhands serve --store sqlite:///{tmp_path / 'jobs.db'}" in str(refusal.value)


def test_the_lock_dies_with_its_process(tmp_path: Path, owner: subprocess.Popen[str]) -> None:
    owner.kill()
    owner.wait(timeout=30)

    SqliteEngine(tmp_path / "jobs.db").close()


def test_the_same_process_cannot_open_a_store_twice_but_again_after_closing(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "jobs.db")
    with pytest.raises(EngineBusy, match="this process"):
        SqliteEngine(tmp_path / "jobs.db")
    engine.close()

    SqliteEngine(tmp_path / "jobs.db").close()


@pytest.mark.skipif(sys.platform == "win32", reason="making links needs a privilege on Windows")
def test_two_names_of_one_file_meet_at_one_lock(tmp_path: Path) -> None:
    engine = SqliteEngine(tmp_path / "jobs.db")
    (tmp_path / "other.db").symlink_to(tmp_path / "jobs.db")

    with pytest.raises(EngineBusy):
        SqliteEngine(tmp_path / "other.db")
    engine.close()


def run(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", program, str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@needs_fork
def test_a_forked_child_can_neither_use_nor_harm_its_parents_store(tmp_path: Path) -> None:
    done = run(FORKS, tmp_path / "jobs.db")

    assert done.returncode == 0, done.stderr
    engine = SqliteEngine(tmp_path / "jobs.db")
    peer = Peer(engine)
    assert peer.size("mail").leased == 2
    peer.put("mail", message())
    engine.close()


@needs_fork
def test_a_forked_child_that_outlives_its_parent_does_not_hold_the_store(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", LEAVES_A_CHILD, str(tmp_path / "jobs.db")]
    parent = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "forked\n"
    assert parent.wait(timeout=30) == 0

    SqliteEngine(tmp_path / "jobs.db").close()

    parent.communicate("\n", timeout=30)  # the child, which lives until it is told
