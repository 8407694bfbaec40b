"""Numbers pass from producers through workers to a collector while faults happen: the tutorial's program, as processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import manyhands as mh

from .cluster import Programs, until
from .programs import CONNECT_S, KEY

PRODUCERS, WORKERS = 2, 3
IN_HAND = 20
"""How many tasks of no length a process may have run and not yet settled: a few milliseconds of them."""
_WAITS_S = 60.0


@dataclass(frozen=True)
class Passed:
    """What came of it, once every number had come out, nothing was left, and all programs had ended by themselves."""

    tasks: int
    runs: int
    repeats: int
    twice: list[tuple[str, int]]
    """Of which tasks two results came, although a result's id derives from its task's."""
    between_faults_s: float
    """The mean."""

    def __str__(self) -> str:
        return (
            f"{self.tasks} tasks, {self.runs} runs, {self.repeats} repeats, {len(self.twice)} results twice; "
            f"a fault every {self.between_faults_s:.1f} s"
        )


def producers() -> list[str]:
    return [f"p{n}" for n in range(PRODUCERS)]


def workers() -> list[str]:
    return [f"worker{n}" for n in range(WORKERS)]


class _Results:
    """What the collector has written down so far."""

    def __init__(self, programs: Programs, tasks: int) -> None:
        self.first: Counter[tuple[str, int]] = Counter()
        """Deliveries, but for those of a result whose last holder was lost."""
        self.seen: set[tuple[str, int]] = set()
        self._path = programs.journal("collector")
        self._tasks = tasks
        self._read = 0

    def reach(self, number: int) -> None:
        """Wait until that many different results are there; none for _WAITS_S is a failure."""
        while len(self.seen) < number:
            before = len(self.seen)
            until(lambda before=before: self._look() > before, f"more results than {before} of {self._tasks}", _WAITS_S)  # type: ignore[misc]

    def _look(self) -> int:
        if self._path.exists():
            with self._path.open("rb") as journal:
                journal.seek(self._read)
                new = journal.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            for line in whole.decode().splitlines():
                name, *numbers = line.split()
                task, square, attempt = map(int, numbers)
                assert square == task * task
                self.seen.add((name, task))
                self.first[name, task] += attempt == 1
        return len(self.seen)


def _allow(programs: Programs, tasks: int) -> None:
    """Let the producers go on until that many tasks are put."""
    for name in producers():
        path = programs.journal(name)
        new = path.with_suffix(".new")
        new.write_text(str(-(-tasks // PRODUCERS)), encoding="utf-8")
        new.replace(f"{path}.allowed")


def pass_all(
    programs: Programs, url: str, tasks: int, faults: Sequence[Callable[[], object]], *, direct_url: str = ""
) -> Passed:
    """Put that many tasks through, the faults spread evenly over them, and fail for one that is lost or invented.

    Args:
        url: for all programs but the collector.
        direct_url: for the collector and the questions at the end, where it differs.
    """
    each = tasks // PRODUCERS
    programs.run("collector", "collector", direct_url or url, str(programs.journal("collector")))
    for name in producers():
        programs.run(name, "producer", url, name, str(each), str(programs.journal(name)))
    for name in workers():
        programs.run(name, "worker", url, str(programs.journal(name)))
    results = _Results(programs, tasks)
    times = [time.monotonic()]
    slices = [tasks * n // (len(faults) + 1) for n in range(1, len(faults) + 2)]
    for fault, here, there in zip(faults, slices, slices[1:], strict=False):
        # Not more than one slice ahead: each fault finds programs at work, however long the one before took.
        _allow(programs, there)
        results.reach(here)
        fault()
        times.append(time.monotonic())
    _allow(programs, tasks)
    results.reach(tasks)
    until(lambda: all(map(programs.is_over, producers())), "the producers end")
    assert [programs.processes[name].returncode for name in producers()] == [0] * PRODUCERS, programs.errors()
    with mh.connect(direct_url or url, KEY, timeout_s=CONNECT_S) as client:
        for queue in (client.queue("tasks"), client.queue("results")):
            until(lambda queue=queue: queue.qsize() == 0, f"nothing is left of {queue.name}")  # type: ignore[misc]
            assert not client.dead(queue.name).list()
            queue.shutdown()
        until(lambda: all(map(programs.is_over, [*workers(), "collector"])), "the workers and the collector end")
    assert programs.errors() == ""

    assert results.seen == {(name, number) for name in producers() for number in range(each)}, "lost or invented"
    runs = Counter(line for name in workers() for line in programs.lines(name))
    return Passed(
        tasks=tasks,
        runs=runs.total(),
        repeats=runs.total() - len(runs),
        twice=[task for task, n in results.first.items() if n > 1],
        between_faults_s=(times[-1] - times[0]) / (len(times) - 1 or 1),
    )
