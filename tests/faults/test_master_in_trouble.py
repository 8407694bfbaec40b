"""A master that freezes, is killed, loses its port or its network: what every kind of client does meanwhile and afterwards.

The troubles last for 20 and 60 s, so all scenarios run side by side, each on a network of its own, and every test waits for
its own. docs/guarantees.md has the table that these tests hold.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from programs.lab import Lab, Program, cable, freeze, own_network_kind, until

pytestmark = [
    pytest.mark.faults,
    pytest.mark.programs,
    pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot stop a process with a signal"),
]

HERE = Path(__file__).parent
FROZEN_S, CUT_S, DOWN_S = 20.0, 60.0, 3.0

MASTER = """
import queue
import sys
import time
from manyhands.managers import BaseManager, DictProxy

names = ("task_queue", "result_queue", "nothing", "answers", "stored", "echo")
made = {name: queue.Queue() for name in names}


class QueueManager(BaseManager):
    pass


for name in names:
    QueueManager.register("get_" + name, callable=lambda name=name: made[name])
settings = {"retries": 3}
QueueManager.register("get_settings", callable=lambda: settings, proxytype=DictProxy)
manager = QueueManager(address=("", 5000), authkey=b"abc", store="STORE")
manager.start()
task, result = manager.get_task_queue(), manager.get_result_queue()
for name in names:
    getattr(manager, "get_" + name)()
print("serving")
for line in sys.stdin:
    command, *words = line.split()
    if command == "put":
        for word in words:
            task.put(int(word))
    elif command == "answer":
        made["answers"].put(words[0])
    elif command == "results":
        print("results:", *sorted(result.get(timeout=20) for _ in range(int(words[0]))))
    elif command == "stored":
        print("stored:", *sorted(made["stored"].get() for _ in range(made["stored"].qsize())))
    elif command == "stop":
        break
manager.shutdown()
"""

WORKER = """
import queue
import time
from manyhands.managers import BaseManager


class QueueManager(BaseManager):
    pass


QueueManager.register("get_task_queue")
QueueManager.register("get_result_queue")
manager = QueueManager(address=("HOST", 5000), authkey=b"abc")
manager.connect()
task, result = manager.get_task_queue(), manager.get_result_queue()
print("connected")
while True:
    began = time.monotonic()
    try:
        n = task.get(timeout=1)
    except queue.Empty as error:
        if time.monotonic() - began > 1.9:
            print("late by", time.monotonic() - began - 1)
        if isinstance(error, EOFError):
            break
        continue
    print("run", n)
    result.put(n * n)
