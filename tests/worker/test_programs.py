"""`manyhands worker` as it runs: real processes that are killed, frozen, hung, drained and orphaned."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import manyhands as mh
from conftest import Start
from manyhands.engines.remote import RemoteEngine
from manyhands.errors import TaskCancelled, TaskTimedOut, WorkerCrashed
from manyhands.model import Limits
from programs.lab import freeze
from worker import chores
from worker.caller import Caller, eventually
from worker.cluster import KEY, Cluster, children_of, is_alive, stop

pytestmark = [
    pytest.mark.programs,
    pytest.mark.faults,
    pytest.mark.skipif(sys.platform != "linux", reason="the tests look into /proc to see that nobody is left"),
]

PATIENT = Limits(resume_s=300.0)
"""An engine that believes a parent's word only: by itself it would wait for a child that is gone."""
HURRIED = Limits(lease_s=1.0, heartbeat_s=0.2, resume_s=0.5)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path, PATIENT) as made:
        yield made


# -- children that die -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "exit", "fault"])
def test_a_child_that_dies_costs_only_the_call_that_it_ran(cluster: Cluster, how: str) -> None:
    cluster.worker()
    calls = [(number, 2, how) for number in range(5)]
    ids = cluster.caller.submit_pack(chores.die_at, calls)
    with pytest.raises(WorkerCrashed):
        cluster.caller.result(ids[2])
    others = [id_ for number, id_ in enumerate(ids) if number != 2]
    assert [cluster.caller.result(id_) for id_ in others] == [0, 1, 3, 4]
    assert {cluster.caller.times_ended[id_] for id_ in others} == {1}


def test_a_call_that_always_kills_its_child_is_a_dead_letter_after_3_and_the_pool_goes_on(cluster: Cluster) -> None:
    worker = cluster.worker()
    deadly = cluster.caller.submit(chores.die, "kill")
    with pytest.raises(WorkerCrashed, match=r"3 of 3.*SIGKILL"):
        cluster.caller.result(deadly)
    assert cluster.caller.result(cluster.caller.submit(chores.add, 1, 2)) == 3
    worker.says("was killed by SIGKILL while it ran a call")


def test_a_child_that_is_killed_while_it_waits_charges_nobody_and_is_replaced(cluster: Cluster) -> None:
    worker = cluster.worker()
    (child,) = children_of(worker.process.pid)
    os.kill(child, 9)
    eventually(lambda: bool(set(children_of(worker.process.pid)) - {child}), "another child")
    assert cluster.caller.result(cluster.caller.submit(chores.add, 1, 2, max_deliveries=1)) == 3


def test_a_call_that_holds_the_interpreters_lock_beyond_its_lease_keeps_it(tmp_path: Path) -> None:
    with Cluster(tmp_path, HURRIED) as cluster:
        cluster.worker(concurrency=2)
        call = cluster.caller.submit(chores.hog_the_lock, 2.5, max_deliveries=1)
        assert cluster.caller.result(call) == "held"
        assert cluster.caller.stats().redelivered_total == 0


# -- limits ------------------------------------------------------------------------------------------------------------


def test_a_call_past_its_limit_is_stopped_and_its_neighbours_are_not(cluster: Cluster) -> None:
    cluster.worker()
    ids = cluster.caller.submit_pack(chores.nap, [(0.0,), (60.0,), (0.0,)], timeout_s=0.3, max_deliveries=1)
    with pytest.raises(TaskTimedOut, match=r"0\.3 s"):
        cluster.caller.result(ids[1])
    assert [cluster.caller.result(ids[0]), cluster.caller.result(ids[2])] == [0.0, 0.0]


def test_a_call_that_holds_the_interpreters_lock_is_stopped_all_the_same(cluster: Cluster) -> None:
    cluster.worker()
    began = time.monotonic()
    with pytest.raises(TaskTimedOut):
        cluster.caller.result(cluster.caller.submit(chores.hog_the_lock, 60.0, timeout_s=0.3))
    assert time.monotonic() - began < 10


def test_limits_are_seen_again_after_a_while_without_any(cluster: Cluster) -> None:
    cluster.worker()
    for pause_s in (0.0, 1.3):
        time.sleep(pause_s)  # the parent looks for a second after the last call with a limit
        began = time.monotonic()
        with pytest.raises(TaskTimedOut):
            cluster.caller.result(cluster.caller.submit(chores.nap, 60.0, timeout_s=0.2))
        assert time.monotonic() - began < 5


