"""What is not a sound store of ours is refused with a sentence, and not one byte of it is changed."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from manyhands.engines.sqlite import SqliteEngine
from manyhands.engines.sqlite.log import damaged_frame
from manyhands.engines.sqlite.store import Store
from manyhands.errors import EngineCorrupt, EngineError, ManyhandsError, UsageError
from manyhands.lifecycle.changes import Freed, Stored
from manyhands.lifecycle.rows import Rows
from manyhands.model import Message

pytestmark = pytest.mark.faults

N_MESSAGES = 400


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with some pages of messages, closed."""
    path = tmp_path / "jobs.db"
    store = Store.open(path)
    store.load(0.0, watermark_kept_s=1.0)
    store.write(Rows([Stored(n, "mail", Message(f"id-{n}", b"%d " % n * 20)) for n in range(1, N_MESSAGES + 1)]))
    store.close()
    return path


def content(folder: Path) -> dict[str, bytes]:
    """Every file that holds anything, but for the owner's mark, which is no part of the store."""
    files = {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix != ".owner"}
    return {name: found for name, found in files.items() if found}


def another_program(path: Path) -> None:
    path.unlink()
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE customers (name TEXT)")
    connection.close()


def a_text_file(path: Path) -> None:
    path.write_text("dear diary\n" * 100)


def a_torn_header(path: Path) -> None:
    path.write_bytes(bytes(512) + path.read_bytes()[512:])


def a_file_cut_off_in_its_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:60])


def a_newer_format(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=3")
    connection.close()


def a_page_of_zeros(path: Path) -> None:
    found = bytearray(path.read_bytes())
    middle = len(found) // 2 // 4096 * 4096
    found[middle : middle + 4096] = bytes(4096)
    path.write_bytes(found)


def a_file_cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])


def a_log_without_its_file(path: Path) -> None:
    path.unlink()
    Path(f"{path}-wal").write_bytes(b"something")


def a_log_beside_an_empty_file(path: Path) -> None:
    path.write_bytes(b"")
    Path(f"{path}-wal").write_bytes(b"something")


@pytest.mark.parametrize(
    ("damage", "error", "says"),
    [
        (another_program, UsageError, "another program"),
        (a_text_file, EngineCorrupt, "another kind of file"),
        (a_torn_header, EngineCorrupt, "damaged"),
        (a_file_cut_off_in_its_header, EngineCorrupt, "damaged"),
        (a_newer_format, UsageError, "format 3"),
        (a_page_of_zeros, EngineCorrupt, "damaged"),
        (a_file_cut_in_half, EngineCorrupt, "damaged"),
        (a_log_without_its_file, EngineCorrupt, "write-ahead log"),
        (a_log_beside_an_empty_file, EngineCorrupt, "write-ahead log"),
    ],
)
def test_what_cannot_be_trusted_is_refused_and_left_as_it_is(
    path: Path, damage: Callable[[Path], None], error: type[ManyhandsError], says: str
) -> None:
    damage(path)
    before = content(path.parent)

    with pytest.raises(error, match=says):
        SqliteEngine(path)

    assert content(path.parent) == before


def test_a_refused_file_can_be_replaced_and_opened_in_the_same_process(path: Path) -> None:
    good = path.read_bytes()
    a_page_of_zeros(path)
    with pytest.raises(EngineCorrupt):
        SqliteEngine(path)

    path.unlink()
    path.write_bytes(good)

    SqliteEngine(path).close()


def test_an_empty_file_is_a_new_store(tmp_path: Path) -> None:
    (tmp_path / "touched.db").touch()

    SqliteEngine(tmp_path / "touched.db").close()

    assert (tmp_path / "touched.db").stat().st_size > 0


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="folder"):
        SqliteEngine(tmp_path / "missing" / "jobs.db")


def test_flipped_bits_are_refused_or_survived_but_never_take_a_message_away(path: Path, tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    good = path.read_bytes()
    flipped_path = tmp_path / "flipped.db"
    refused = 0
    for _ in range(150):
        flipped = bytearray(good)
        flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        flipped_path.write_bytes(flipped)
        try:
            store = Store.open(flipped_path)
        except ManyhandsError:
            refused += 1
            flipped_path.unlink()
            continue
        try:
            found = store.load(0.0, watermark_kept_s=1.0)
        except ManyhandsError:
            refused += 1
            store.abandon()
            flipped_path.unlink()
            continue
        assert len(found.messages) == N_MESSAGES
        store.close()
    print(f"{refused} of 150 refused")
    assert refused > 0


# -- the log --------------------------------------------------------------------------------------------------------


@pytest.fixture
def crashed(tmp_path: Path) -> Path:
    """A store whose process ended without closing it: twelve transactions lie in the log."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from manyhands.lifecycle.rows import Rows\n"
        "from manyhands.engines.sqlite.store import Store\n"
        "from manyhands.lifecycle.changes import Freed, Stored\n"
        "from manyhands.model import Message\n"
        "store = Store.open(Path(sys.argv[1]))\n"
        "store.load(0.0, watermark_kept_s=1.0)\n"
        "for n in range(1, 13):\n"
        "    store.write(Rows([Stored(n, 'mail', Message(f'id-{n}', bytes(3000)))]))\n"
        "os._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "crashed.db")], check=True, timeout=60)
    return tmp_path / "crashed.db"


def test_a_log_is_read_after_a_crash(crashed: Path) -> None:
    assert damaged_frame(Path(f"{crashed}-wal")) == 0
    store = Store.open(crashed)
    assert len(store.load(0.0, watermark_kept_s=1.0).messages) == 12
    store.close()


def test_a_flipped_bit_in_the_log_is_refused_or_takes_the_last_transactions_only(crashed: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    log = Path(f"{crashed}-wal")
    good_file, good_log = crashed.read_bytes(), log.read_bytes()
    refused = 0
    for _ in range(60):
        flipped = bytearray(good_log)
        flipped[chance.randrange(8, len(flipped))] ^= 1 << chance.randrange(8)
        crashed.write_bytes(good_file)
        log.write_bytes(flipped)
        try:
            store = Store.open(crashed)
        except EngineCorrupt:
            assert log.read_bytes() == flipped
            refused += 1
            continue
        assert len(store.load(0.0, watermark_kept_s=1.0).messages) >= 10
        store.close()
    assert refused > 30


def test_a_log_cut_off_anywhere_is_a_power_cut_and_no_damage(crashed: Path) -> None:
    log = Path(f"{crashed}-wal")
    content = log.read_bytes()
    for length in range(0, len(content), 1111):
        log.write_bytes(content[:length])
        assert damaged_frame(log) == 0


def test_a_store_of_the_format_before_this_one_is_upgraded(path: Path) -> None:
    older = sqlite3.connect(path)
    for statement in (
        "DROP INDEX ended_stream",
        "DROP TABLE ended",
        *(f"ALTER TABLE state DROP COLUMN {column}" for column in ("need", "first", "last")),
        "PRAGMA user_version=1",
    ):
        older.execute(statement)
    older.close()

    for _ in range(2):  # and once it is, it is opened like any other
        store = Store.open(path)
        found = store.load(0.0, watermark_kept_s=1.0)
        store.write(Rows([Freed(1, 0, False, 0.0, [], "task:rare")]))
        store.close()
        assert len(found.messages) == N_MESSAGES

    assert found.messages[0].need == "task:rare"
