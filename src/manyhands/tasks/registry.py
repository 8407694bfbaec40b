"""Which tasks this process knows, by name."""

from __future__ import annotations

import importlib
from typing import Any

from manyhands.errors import UnknownTask, UsageError
from manyhands.tasks.task import Task

NEED = "task:"
"""Begins what a message needs that no worker could run yet (SettleKind.PARK, events.Offer): "task:mail:send"."""


class Registry:
    """Tasks by name. A process has one, `REGISTRY`, which `@mh.task` fills; tests make their own."""

    def __init__(self) -> None:
        self._tasks: dict[str, Task[..., Any]] = {}

    def add(self, task: Task[..., Any]) -> None:
        """Make a task known. The same function defined anew (a reloaded module, a notebook's cell) replaces itself.

        Raises:
            UsageError: another function has that name.
        """
        known = self._tasks.get(task.name)
        if known is not None and _home(known) != _home(task):
            raise UsageError(
                f"Two tasks are named {task.name!r}: {_home(known)} and {_home(task)}; give one of them another name."
            )
        self._tasks[task.name] = task

    def find(self, name: str, *, may_import: bool = False) -> Task[..., Any]:
        """The task of that name.

        Args:
            may_import: whether to import the module that the name begins with, if it is not known.

        Raises:
            UnknownTask: it is not known; `need` is what a worker must offer to get it.
        """
        task = self._tasks.get(name)
        why = "it is not among the registered tasks"
        module, _, rest = name.partition(":")
        if task is None and may_import and module and rest:
            try:
                importlib.import_module(module)
            except Exception as error:  # an import runs a module's code
                why = f"importing {module} failed with {type(error).__name__}: {error}"
            else:
                task, why = self._tasks.get(name), f"module {module} defines no such task"
        if task is None:
            raise UnknownTask(
                f"Task {name!r} is not known to this worker, because {why}; start one with --import and the module that "
                "defines it.",
                task=name,
                need=NEED + name,
            )
        return task

    def get(self, name: str) -> Task[..., Any] | None:
        """The task of that name, or None."""
        return self._tasks.get(name)

    def needs(self) -> list[str]:
        """What a worker with these tasks offers (`events.Offer`)."""
        return [NEED + name for name in self._tasks]

    def names(self) -> list[str]:
        return sorted(self._tasks)


def _home(task: Task[..., Any]) -> str:
    return f"{task.__module__}:{task.__qualname__}"


REGISTRY = Registry()