"""


class Line(NamedTuple):
    """What one client said of its operation."""

    outcome: str
    took_s: float
    text: str


class Scene(NamedTuple):
    """The programs of one scenario."""

    master: Program
    worker: Program
    bystanders: Program
    restart: Callable[[], Program]
    n: int
    """How many operations there are."""

    def lines(self) -> dict[str, Line]:
        said = [json.loads(line) for line in self.bystanders.out.splitlines() if line.startswith("{")]
        return {each["what"]: Line(each["outcome"], each["took_s"], each["text"]) for each in said}

    def wait_for(self, n: int, timeout_s: float) -> dict[str, Line]:
        """Wait until so many operations are over."""
        deadline = time.monotonic() + timeout_s
        while len(self.lines()) < n:
            assert time.monotonic() < deadline, f"{n} operations are not over after {timeout_s} s\n{self.report()}"
            time.sleep(0.02)
        return self.lines()

    def report(self) -> str:
        return "\n".join(program.report() for program in self[:3])


def set_the_stage(lab: Lab, clients: Lab, host: str, store: str = "memory://") -> Scene:
    """A master that serves, a worker at its loop, and the bystanders, all connected."""

    def serve(name: str) -> Program:
        master = lab.start(name, MASTER.replace("STORE", store))
        master.prints("serving", timeout_s=60)
        return master

    master = serve("master")
    worker = clients.start("worker", WORKER.replace("HOST", host))
    text = (HERE / "bystanders.py").read_text(encoding="utf-8")
    if store != "memory://":
        text = text.replace("HAS_OBJECTS = True", "HAS_OBJECTS = False")
    text = text.replace("ADDRESS = (sys.argv[1], int(sys.argv[2]))", f"ADDRESS = ({host!r}, 5000)")
    bystanders = clients.start("bystanders", text)
    bystanders.prints("ready", timeout_s=60)
    worker.prints("connected", timeout_s=60)
    master.say("put 1 2 3")
    worker.prints("run", 3)
    return Scene(master, worker, bystanders, lambda: serve("second"), 8 if store == "memory://" else 7)


def finish(scene: Scene, master: Program) -> None:
    """The trouble is over: everybody goes on, and the worker works."""
    scene.bystanders.say("over")
    scene.wait_for(2 * scene.n, 30)
    for what, line in scene.lines().items():
        if what.endswith("afterwards"):
            assert line.outcome == "done", (what, line)
    scene.bystanders.prints("over")
    assert scene.bystanders.ends() == 0, scene.report()
    master.say("put 4 5 6")
    scene.worker.prints("run", 6)
    master.say("stop")
    assert scene.worker.ends() == 0, scene.report()
    assert "late by" not in scene.worker.out, scene.report()


# -- the scenarios: each returns what the clients said while the trouble lasted, and afterwards ------------------------


def frozen(folder: Path) -> dict[str, Line]:
    with Lab(folder) as lab:
        scene = set_the_stage(lab, lab, "127.0.0.1")
        freeze(scene.master.process.pid)
        began = time.monotonic()
        scene.bystanders.say("now")
        during = scene.wait_for(4, FROZEN_S)
        time.sleep(max(0.0, began + FROZEN_S - time.monotonic()))  # the length of the trouble is what is tested
        assert "get()" not in scene.lines()
        scene.master.process.send_signal(signal.SIGCONT)
        scene.master.say("answer 42")
        after = scene.wait_for(scene.n, 20)
        assert not during.keys() & {"get()", "put()"}
        scene.master.say("stored")
        scene.master.prints("stored:")
        stored = scene.master.out.split("stored: ")[1].split("\n")[0].split()
        assert stored.count("waits") == 1, "a put that was sent again is stored once"
        finish(scene, scene.master)
        return after


def killed(folder: Path, store: str) -> dict[str, Line]:
    with Lab(folder) as lab:
        scene = set_the_stage(lab, lab, "127.0.0.1", store)
        scene.master.say("results 3")
        scene.master.prints("results: 1 4 9")
        scene.master.kill()
        scene.bystanders.say("now")
        time.sleep(DOWN_S)  # the length of the trouble is what is tested
        second = scene.restart()
        second.say("answer 42")
        after = scene.wait_for(scene.n, 30)
        second.say("stored")
        second.prints("stored: hurries waits")
        finish(scene, second)
        return after


def taken_over(folder: Path) -> dict[str, Line]:
    with Lab(folder) as lab:
        scene = set_the_stage(lab, lab, "127.0.0.1")
        scene.master.kill()
        web = lab.start("web", "import http.server\nhttp.server.test(port=5000, bind='127.0.0.1')\n")
        web.prints("Serving HTTP")
        scene.bystanders.say("now")
        scene.wait_for(4, 20)
        until(
            lambda: "not a manyhands server" in scene.bystanders.err or "did not answer as" in scene.bystanders.err, "said"
        )
        web.kill()
        second = scene.restart()
        second.say("answer 42")
        after = scene.wait_for(scene.n, 30)
        finish(scene, second)
        said = [line for line in scene.worker.err.splitlines() if "did not answer as a manyhands server" in line]
        assert len(said) == 1, f"said once, not at every attempt\n{scene.report()}"
        return after


def cut(folder: Path) -> dict[str, Line]:
    with Lab(folder / "a") as lab, Lab(folder / "b") as clients:
        cable(lab, "192.0.2.1/24", clients, "192.0.2.2/24")
        scene = set_the_stage(lab, clients, "192.0.2.1")
        lab.shell("ip link set cable down")
        began = time.monotonic()
        scene.bystanders.say("now")
        scene.wait_for(4, 30)
        time.sleep(max(0.0, began + CUT_S - time.monotonic()))  # the length of the trouble is what is tested
        assert not scene.lines().keys() & {"get()", "put()", "settings[…]"}
        lab.shell("ip link set cable up")
        scene.master.say("answer 42")
        after = scene.wait_for(scene.n, 30)
        finish(scene, scene.master)
        return after


SCENARIOS: dict[str, Callable[[Path], dict[str, Line]]] = {
    "frozen": frozen,
    "killed_memory": lambda folder: killed(folder, "memory://"),
    "killed_sqlite": lambda folder: killed(folder, "sqlite:///jobs.db"),
    "taken_over": taken_over,
    "cut": cut,
}


@pytest.fixture(scope="module")
def scenarios(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[dict[str, Line]]]]:
    """Every selected scenario, begun side by side; each test's name ends with its own."""
    folder = tmp_path_factory.mktemp("trouble")
    if own_network_kind() is None:
        pytest.skip("no network namespace can be made here (Linux as root, or with user namespaces), and each needs one")
    chosen = {name for name in SCENARIOS for item in request.session.items if item.name.endswith(f"[{name}]")}
    with ThreadPoolExecutor(len(SCENARIOS)) as pool:
        yield {name: pool.submit(SCENARIOS[name], folder / name) for name in chosen}


