"""mh.Executor under the standard library's name, with the few private attributes that CPython's own tests look at."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from typing import Any

import manyhands as mh

_DEADLINE_S = 30.0


class _Process:
    """A child, as multiprocessing would show it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def join(self) -> None:
        """Wait until it is gone; the tests mean to see that it is."""
        deadline = time.monotonic() + _DEADLINE_S
        while self._is_alive():
            assert time.monotonic() < deadline, f"child {self.pid} lives on"
            time.sleep(0.01)

    def terminate(self) -> None:
        os.kill(self.pid, 15)

    def _is_alive(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True


class _Processes:
    """The children that there are, looked up when asked; those that were seen once are remembered."""

    def __init__(self, executor: mh.Executor) -> None:
        self._executor = weakref.ref(executor)  # a test may keep this and drop the executor
        self._home: Any = None
        self._seen: dict[int, _Process] = {}

    def _look(self) -> dict[int, _Process]:
        executor = self._executor()
        home = self._home = executor._home if executor is not None else self._home
        deadline = time.monotonic() + _DEADLINE_S
        while home is not None and not home._is_closed and len(home._crew.children) < home._n_started:
            assert time.monotonic() < deadline, "children that are needed were not started"
            time.sleep(0.01)
        for child in home._crew.children if home is not None else ():
            self._seen.setdefault(child.pid, _Process(child.pid))
        return self._seen

    def __len__(self) -> int:
        return len(self._look())

    def values(self) -> Iterator[_Process]:
        return iter(list(self._look().values()))


class _Thread:
    """What stands for the executor's threads and queues: the tests join it to see the end."""

    def __init__(self, executor: mh.Executor) -> None:
        self._home: Any = executor._home

    def join(self) -> None:
        deadline = time.monotonic() + _DEADLINE_S
        while not self._home._is_closed:
            assert time.monotonic() < deadline, "the executor was not cleaned up"
            time.sleep(0.01)

    join_thread = join


class ProcessPoolExecutor(mh.Executor):
    """See the module's text."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._processes = _Processes(self)

    @property
    def _executor_manager_thread(self) -> _Thread:
        return _Thread(self)

    _call_queue = _executor_manager_thread
