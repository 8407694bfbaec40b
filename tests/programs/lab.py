"""Runs masters and workers as separate processes over TCP, each group on a network of its own.

The tutorial's programs all use port 5000. Where the system allows it (Linux, as root or with user namespaces), every `Lab`
has its own network namespace with nothing but a loopback device, so that many run side by side; elsewhere labs share the
host's network and take turns.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType

HERE = Path(__file__).parent
RUNNER = HERE / "runner.py"
STDLIB_IMPORT = "from multiprocessing.managers import BaseManager"
OUR_IMPORT = "from manyhands.managers import BaseManager"

_the_host = threading.RLock()  # a test may have several labs at once; they then share the host's ports


def program_text(name: str, *, ours: bool = True) -> str:
    """A program's source; ours: with its one import line changed, and nothing else."""
    text = (HERE / name).read_text(encoding="utf-8")
    assert text.count(STDLIB_IMPORT) == 1, f"{name} must have the line {STDLIB_IMPORT!r} exactly once"
    return text.replace(STDLIB_IMPORT, OUR_IMPORT) if ours else text


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until the condition holds; fail with the reason when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.02)


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until it holds: the signal goes to one thread, and the others run on until that one has run."""
    os.kill(pid, signal.SIGSTOP)
    tasks = Path(f"/proc/{pid}/task")
    if tasks.is_dir():  # Linux
        until(
            lambda: all(_state(task) in "Tt" for task in tasks.iterdir()), "every thread of the frozen process stands still"
        )


def _state(task: Path) -> str:
    try:
        return (task / "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:  # it ended meanwhile
        return "T"


class Program:
    """One running process with what it has printed so far."""

    def __init__(self, name: str, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self.name = name
        self._out, self._err = folder / f"{name}.out", folder / f"{name}.err"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=folder,
                env=environment,
                start_new_session=True,
            )

    @property
    def out(self) -> str:
        return self._out.read_text(encoding="utf-8")

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def say(self, line: str) -> None:
        """Give the program a line on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def is_held(self) -> bool:
        """Whether it was started held and has got that far."""
        return (self._out.parent / f"{self.name}.py.held").exists()

    def prints(self, text: str, times: int = 1, timeout_s: float = 30.0) -> None:
        """Wait until the program has printed text that many times."""
        deadline = time.monotonic() + timeout_s
        while self.out.count(text) < times:
            ended = self.process.poll() is not None
            if (ended and self.out.count(text) < times) or time.monotonic() > deadline:
                state = f"ended with {self.process.returncode}" if ended else "still runs"
                raise AssertionError(f"{self.name} ({state}) did not print {text!r} {times} times\n{self.report()}")
            time.sleep(0.01)

    def says(self, text: str, timeout_s: float = 30.0) -> None:
        """Wait until the program has written text on standard error."""
        until(lambda: text in self.err or self.process.poll() is not None, f"{self.name} says {text!r}", timeout_s)
        assert text in self.err, self.report()

    def kill(self) -> None:
        """SIGKILL: no handler, no exit function, no goodbye."""
        self.process.kill()
        self.process.wait()

    def sweep(self) -> None:
        """End it and whatever it left behind (the standard library's master leaves an orphaned server)."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.kill()
        if self.process.stdin is not None:
            self.process.stdin.close()

    def ends(self, timeout_s: float = 60.0) -> int:
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"{self.name} does not end\n{self.report()}") from None

    def ends_quietly(self, timeout_s: float = 60.0) -> None:
        """Wait for the end: exit code 0, and nothing on standard error."""
        code = self.ends(timeout_s)
        assert (code, self.err) == (0, ""), f"{self.name} ended with {code}\n{self.report()}"

    def report(self) -> str:
        return f"--- {self.name} printed\n{self.out}--- {self.name} printed on stderr\n{self.err}"


class Lab:
    """A network and a folder in which programs run; ends whatever still runs when it is closed."""

    def __init__(self, folder: Path, python: Path | None = None, start_method: str = "spawn") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._python = str(python or sys.executable)
        self._method = start_method
        self._programs: list[Program] = []
        self._keeper: subprocess.Popen[bytes] | None = None
        self._enter: list[str] = []

    def __enter__(self) -> Lab:
        kind = own_network_kind()
        if kind is None:
            _the_host.acquire()
            return self
        self._keeper = subprocess.Popen(
            [*kind, "sh", "-c", "ip link set lo up && echo up && exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"up\n"
        as_user = ["-U", "--preserve-credentials"] if "-r" in kind else []
        self._enter = ["nsenter", "-t", str(self._keeper.pid), *as_user, "-n"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for program in self._programs:
            program.sweep()
        if self._keeper is None:
            _the_host.release()
            return
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.stdout.close()
        self._keeper.wait()

    @property
    def keeper_pid(self) -> int:
        """The process that keeps this lab's network alive."""
        assert self._keeper is not None, "this lab shares the host's network"
        return self._keeper.pid

    def shell(self, script: str) -> None:
        """Run a shell script inside this network, to change it; only where the lab has a network of its own."""
        assert self._keeper is not None, "this would change the host's own network"
        subprocess.run([*self._enter, "sh", "-ec", script], check=True, timeout=10)

    def start(
        self,
        name: str,
        text: str,
        *,
        is_held: bool = False,
        die_at: tuple[str, int] | None = None,
        env: dict[str, str] | None = None,
        python: Path | None = None,
    ) -> Program:
        """Start a program from its source text.

        Args:
            name: unique in this lab.
            is_held: begin only when the program is told a line.
            die_at: kill it the n-th time it is about to run the line that contains this text.
            env: additional environment variables.
            python: another interpreter than the lab's.
        """
        path = self.folder / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        hold = "held" if is_held else "free"
        deadly = [die_at[0], str(die_at[1])] if die_at else []
        # Output through a file is buffered and would come in one piece at the end.
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **(env or {})}
        command = [*self._enter, str(python or self._python), str(RUNNER), self._method, hold, str(path), *deadly]
        program = Program(name, command, self.folder, environment)
        self._programs.append(program)
        return program


def cable(lab: Lab, address: str, other: Lab, others_address: str) -> None:
    """Lay a cable between two labs with networks of their own: a device named cable in each, with these addresses."""
    lab.shell(f"ip link add cable type veth peer name cable netns {other.keeper_pid}")
    for each, own in ((lab, address), (other, others_address)):
        each.shell(f"ip address add {own} dev cable; ip link set cable up")


@cache
def own_network_kind() -> tuple[str, ...] | None:
    """The command that makes a network namespace here, or None where none can be made."""
    if not (shutil.which("unshare") and shutil.which("nsenter") and shutil.which("ip")):
        return None
    for kind in (("unshare", "-n"), ("unshare", "-r", "-n")):
        done = subprocess.run([*kind, "sh", "-c", "ip link set lo up"], capture_output=True, timeout=10, check=False)
        if done.returncode == 0:
            return kind
    return None
