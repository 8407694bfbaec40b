"""The small parts of a worker: sizes, memory, health, watched files. Nothing is started."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from manyhands.errors import AddressInUse, UnsupportedFeature, UsageError
from manyhands.worker import limits, reloading, windows
from manyhands.worker.health import STALE_HEARTBEATS, Health, HealthServer, parse_where
from manyhands.worker.starting import words
from worker.chores import fetch


@pytest.mark.parametrize(
    ("text", "size"),
    [("500M", 500 * 2**20), ("1.5 GiB", 3 * 2**29), ("64k", 2**16), ("800000", 800000), ("2gb", 2**31), ("1T", 2**40)],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert limits.size_bytes(text) == size


@pytest.mark.parametrize("text", ["", "many", "-5M", "0", "5X", "1e3M", "M"])
def test_what_is_no_size_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="500M"):
        limits.size_bytes(text)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell")
def test_the_memory_of_a_process_is_known_while_it_lives() -> None:
    of = limits.memory_meter()
    before = of(os.getpid())
    kept = b"x" * (64 * 2**20)
    assert of(os.getpid()) - before > 32 * 2**20
    assert len(kept)
    assert of(2**22 + 1) == 0


def test_windows_is_asked_for_a_processs_working_set_and_every_handle_is_closed() -> None:
    closed: list[int] = []

    def fill(handle: int, counters: Any, size: int) -> int:
        told = counters._obj
        assert size == ctypes.sizeof(told) == told.cb == 8 + 8 * ctypes.sizeof(ctypes.c_size_t)
        told.working_set_size = 5 * 2**20
        return handle != 13

    def handle_of(access: int, inherit: bool, pid: int) -> int | None:
        assert (access, inherit) == (0x1000, False)
        return pid or None

    of = windows.memory_meter_of(windows.KernelCalls(handle_of, fill, lambda handle: closed.append(handle) or 1))
    assert [of(pid) for pid in (12, 13, 0)] == [5 * 2**20, 0, 0]
    assert closed == [12, 13]


def test_a_platform_that_does_not_tell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_STATM", Path("/no/such/file"))
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(UnsupportedFeature, match="--max-tasks-per-child"):
        limits.memory_meter()


def health(**changes: object) -> Health:
    fields = {"now": 100.0, "heard_mono": 99.0, "heartbeat_s": 5.0, "wanted": 2, "ready": 2, "busy": 1, **changes}
    return Health(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("state", "status", "says"),
    [
        (health(), 200, "ok"),
        (health(is_draining=True, ready=0), 200, "draining"),
        (health(heard_mono=0.0), 503, "not been reached"),
        (health(heard_mono=100.0 - STALE_HEARTBEATS * 5.0), 200, "ok"),
        (health(heard_mono=99.9 - STALE_HEARTBEATS * 5.0), 503, "nothing was heard"),
        (health(is_draining=True, heard_mono=1.0), 503, "nothing was heard"),
        (health(ready=0), 503, "no child is ready yet"),
        (health(ready=0, failure="x"), 503, "no child can work"),
        (health(ready=1), 200, "ok"),
        (health(silent_s=20.0), 200, "ok"),
        (health(silent_s=20.1), 503, "a child that waits for work has heard nothing from the server for 20 s"),
    ],
)
def test_a_worker_is_healthy_while_the_server_answers_and_somebody_can_work(state: Health, status: int, says: str) -> None:
    code, document = state.answer()
    assert code == status
    assert says in document.get("why", document["status"])


def test_probes_are_answered_and_strangers_learn_nothing() -> None:
    server = HealthServer("127.0.0.1:0", health)
    try:
        assert fetch(server.url)[0] == 200
        with pytest.raises(ValueError, match="Expecting value"):  # the page of a 404 is no document
            fetch(server.url.replace("healthz", "metrics"))
        with pytest.raises(AddressInUse, match="choose another"):
            HealthServer(server.url.removeprefix("http://").removesuffix("/healthz"), health)
    finally:
        server.close()
    with pytest.raises(OSError, match="refused"):
        fetch(server.url)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("8080", ("127.0.0.1", 8080)),
        (":8080", ("127.0.0.1", 8080)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:2", ("::1", 2)),
    ],
)
def test_the_address_of_healthz(text: str, where: tuple[str, int]) -> None:
    assert parse_where(text) == where


def test_watched_files_are_those_beside_what_is_imported(tmp_path: Path) -> None:
    for name in ("app/__init__.py", "app/tasks.py", "helper.py", ".venv/lib.py", "app/__pycache__/x.py", "notes.txt"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("raise RuntimeError('nobody imports this')")
    folders = reloading.roots(["app.tasks", "json", "pytest", "no_such_module"], [str(tmp_path), *sys.path])
    assert folders == [tmp_path.resolve()]
    before = reloading.stamps(folders)
    assert {Path(file).relative_to(tmp_path).as_posix() for file in before} == {
        "app/__init__.py",
        "app/tasks.py",
        "helper.py",
    }
    assert reloading.changed(before, reloading.stamps(folders)) == []
    os.utime(tmp_path / "helper.py", ns=(1, 1))
    (tmp_path / "new.py").touch()
    (tmp_path / "app" / "tasks.py").unlink()
    changed = reloading.changed(before, reloading.stamps(folders))
    assert [Path(file).name for file in changed] == ["tasks.py", "helper.py", "new.py"]


def test_how_a_process_ended_is_said_in_words() -> None:
    assert words(3) == "ended with exit code 3"
    assert words(-9) == ("was killed by SIGKILL" if sys.platform != "win32" else "was killed by signal 9")
    assert words(-250) == "was killed by signal 250"
