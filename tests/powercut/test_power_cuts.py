"""Power cuts of a real run: nothing acknowledged is lost at any of 300 moments, and each planted bug is noticed.

The workload runs in a child whose every write and sync is traced (shim.c). For each moment the files are rebuilt as a
power cut could have left them (disk.py): synced writes are there, each later one is kept, dropped or torn at random. The
shipped store opens what is left, and checker.py compares it with what the workload had been told.
"""

from __future__ import annotations

import json
import os
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from manyhands.engines.sqlite import SqliteEngine
from manyhands.errors import ManyhandsError
from powercut import tracing
from powercut.checker import Known, complaints
from powercut.disk import Disk
from powercut.tracing import MARKS, Record

pytestmark = pytest.mark.faults

CUTS = 300
SEED = int(os.environ.get("MANYHANDS_SEED", random.randrange(1 << 32)))
STORE_FILES = ("jobs.db", "jobs.db-wal", "jobs.db-journal")


@dataclass
class Verdict:
    """What came of all cuts of one run."""

    cuts: int = 0
    acked: int = 0
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def images() -> Iterator[Path]:
    """Where the images lie: in memory if there is such a place, because 300 of them are synced when they are opened."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def moments(records: list[Record], chance: random.Random, n: int) -> set[int]:
    """Where to cut: a third right after the workload was told something (there a lie shows), the rest anywhere."""
    told = [i + 1 for i, record in enumerate(records) if record.name == MARKS]
    chosen = set(chance.sample(told, min(len(told), n // 3)))
    anywhere = [i for i in range(len(records) + 1) if i not in chosen]
    return chosen | set(chance.sample(anywhere, n - len(chosen)))


def judge(records: list[Record], images: Path, seed: int, cuts: int) -> Verdict:
    """Cut the run at `cuts` moments and look at each image."""
    chance = random.Random(seed)
    cut_at = moments(records, chance, cuts)
    disk, known, verdict = Disk(), Known(), Verdict()
    for i in range(len(records) + 1):
        if i in cut_at:
            folder = images / str(i)
            folder.mkdir()
            disk.cut(folder, chance, STORE_FILES.__contains__)
            verdict.cuts += 1
            verdict.complaints += [f"cut {i}: {said}" for said in _look(folder, known)]
            for file in folder.iterdir():
                file.unlink()
        if i < len(records):
            known.learn(records[i])
            if records[i].name != MARKS:
                disk.replay(records[i])
    verdict.acked = len(known.puts)
    return verdict


def _look(folder: Path, known: Known) -> list[str]:
    try:
        return list(complaints(folder, known))
    except ManyhandsError as error:
        return [f"does not open: {error}"]


def test_no_acknowledged_message_is_lost_at_any_of_300_power_cuts(shim: Path, tmp_path: Path, images: Path) -> None:
    print(f"repeat with MANYHANDS_SEED={SEED}")
    records = tracing.run(shim, tmp_path / "run", seed=SEED)

    verdict = judge(records, images, SEED, CUTS)

    print(f"{verdict.cuts} images of a run of {len(records)} calls and {verdict.acked} acknowledged puts")
    assert verdict.complaints == []
    assert verdict.cuts == CUTS


def test_the_run_that_is_cut_has_everything_that_can_go_wrong(shim: Path, tmp_path: Path) -> None:
    records = tracing.run(shim, tmp_path / "run", seed=SEED)

    calls = Counter((record.kind, record.name) for record in records)
    marks = Counter(kind for record in records for kind in ("put", "got", "settled") if f'"{kind}"'.encode() in record.data)
    assert calls["S", "jobs.db-wal"] > 100, "commits"
    assert calls["S", "jobs.db"] > 3, "checkpoints"
    assert calls["U", "jobs.db-wal"] == 1, "a clean close in the middle"
    assert min(marks.values()) > 50, marks


@pytest.mark.parametrize("planted", ["ack_before_fsync", "synchronous_normal"])
def test_a_planted_bug_turns_the_same_check_red(shim: Path, tmp_path: Path, images: Path, planted: str) -> None:
    print(f"repeat with MANYHANDS_SEED={SEED}")
    records = tracing.run(shim, tmp_path / "run", seed=SEED, planted=planted)

    verdict = judge(records, images, SEED, 100)

    noticed = [said for said in verdict.complaints if "acknowledged and is lost" in said or "does not open" in said]
    assert noticed, f"{verdict.cuts} cuts and nobody noticed {planted}"


def test_the_engine_starts_and_works_on_what_a_cut_leaves(shim: Path, tmp_path: Path, images: Path) -> None:
    records = tracing.run(shim, tmp_path / "run", seed=SEED)
    chance = random.Random(SEED)
    cut_at = moments(records, chance, 15)
    disk = Disk()
    for i, record in enumerate(records):
        if i in cut_at:
            folder = images / str(i)
            folder.mkdir()
            disk.cut(folder, chance, STORE_FILES.__contains__)
            engine = SqliteEngine(folder / "jobs.db")
            engine.close()
            assert (folder / "jobs.db").stat().st_size > 0
        if record.name != MARKS:
            disk.replay(record)


def test_after_a_failed_sync_nothing_is_acknowledged_until_the_store_is_opened_again(shim: Path, tmp_path: Path) -> None:
    records = tracing.run(shim, tmp_path / "run", seed=SEED, fail_sync=40)

    known = Known(may_fail=True)
    kinds = []
    for record in records:
        known.learn(record)
        if record.name == MARKS:
            kinds.append(json.loads(record.data)["what"])
    first_failed = kinds.index("failed")
    until_reopened = kinds[first_failed : kinds.index("open", first_failed)]
    assert set(until_reopened) <= {"failed", "try"}
    assert "put" in kinds[first_failed + len(until_reopened) :], "the reopened store works"
    assert all("failed" in text and "open the store again" in text for text in known.failed)
    assert list(complaints(tmp_path / "run" / "store", known)) == []
