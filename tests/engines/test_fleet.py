"""200 simulated workers at each engine: nobody starves, and all get fair parts, when work is scarce and when it abounds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import manyhands as mh
from manyhands.testing.contract.peer import Peer, message
from nats_server import NatsServer
from redis_server import RedisServer

from . import fleet

pytestmark = pytest.mark.programs

IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
WORKERS = 200
EACH = int(os.environ.get("MANYHANDS_FLEET_EACH", "100" if IS_NIGHTLY else "10"))
"""How many messages there are for each worker, in each half of the test."""
HOLD_S = 0.3
"""How long a simulated worker takes, where work abounds: then the engine is busy and not the bottleneck."""
_ENDS_S = 120.0


class Fleet:
    """The simulated workers, all on one queue at a time. One program: of several, a busy machine would favour one."""

    def __init__(self, url: str) -> None:
        command = [sys.executable, str(Path(fleet.__file__)), url, str(WORKERS)]
        self._program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self) -> Fleet:
        assert self._program.stdout is not None
        assert self._program.stdout.readline() == "ready\n"
        return self

    def __exit__(self, *exc: object) -> None:
        self._program.kill()
        self._program.communicate()

    def work_on(self, queue: str, hold_s: float = 0.0) -> None:
        self._tell(json.dumps({"queue": queue, "hold_s": hold_s}))

    def end(self) -> list[dict[str, int]]:
        """How many messages of each queue each worker settled."""
        self._tell("")
        report = json.loads(self._program.communicate(timeout=_ENDS_S)[0])
        assert report["problems"] == []
        assert self._program.returncode == 0
        settled: list[dict[str, int]] = report["settled"]
        return settled

    def _tell(self, line: str) -> None:
        assert self._program.stdin is not None
        self._program.stdin.write(line + "\n")
        self._program.stdin.flush()


@pytest.fixture(params=["memory", "sqlite", "valkey", "nats"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where the fleet connects to: a server on the engine, or the engine itself."""
    with ExitStack() as stack:
        if request.param in ("valkey", "nats"):
            server = RedisServer(tmp_path) if request.param == "valkey" else NatsServer(tmp_path)
            server.start()
            stack.callback(server.stop)
            yield server.url
        else:
            store = "memory://" if request.param == "memory" else f"sqlite:///{(tmp_path / 'jobs.db').as_posix()}"
            yield stack.enter_context(mh.serve("tcp://127.0.0.1:0", fleet.KEY, store=store)).url


def assert_fair(parts: list[int], what: str) -> None:
    print(f"{what}: {min(parts)} to {max(parts)} messages each, fair is {EACH}")
    assert sum(parts) == WORKERS * EACH, f"{what}: lost or repeated"
    assert min(parts) >= 0.8 * EACH, f"{what}: somebody starved; {sorted(parts)}"
    assert max(parts) <= 1.2 * EACH, f"{what}: somebody took more than a fair part; {sorted(parts)}"


def test_a_fleet_of_200_workers_gets_fair_parts_and_nobody_starves(url: str) -> None:
    engine = fleet.connect(url, "the producer")
    try:
        with Fleet(url) as workers:
            producer = Peer(engine)

            def put(queue: str) -> None:
                """One message for every fourth worker."""
                producer.put(queue, *[message(b"work") for _ in range(WORKERS // 4)])

            workers.work_on("scarce")
            for _ in range(4 * EACH):  # those who had none yet are served before those who had one
                put("scarce")
                assert producer.join("scarce", wait_s=_ENDS_S) == 0
            for _ in range(4 * EACH):
                put("plenty")
            workers.work_on("plenty", HOLD_S)
            assert producer.join("plenty", wait_s=_ENDS_S) == 0
            settled = workers.end()
            producer.goodbye()
    finally:
        engine.close()
    for queue in ("scarce", "plenty"):
        assert_fair([each.get(queue, 0) for each in settled], queue)
