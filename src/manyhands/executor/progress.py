"""The bar of `map(progress=True)`: how many results were taken, at what rate, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

T = TypeVar("T")

_SHOW_EVERY = 64


class RateColumn(ProgressColumn):
    """Results a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(
            "" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.2f}/s", style="progress.data.speed"
        )


def with_bar(results: Iterator[T], total: int | None, what: str) -> Iterator[T]:
    """The same results, with a bar while they are taken."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    task = bar.add_task(what, total=total)
    unshown = 0
    shown_at = bar.get_time()
    with bar:
        for one in results:
            unshown += 1
            if unshown >= _SHOW_EVERY or bar.get_time() - shown_at > 0.1:
                bar.advance(task, unshown)
                unshown, shown_at = 0, bar.get_time()
            yield one
        bar.advance(task, unshown)
