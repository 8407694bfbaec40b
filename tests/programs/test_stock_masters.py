"""The tutorial's worker with its import changed, and a master as it was: half of a cluster has moved."""

from __future__ import annotations

from pathlib import Path

import pytest

from .lab import Lab, program_text
from .test_killed_workers import WORKER, results, start_master, stop
from .test_troubles import changed

pytestmark = pytest.mark.programs


def test_the_tutorials_worker_works_for_a_master_that_still_runs_the_standard_library(tmp_path: Path) -> None:
    with Lab(tmp_path) as lab:
        master = start_master(lab, ours=False)
        worker = changed(program_text(WORKER), "range(10)", "range(3)")
        workers = [lab.start(f"worker{n}", worker) for n in range(2)]
        for program in workers:
            program.prints("Connect to server")
        master.say("put 1 2 3")
        master.say("collect 3 10")
        master.prints("collected")
        assert sorted(results(master)) == [1, 2, 3]
        stop(master)
        for program in workers:
            program.ends_quietly()  # also the one that was waiting in get when the master ended
