"""Whole programs that compute something: what an executor costs beside real work."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.measure import PROGRAMS, Row, answer, in_turn, median, start

PPE, OURS = "ProcessPoolExecutor", "manyhands"


def grid(runs: int, note: Callable[[str], None], fits: int = 200) -> list[Row]:
    """A grid of numpy fits by `ProcessPoolExecutor` and by `mh.Executor`, the program unchanged but for the executor."""
    found = in_turn(
        {
            PPE: lambda: answer(start(PROGRAMS / "grid.py", "process_pool", fits, 2)),
            OURS: lambda: answer(start(PROGRAMS / "grid.py", "manyhands", fits, 2)),
        },
        min(runs, 3),
        lambda text: note(f"grid: {text}"),
    )
    sums = {run["sum"] for got in found.values() for run in got}
    if max(sums) - min(sums) > 1e-9:
        raise AssertionError(f"the executors' results differ: {sums}")
    seconds = {name: median([run["seconds"] for run in got]) for name, got in found.items()}
    aim = "within 5 %"
    return [
        Row(f"grid of {fits} numpy fits", "s", seconds[OURS], {PPE: seconds[PPE]}, aim, is_less_better=True, detail=found)
    ]
