"""A server in this process with a caller, and `manyhands worker` programs that work for it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import TracebackType

from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.model import Limits
from manyhands.server import SocketServer
from programs.lab import Program
from worker.caller import Caller, eventually

TESTS = Path(__file__).parents[1]
KEY = "the key of the workers' tests"


class Cluster:
    """Args:
    folder: where the workers run, and what they print is kept.
    """

    def __init__(self, folder: Path, limits: Limits | None = None) -> None:
        keyring = Keyring(KEY)
        self.folder = folder
        self.keyring = keyring
        self.engine = MemoryEngine(limits)
        self.server = SocketServer(self.engine, host="127.0.0.1", port=0, keyring=keyring)
        self.server.start()
        self.caller = Caller(self.engine, keyring)
        self._programs: list[Program] = []

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for program in self._programs:
            program.sweep()
        self.caller.close()
        self.server.stop()
        self.engine.close()

    @property
    def url(self) -> str:
        return self.server.url

    def worker(self, *words: str, concurrency: int = 1, is_awaited: bool = True, url: str = "", **env: str) -> Program:
        """Start a worker; when it is awaited it has children that are ready."""
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(self.folder)]),
            "MANYHANDS_AUTHKEY": KEY,
            "PYTHONUNBUFFERED": "1",
            "PYTHONUTF8": "1",
            **env,
        }
        command = [sys.executable, "-m", "manyhands", "worker", url or self.url, "-c", str(concurrency), *words]
        program = Program(f"worker{len(self._programs)}", command, self.folder, environment)
        self._programs.append(program)
        if is_awaited:
            program.prints("works for")
        return program


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for yet does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """The processes whose parent this one is."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry.name))
    return found


def stop(program: Program, name: str = "SIGTERM") -> None:
    program.process.send_signal(getattr(signal, name))


__all__ = ["Cluster", "children_of", "eventually", "is_alive", "stop"]
