"""Numbers pass from producers through workers to a collector while faults happen: the tutorial's program, as processes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import manyhands as mh

from .cluster import Programs, until

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
    """Results that came more than once, although their ids derive from their tasks'."""
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


def pass_all(programs: Programs, url: str, client: mh.Client, tasks: int, faults: Sequence[Callable[[], object]]) -> Passed:
    """Put that many tasks through, the faults spread evenly over them, and fail for one that is lost or invented.

    Args:
        url: for producers and workers.
        client: of the test's own: it collects.
    """
    each = tasks // PRODUCERS
    for name in producers():
        programs.run(name, "producer", url, name, str(each), str(programs.journal(name)))
    for name in workers():
        programs.run(name, "worker", url, str(programs.journal(name)))
    next_at = [tasks * (n + 1) // (len(faults) + 1) for n in range(len(faults))]
    left = list(faults)
    times = [time.monotonic()]
    results: Counter[tuple[str, int]] = Counter()
    collected = client.queue("results")
    while len(results) < tasks:
        name, number, square = collected.get(timeout=_WAITS_S)
        assert square == number * number
        results[name, number] += 1
        if left and len(results) >= next_at[len(times) - 1]:
            left.pop(0)()
            times.append(time.monotonic())
    assert not left, "the tasks were over before the faults"
    until(lambda: all(map(programs.is_over, producers())), "the producers end")
    assert [programs.processes[name].returncode for name in producers()] == [0] * PRODUCERS, programs.errors()
    queue = client.queue("tasks")
    until(lambda: queue.qsize() == 0, "nothing is left")
    assert not client.dead("tasks").list()
    queue.shutdown()
    until(lambda: all(map(programs.is_over, workers())), "the workers end")
    assert programs.errors() == ""

    assert results.keys() == {(name, number) for name in producers() for number in range(each)}, "lost or invented"
    runs = Counter(line for name in workers() for line in programs.lines(name))
    return Passed(
        tasks=tasks,
        runs=runs.total(),
        repeats=runs.total() - len(runs),
        twice=[task for task, n in results.items() if n > 1],
        between_faults_s=(times[-1] - times[0]) / (len(times) - 1 or 1),
    )
