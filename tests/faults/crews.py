"""A server and workers as programs of their own, and what runs below them, to be killed one by one."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from benchmarks.peers.processes import descendants

from .cluster import until
from .programs import KEY

HELPERS = {"forkserver": "multiprocessing.forkserver", "resource tracker": "multiprocessing.resource_tracker"}


def command_of(pid: int) -> str:
    """What a process was started as; "" when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def parent_of(pid: int) -> int:
    with suppress(OSError, IndexError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def helper_of(parent: int, what: str) -> int:
    """The forkserver or resource tracker that a program started; 0 when it has none now."""
    helpers = [pid for pid in descendants(parent)[1:] if HELPERS[what] in command_of(pid) and parent_of(pid) == parent]
    return max(helpers, default=0)


def children_of(parent: int) -> list[int]:
    """The processes below a worker (or an executor's program) that run calls. A forkserver's own look like itself."""
    helpers = {helper_of(parent, what) for what in HELPERS}
    return sorted(pid for pid in descendants(parent)[1:] if pid not in helpers and command_of(pid))


class Crews:
    """A server and some workers. A worker that was killed is started again, as a machine's supervisor would."""

    def __init__(self, folder: Path, workers: int, concurrency: int) -> None:
        self.folder = folder
        self.runs = folder / "runs"
        self.runs.mkdir()
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.url = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self._concurrency = concurrency
        self._started = 0
        self._server = self._start("server", "serve", self.url)
        until(lambda: "serves" in self.said("server"), "the server serves")
        self.workers = [self._start_worker() for _ in range(workers)]

    def said(self, name: str) -> str:
        path = self.folder / f"{name}.out"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    def kill_child(self, rng: random.Random) -> bool:
        """Kill one child of a random worker; False when there is none at this moment."""
        children = [pid for worker in self.workers for pid in children_of(worker.pid)]
        if not children:
            return False
        with suppress(ProcessLookupError):
            os.kill(rng.choice(children), signal.SIGKILL)
            return True
        return False

    def kill_worker(self, rng: random.Random) -> None:
        """Kill a whole worker (its children end with it) and start another."""
        n = rng.randrange(len(self.workers))
        self.workers[n].kill()
        self.workers[n].wait()
        self.workers[n] = self._start_worker()

    def stop(self) -> list[int]:
        """Tell all workers to stop; their exit codes."""
        for worker in self.workers:
            worker.terminate()
        return [worker.wait(30) for worker in self.workers]

    def close(self) -> None:
        for process in [*self.workers, self._server]:
            process.kill()
            process.wait()

    def errors(self) -> str:
        """What the programs said on stderr."""
        texts = {path.name: path.read_text(encoding="utf-8", errors="replace") for path in sorted(self.folder.glob("*.err"))}
        return "\n".join(f"{name}: {text}" for name, text in texts.items() if text)

    def _start_worker(self) -> subprocess.Popen[bytes]:
        self._started += 1
        return self._start(f"worker{self._started}", "worker", self.url, "--concurrency", str(self._concurrency))

    def _start(self, name: str, *arguments: str) -> subprocess.Popen[bytes]:
        tests = str(Path(__file__).parents[1])
        with (self.folder / f"{name}.out").open("wb") as out, (self.folder / f"{name}.err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "manyhands", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "MANYHANDS_AUTHKEY": KEY, "PYTHONPATH": tests},
            )
