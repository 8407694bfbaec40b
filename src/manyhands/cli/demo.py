"""`manyhands demo`: the tutorial's program, a master and two workers, as three real processes.

    this process ──starts──> master.py   prints the address that workers can use
         │  └──────starts──> worker.py, worker.py
         └─ reads what all three print, shows it line by line, and a live bar below

The programs are those of examples/tutorial, unchanged.
"""

from __future__ import annotations

import os
import queue
import re
import secrets
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from manyhands.cli.options import JsonOption
from manyhands.cli.output import print_json
from manyhands.errors import ManyhandsError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ADDRESS = re.compile(r"Workers can connect to (\S+)")
RESULT = re.compile(r"Result: (\d+) \* \1 = \d+")
TASKS = 10
COLORS = {"master": "cyan", "worker 1": "green", "worker 2": "magenta"}


class Line(NamedTuple):
    """One line that a program printed; text is None when it will print no more."""

    program: str
    text: str | None


def demo(
    workers: Annotated[int, typer.Option("--workers", min=1, max=16, metavar="N", help="How many worker processes.")] = 2,
    timeout_s: Annotated[
        float, typer.Option("--timeout", min=1, metavar="SECONDS", help="Give up after this many seconds.")
    ] = 60.0,
    as_json: JsonOption = False,
) -> None:
    """Run the tutorial's program: a master and two workers as three processes on this machine.

    \b
    Example: manyhands demo
             manyhands demo --workers 4
    """
    Demo(workers, time.monotonic() + timeout_s, as_json=as_json).run()


def programs_folder() -> Path:
    """Where master.py and worker.py are: installed beside this file, or in a checkout's examples/."""
    installed = Path(__file__).with_name("tutorial")
    return installed if installed.is_dir() else Path(__file__).parents[3] / "examples" / "tutorial"


class Demo:
    """The three processes and what they have said so far. Whatever happens, none of them outlives `run`."""

    def __init__(self, workers: int, deadline_mono: float, *, as_json: bool) -> None:
        self._as_json = as_json
        self._worker_names = [f"worker {n}" for n in range(1, workers + 1)]
        self._deadline_mono = deadline_mono
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._lines: queue.Queue[Line] = queue.Queue()
        self._squared: Counter[str] = Counter()
        self._results = 0
        from rich.console import Console  # see output.py

        self._console = Console(highlight=False, soft_wrap=True)
        # The demo's own key and any free port, so that it disturbs no server that is already there.
        self._environ = {
            **os.environ,
            "MANYHANDS_AUTHKEY": secrets.token_urlsafe(),
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
        }

    def run(self) -> None:
        """Run to the end.

        Raises:
            ManyhandsError: a program failed or the time is over; what it printed was shown.
        """
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        try:
            with Progress(
                *columns, console=self._console, disable=self._as_json or not self._console.is_terminal
            ) as progress:
                bar = progress.add_task("results", total=TASKS)
                self._start("master", "master.py", "127.0.0.1:0")
                self._follow(progress, bar)
        finally:
            for process in self._processes.values():
                process.kill()
                process.wait()
        if self._as_json:
            print_json(
                {"results": self._results, "tasks": TASKS, "shares": [self._squared[name] for name in self._worker_names]}
            )
            return
        shares = ", ".join(f"{name}: {self._squared[name]}" for name in self._worker_names)
        self._console.print(f"{self._results} of {TASKS} results from {len(self._worker_names) + 1} processes ({shares}).")

    def _start(self, name: str, program: str, address: str) -> None:
        process = subprocess.Popen(
            [sys.executable, str(programs_folder() / program), address],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            env=self._environ,
        )
        self._processes[name] = process
        threading.Thread(target=self._read, args=(name, process), name=f"manyhands-demo-{name}", daemon=True).start()

    def _read(self, name: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for text in process.stdout:
                self._lines.put(Line(name, text.rstrip()))
        self._lines.put(Line(name, None))

    def _follow(self, progress: Progress, bar: TaskID) -> None:
        talking = {"master", *self._worker_names}
        while talking:
            try:
                line = self._lines.get(timeout=max(self._deadline_mono - time.monotonic(), 0.01))
            except queue.Empty:
                left = ", ".join(sorted(talking))
                raise ManyhandsError(f"The demo was not done in time; still running: {left}.") from None
            if line.text is None:
                talking.discard(line.program)
                code = self._processes[line.program].wait()
                if code:
                    raise ManyhandsError(f"The demo's {line.program} ended with exit code {code}; what it printed is above.")
                continue
            self._show(progress, line.program, line.text)
            if found := ADDRESS.match(line.text):
                for name in self._worker_names:
                    self._start(name, "worker.py", found[1])
            elif line.text.startswith("run task"):
                self._squared[line.program] += 1
            elif RESULT.fullmatch(line.text):
                self._results += 1
                progress.update(bar, completed=self._results)
        if self._results != TASKS:
            raise ManyhandsError(f"The demo got {self._results} of {TASKS} results; what the programs printed is above.")

    def _show(self, progress: Progress, program: str, text: str) -> None:
        if self._as_json:
            print_json({"program": program, "line": text})
            return
        from rich.text import Text

        progress.console.print(Text.assemble((f"{program:>9}", COLORS.get(program, "blue")), " │ ", text))
