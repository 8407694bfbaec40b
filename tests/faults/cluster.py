"""Real processes to be killed, and a small cluster of them behind a proxy that cuts."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from manyhands.testing.proxy import CuttingProxy

PROGRAMS = Path(__file__).with_name("programs.py")


def until(condition: Callable[[], bool], what: str, timeout_s: float = 60.0) -> None:
    """Wait until the condition holds; fail with the reason when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s} s in vain: {what}"
        time.sleep(0.01)


class Programs:
    """Programs of programs.py, each under a name. What is killed is started again at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._commands: dict[str, list[str]] = {}
        self._started = 0

    def run(self, name: str, *arguments: str) -> None:
        """Start one of programs.py's programs under a name."""
        self._commands[name] = list(arguments)
        self._start(name)

    def journal(self, name: str) -> Path:
        return self.folder / f"{name}.journal"

    def lines(self, name: str) -> list[str]:
        """What a program wrote down so far."""
        path = self.journal(name)
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def kill(self, name: str) -> None:
        """Kill it where it stands, and start another that goes on with the same journal or file."""
        process = self.processes[name]
        process.kill()
        process.wait()
        self._start(name)

    def is_over(self, name: str) -> bool:
        """Whether it ended by itself."""
        return self.processes[name].poll() is not None

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()

    def errors(self) -> str:
        """What programs said on stderr."""
        return "\n".join(
            f"{path.name}: {text}"
            for path in sorted(self.folder.glob("*.err"))
            if (text := path.read_text(encoding="utf-8", errors="replace").strip())
        )

    def _start(self, name: str) -> None:
        self._started += 1
        command = [sys.executable, str(PROGRAMS), *self._commands[name]]
        with (self.folder / f"{name}-{self._started}.err").open("wb") as err:
            self.processes[name] = subprocess.Popen(
                command, stdout=subprocess.DEVNULL, stderr=err, stdin=subprocess.DEVNULL, env=os.environ.copy()
            )


class Cluster(Programs):
    """One server on one file, and everybody else through a proxy that cuts."""

    def __init__(self, folder: Path, *, lease_s: float = 30.0) -> None:
        super().__init__(folder)
        self.lease_s = lease_s
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.direct_url = f"tcp://127.0.0.1:{self._port}"
        self.run("server", "server", str(self._port), str(folder / "store.db"), str(lease_s))
        self.proxy = CuttingProxy(("127.0.0.1", self._port))

    def close(self) -> None:
        super().close()
        self.proxy.close()