def test_a_cancelled_call_is_stopped_while_it_runs(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker()
    call = cluster.caller.submit(chores.hold, str(tmp_path / "begun"))
    eventually((tmp_path / "begun").exists, "the call runs")
    cluster.caller.cancel_running(call)
    with pytest.raises(TaskCancelled):
        cluster.caller.result(call)
    assert cluster.caller.result(cluster.caller.submit(chores.add, 1, 2)) == 3


def test_a_call_that_takes_too_much_memory_ends_with_its_child_and_says_why(cluster: Cluster) -> None:
    cluster.worker("--max-memory", "200M")
    with pytest.raises(WorkerCrashed, match="over the limit of 200 MiB"):
        cluster.caller.result(cluster.caller.submit(chores.fill, 300, 60.0, max_deliveries=1))
    assert cluster.caller.result(cluster.caller.submit(chores.add, 1, 2)) == 3


def test_a_child_is_replaced_after_so_many_calls(cluster: Cluster) -> None:
    cluster.worker("--max-tasks-per-child", "2")
    pids = [cluster.caller.result(cluster.caller.submit(chores.pid)) for _ in range(6)]
    assert [pids.count(pid) for pid in dict.fromkeys(pids)] == [2, 2, 2]


# -- sharing -----------------------------------------------------------------------------------------------------------


def test_nothing_is_stuck_behind_a_long_call(cluster: Cluster, tmp_path: Path) -> None:
    cluster.worker(concurrency=2)
    first, *others = cluster.caller.submit_pack(chores.hold_first, [(str(tmp_path / "begun"), n) for n in range(20)])
    assert [cluster.caller.result(call) for call in others] == list(range(1, 20))
    assert not cluster.caller.is_over(first)
    (tmp_path / "begun.end").touch()
    assert cluster.caller.result(first) == 0


# -- stopping ----------------------------------------------------------------------------------------------------------


def running_call(cluster: Cluster, path: Path) -> str:
    call = cluster.caller.submit(chores.hold, str(path))
    eventually(path.exists, "the call runs")
    return call


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_a_worker_that_is_stopped_finishes_what_runs_and_takes_nothing_more(
    cluster: Cluster, tmp_path: Path, signal_name: str
) -> None:
    worker = cluster.worker()
    call = running_call(cluster, tmp_path / "begun")
    stop(worker, signal_name)
    worker.prints("stopping; 1 call may run")
    left = cluster.caller.submit(chores.add, 1, 2)
    (tmp_path / "begun.end").touch()
    assert cluster.caller.result(call) == "ended"
    worker.ends_quietly()
    assert not cluster.caller.is_over(left)
    assert cluster.caller.stats().ready == 1


def test_an_idle_worker_that_is_stopped_is_gone_at_once(cluster: Cluster) -> None:
    worker = cluster.worker(concurrency=3)
    children = children_of(worker.process.pid)
    assert len(children) == 3
    stop(worker)
    worker.ends_quietly(timeout_s=5.0)
    assert not any(map(is_alive, children))


def test_a_call_that_outlasts_the_grace_goes_back_charged_once(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.worker("--grace", "0.3")
    once, again = running_call(cluster, tmp_path / "begun"), tmp_path / "again"
    children = children_of(worker.process.pid)
    stop(worker)
    worker.ends_quietly()
    assert not any(map(is_alive, children))
    assert cluster.caller.stats().ready == 1
    os.rename(tmp_path / "begun", again)
    (tmp_path / "begun.end").touch()
    cluster.worker()
    assert cluster.caller.result(once) == "ended"


def test_stopped_twice_a_worker_does_not_wait_for_what_runs(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.worker("--grace", "600")
    running_call(cluster, tmp_path / "begun")
    stop(worker)
    worker.prints("stopping; 1 call may run")
    stop(worker)
    worker.ends_quietly(timeout_s=10.0)
    assert cluster.caller.stats().ready == 1


def test_ctrl_c_in_a_terminal_reaches_the_parent_alone_and_is_quiet(cluster: Cluster, tmp_path: Path) -> None:
    worker = cluster.worker(concurrency=2)
    call = running_call(cluster, tmp_path / "begun")
    assert not any(os.getpgid(child) == worker.process.pid for child in children_of(worker.process.pid))
    os.killpg(worker.process.pid, 2)
    (tmp_path / "begun.end").touch()
    assert cluster.caller.result(call) == "ended"
    worker.ends_quietly()


@pytest.mark.parametrize("busy", ["idle", "at a call", "holding the lock"])
def test_the_children_of_a_killed_worker_are_gone_within_2_seconds(cluster: Cluster, tmp_path: Path, busy: str) -> None:
    worker = cluster.worker(concurrency=2)
    children = children_of(worker.process.pid)
    assert len(children) == 2
    if busy == "at a call":
        running_call(cluster, tmp_path / "begun")
    elif busy == "holding the lock":
        cluster.caller.submit(chores.hog_the_lock, 60.0)
        eventually(lambda: cluster.caller.stats().leased == 1, "the call is leased")
    worker.kill()
    eventually(lambda: not any(map(is_alive, children)), "no child is left", timeout_s=2.0)


# -- trouble at the start ----------------------------------------------------------------------------------------------


def test_a_worker_whose_module_cannot_be_imported_says_why_and_where_once_and_ends(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    worker = cluster.worker("--import", "broken", concurrency=3, is_awaited=False)
    assert worker.ends() == 2
    assert worker.err.count('broken.py", line 1, in <module>') == 1
    assert worker.err.splitlines()[-1].startswith("manyhands: The worker cannot work: ModuleNotFoundError: No module named")
    assert worker.err.splitlines()[-1].endswith(f"or start the worker in its folder (this is {tmp_path}).")


def test_a_worker_with_the_wrong_key_says_so_and_ends(cluster: Cluster) -> None:
    worker = cluster.worker(is_awaited=False, MANYHANDS_AUTHKEY="another key")
    assert worker.ends() == 4
    assert len(worker.err.splitlines()) == 1


def test_workers_wait_for_their_server_say_so_once_and_can_be_stopped(cluster: Cluster) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"tcp://127.0.0.1:{held.getsockname()[1]}"
    patient, stopped = (cluster.worker(url=url, is_awaited=False) for _ in range(2))
    for worker in (patient, stopped):
        worker.says("trying until somebody does")
    stop(stopped)
    assert stopped.ends(timeout_s=5.0) == 0
    with mh.serve(url, KEY):
        patient.prints("works for")
        stop(patient)
        assert patient.ends() == 0
    assert [worker.err.count("\n") for worker in (patient, stopped)] == [1, 1]


# -- the rest ----------------------------------------------------------------------------------------------------------


def test_children_are_replaced_when_a_file_changes(cluster: Cluster, tmp_path: Path) -> None:
    module = tmp_path / "edited.py"
    module.write_text("def answer():\n    return 'old'\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import edited  # type: ignore[import-not-found]
    finally:
        sys.path.remove(str(tmp_path))
    cluster.worker("--import", "edited", "--reload")
    assert cluster.caller.result(cluster.caller.submit(edited.answer)) == "old"
    module.write_text("def answer():\n    return 'edited'\n")
    eventually(lambda: cluster.caller.result(cluster.caller.submit(edited.answer)) == "edited", "the new code runs")


SERVER = """
import sys
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.model import Limits
from manyhands.server import SocketServer
limits = Limits(heartbeat_s=0.2)
server = SocketServer(MemoryEngine(limits), host="127.0.0.1", port=int(sys.argv[2]), keyring=Keyring(sys.argv[1]))
server.start()
print(server.url, flush=True)
sys.stdin.read()
"""


def test_healthz_fails_when_the_server_is_silent_and_recovers(cluster: Cluster, start: Start) -> None:
    server = start("server", "-c", SERVER, KEY, "0")
    server.prints("\n")
    worker = cluster.worker("--healthz", "127.0.0.1:0", url=server.out.strip())
    url = next(word for word in worker.out.split() if word.startswith("http://"))
    status, document = chores.fetch(url)
    assert (status, document["status"], document["children"]["ready"]) == (200, "ok", 1)
    freeze(server.process.pid)
    eventually(lambda: chores.fetch(url)[0] == 503, "it fails")
    assert "nothing was heard from the server" in chores.fetch(url)[1]["why"]
    os.kill(server.process.pid, 18)
    eventually(lambda: chores.fetch(url)[0] == 200, "it recovers")


def test_a_worker_goes_on_when_its_server_was_killed_and_is_back_and_stops_without_one(
    cluster: Cluster, start: Start
) -> None:
    first = start("first", "-c", SERVER, KEY, "0")
    first.prints("\n")
    url = first.out.strip()
    worker = cluster.worker(url=url)
    first.kill()
    second = start("second", "-c", SERVER, KEY, url.rpartition(":")[2])
    second.prints("\n")
    engine = RemoteEngine(url, cluster.keyring)
    caller = Caller(engine, cluster.keyring)
    try:
        assert caller.result(caller.submit(chores.add, 1, 2)) == 3
    finally:
        caller.close()
        engine.close()
    second.kill()
    stop(worker)
    worker.ends_quietly(timeout_s=10.0)


def test_a_worker_of_a_store_owns_it_and_serves_its_children(cluster: Cluster, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    worker = cluster.worker(url=url)
    stop(worker)
    worker.ends_quietly()


def test_the_parent_stays_small(cluster: Cluster) -> None:
    worker = cluster.worker(concurrency=2)
    cluster.caller.result(cluster.caller.submit(chores.add, 1, 2))
    kilobytes = next(
        int(line.split()[1])
        for line in Path(f"/proc/{worker.process.pid}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )
    assert kilobytes <= 45 * 1000 * 1000 / 1024
