"""Which server and which key: argument, environment, and the key kept for a user."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from manyhands import settings
from manyhands.errors import UsageError

POSIX_ONLY = pytest.mark.skipif(
    os.name != "posix", reason="file modes and owners are POSIX's; elsewhere the folder protects"
)


@pytest.fixture(autouse=True)
def empty_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user with no settings and no kept key."""
    monkeypatch.delenv(settings.KEY_VARIABLE, raising=False)
    monkeypatch.delenv(settings.URL_VARIABLE, raising=False)
    for variable in ("XDG_STATE_HOME", "LOCALAPPDATA", "HOME"):
        monkeypatch.setenv(variable, str(tmp_path))
    return tmp_path


def test_the_argument_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.KEY_VARIABLE, "from the environment")
    monkeypatch.setenv(settings.URL_VARIABLE, "tcp://elsewhere")
    assert settings.find_key("given", is_loopback=True, what="x").keyring.raw == b"given"
    assert settings.find_key(None, is_loopback=False, what="x").keyring.raw == b"from the environment"
    assert settings.find_url("tcp://given") == "tcp://given"
    assert settings.find_url(None) == "tcp://elsewhere"


def test_text_and_bytes_are_the_same_key() -> None:
    as_text = settings.find_key("schlüssel", is_loopback=True, what="x").keyring
    as_bytes = settings.find_key("schlüssel".encode(), is_loopback=True, what="x").keyring
    assert as_text.first.id == as_bytes.first.id


@pytest.mark.parametrize("bad", ["", b"", 123])
def test_an_empty_key_or_a_number_is_refused(bad: object) -> None:
    with pytest.raises(UsageError, match="authkey"):
        settings.find_key(bad, is_loopback=True, what="x")  # type: ignore[arg-type]


def test_an_empty_variable_is_refused_rather_than_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.KEY_VARIABLE, "")
    with pytest.raises(UsageError, match="set but empty"):
        settings.find_key(None, is_loopback=True, what="x")


def test_beyond_loopback_no_key_is_made_up(empty_state: Path) -> None:
    with pytest.raises(UsageError, match="needs a key"):
        settings.find_key(None, is_loopback=False, what="tcp://10.0.0.5")
    assert not settings.key_file().exists()


def test_on_loopback_a_key_is_made_once_and_kept() -> None:
    first = settings.find_key(None, is_loopback=True, what="x")
    second = settings.find_key(None, is_loopback=True, what="x")
    assert first.keyring.raw == second.keyring.raw
    assert len(first.keyring.raw) >= settings.GENERATED_BYTES
    assert first.source == str(settings.key_file())
    assert first.keyring.raw.decode() not in repr(first)
    assert [path.name for path in settings.key_file().parent.iterdir()] == ["authkey"], "a draft was left behind"


@POSIX_ONLY
def test_the_kept_key_is_for_its_owner_only() -> None:
    settings.find_key(None, is_loopback=True, what="x")
    assert settings.key_file().stat().st_mode & 0o777 == 0o600
    assert settings.key_file().parent.stat().st_mode & 0o777 == 0o700


@POSIX_ONLY
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_kept_key_that_others_can_reach_is_refused(mode: int) -> None:
    settings.find_key(None, is_loopback=True, what="x")
    settings.key_file().chmod(mode)
    with pytest.raises(UsageError, match="can be read by other users"):
        settings.find_key(None, is_loopback=True, what="x")


def test_an_empty_key_file_is_refused() -> None:
    path = settings.key_file()
    path.parent.mkdir(parents=True)
    path.touch(mode=0o600)
    with pytest.raises(UsageError, match="is empty"):
        settings.find_key(None, is_loopback=True, what="x")


def test_a_folder_that_cannot_be_made_gets_a_sentence(empty_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = empty_state / "a file"
    in_the_way.touch()
    monkeypatch.setattr(settings, "state_folder", lambda: in_the_way / "manyhands")
    with pytest.raises(UsageError, match="cannot be used"):
        settings.find_key(None, is_loopback=True, what="x")


def test_who_loses_the_race_uses_the_winner_s_key(monkeypatch: pytest.MonkeyPatch) -> None:
    path = settings.key_file()
    real = os.fsync

    def another_process_was_faster(descriptor: int) -> None:
        real(descriptor)
        if not path.exists():
            path.write_text("the winner's key\n")
            path.chmod(0o600)

    monkeypatch.setattr(os, "fsync", another_process_was_faster)
    assert settings.kept_key(path) == b"the winner's key"


@pytest.mark.programs
def test_processes_that_start_at_once_all_use_one_key() -> None:
    program = "import sys; from manyhands import settings; sys.stdout.write(settings.kept_key(settings.key_file()).decode())"
    processes = [subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) for _ in range(4)]
    keys = {process.communicate(timeout=60)[0] for process in processes}
    assert len(keys) == 1
    assert keys != {b""}


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="XDG folders are Linux's and the BSDs'")
def test_a_relative_xdg_folder_is_ignored(empty_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    assert settings.state_folder() == empty_state / ".local" / "state" / "manyhands"