def check(lines: dict[str, Line], what: str, outcome: str, at_least_s: float, at_most_s: float, text: str = "") -> None:
    line = lines[what]
    assert line.outcome == outcome, (what, line)
    assert at_least_s <= line.took_s <= at_most_s, (what, line)
    assert re.search(text, line.text), (what, line)


@pytest.mark.parametrize("name", ["frozen"])
def test_a_frozen_master_keeps_nobody_beyond_its_timeout_and_everybody_goes_on(
    scenarios: dict[str, Future[dict[str, Line]]], name: str
) -> None:
    lines = scenarios[name].result(180)
    check(lines, "get(timeout=3)", "Empty", 3, 4.5)
    check(lines, "get()", "done", FROZEN_S, FROZEN_S + 15, "42")
    check(lines, "put()", "done", FROZEN_S - 1, FROZEN_S + 15)
    check(lines, "put(timeout=3)", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "qsize()", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "connect()", "ProtocolError", 4.5, 8, "did not answer as a manyhands server within 5.0 s")
    for what in ("settings[…]", "a new proxy"):
        check(lines, what, "done", FROZEN_S - 1, FROZEN_S + 15)


@pytest.mark.parametrize("name", ["killed_memory", "killed_sqlite"])
def test_after_a_master_was_killed_and_started_again_everybody_goes_on(
    scenarios: dict[str, Future[dict[str, Line]]], name: str
) -> None:
    lines = scenarios[name].result(180)
    check(lines, "get(timeout=3)", "Empty", 3, 4.5)
    check(lines, "get()", "done", DOWN_S, 25, "42")
    for what in ("put()", "put(timeout=3)", "qsize()", "a new proxy", "connect()"):
        check(lines, what, "done", 0, 25)
    if name == "killed_memory":
        check(lines, "settings[…]", "ServerUnavailable", 0, 25, "started anew.* Ask the manager for the object again")


@pytest.mark.parametrize("name", ["taken_over"])
def test_another_program_on_the_masters_port_is_named_and_waited_out(
    scenarios: dict[str, Future[dict[str, Line]]], name: str
) -> None:
    lines = scenarios[name].result(180)
    check(lines, "get(timeout=3)", "Empty", 3, 4.5)
    check(lines, "put(timeout=3)", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "qsize()", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "connect()", "ProtocolError", 4.5, 8, "Something accepts connections at tcp://127.0.0.1:5000")
    for what in ("get()", "put()", "a new proxy"):
        check(lines, what, "done", 5, 45)
    check(lines, "settings[…]", "ServerUnavailable", 5, 45, "started anew.* Ask the manager for the object again")


@pytest.mark.parametrize("name", ["cut"])
def test_a_network_cut_for_a_minute_keeps_nobody_beyond_its_timeout_and_everybody_goes_on(
    scenarios: dict[str, Future[dict[str, Line]]], name: str
) -> None:
    lines = scenarios[name].result(240)
    check(lines, "get(timeout=3)", "Empty", 3, 4.5)
    check(lines, "put(timeout=3)", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "qsize()", "ServerUnavailable", 9, 12, "not known whether this was done")
    check(lines, "connect()", "ServerUnavailable", 8, 14, "192.0.2.1:5000 after .* (firewall|no way leads there)")
    check(lines, "get()", "done", CUT_S, CUT_S + 20, "42")
    check(lines, "put()", "done", CUT_S - 1, CUT_S + 20)
    for what in ("settings[…]", "a new proxy"):
        # They give up about a minute after the cut, which is just when the network is back.
        given_up = lines[what].outcome == "ServerUnavailable"
        check(
            lines,
            what,
            "ServerUnavailable" if given_up else "done",
            50,
            CUT_S + 20,
            "was not reached for" if given_up else "",
        )
