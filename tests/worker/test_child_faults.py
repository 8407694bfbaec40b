"""A real child in trouble: calls that kill it or hang, parents that die, connections and servers that go."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import manyhands as mh
from manyhands.auth import Keyring
from manyhands.engines.memory import MemoryEngine
from manyhands.errors import PayloadTooLarge, TaskTimedOut, WorkerCrashed
from manyhands.events import DeadList, Lease, Recall, Reclaim, ReportDead, Stats
from manyhands.model import Begun, Limits, Settlement
from manyhands.server import SocketServer
from manyhands.testing.proxy import CuttingProxy
from manyhands.worker.block import FENCE_S, ParentBlock, Phase
from manyhands.worker.child import run_in_process
from manyhands.worker.settings import DRAIN, READY, ChildSettings, Exit, as_bytes, command
from worker import jobs
from worker.conftest import StartChild
from worker.stage import DEADLINE_S, KEY, QUEUE, ChildAtWork, Producer, Session, until

pytestmark = [pytest.mark.programs, pytest.mark.faults]


def report_dead(parent: Session, child: ChildAtWork) -> None:
    """What a parent does when its child has died."""
    child.wait()
    running = child.block.running()
    if running is None:
        parent.ask(ReportDead(parent.rid(), child.session, "it died", is_idle=child.block.look().phase is not Phase.RUNNING))
    else:
        held, part = running
        parent.ask(ReportDead(parent.rid(), child.session, "it died", held.token, part if held.calls else -1))


def test_the_call_that_kills_its_child_is_named_and_its_neighbours_run(
    start_child: StartChild, producer: Producer, parent: Session
) -> None:
    good = producer.call(jobs.sleep, (0.001,), (0.002,))
    killer, other = producer.call(jobs.die, ()), producer.call(jobs.double, (1,))
    producer.put(good, killer, other)
    deaths = 0
    for _ in range(3):
        child = start_child()
        assert child.wait() == 9
        running = child.block.running()
        assert running is not None
        report_dead(parent, child)
        deaths += 1
    start_child()
    (error,) = producer.wait(killer.id)
    assert isinstance(error, WorkerCrashed)
    assert producer.wait(good.id) == [0.001, 0.002]
    assert producer.wait(other.id) == [2]
    assert deaths == 3


def test_a_child_that_was_given_up_while_it_started_ends_without_a_word(tmp_path: Path) -> None:
    settings = ChildSettings(
        host="127.0.0.1", port=9, keys=[KEY.encode()], session="s", parent="p", block=str(tmp_path / "removed"), queues=[]
    )
    child = subprocess.run(command(), input=as_bytes(settings), capture_output=True, timeout=DEADLINE_S, check=False)
    assert (child.returncode, child.stderr) == (Exit.ORPHANED, b"")


def test_a_killer_in_a_pack_keeps_what_ended_before_it_and_harms_no_neighbour(
    start_child: StartChild, producer: Producer, parent: Session
) -> None:
    pack = producer.submit(jobs.die_at, *[(n,) for n in range(8)])
    for _ in range(3):
        child = start_child()
        child.wait()
        report_dead(parent, child)
    start_child()
    results = producer.wait(pack)
    assert results[:5] == [0, 1, 2, 3, 4]
    assert isinstance(results[5], WorkerCrashed)
    assert results[6:] == [6, 7]


def test_what_ended_is_sent_while_the_next_call_of_its_pack_runs(
    start_child: StartChild, producer: Producer, tmp_path: Path
) -> None:
    start_child()
    path = tmp_path / "long"
    pack = producer.submit(jobs.sleep_on, (str(tmp_path / "short"),), (str(path),))
    (tmp_path / "short.go").touch()
    until(path.exists, "the second call runs")

    def is_there() -> bool:
        producer.collect()
        return (pack, 0) in producer.results

    until(is_there, "the first call's result, while the second runs")
    assert (pack, 1) not in producer.results
    (tmp_path / "long.go").touch()
    assert len(producer.wait(pack)) == 2


def test_what_a_busy_child_has_not_begun_goes_to_another(
    start_child: StartChild, producer: Producer, parent: Session, tmp_path: Path
) -> None:
    path = tmp_path / "long"
    busy = start_child()
    pack = producer.submit(jobs.sleep_or_pid, (str(path),), ("",), ("",))
    until(path.exists, "the first call runs")
    other = start_child()
    recall = until(lambda: parent.heard(Recall), "the engine asks the parent")[0]
    assert (recall.queue, recall.session) == (QUEUE, busy.session)
    fence = busy.block.raise_fence()
    time.sleep(FENCE_S)
    begun = [Begun(back.token, back.n) for back in busy.block.take_back(fence)]
    parent.ask(Reclaim(parent.rid(), busy.session, QUEUE, begun))

    def are_there() -> bool:
        producer.collect()
        return len(producer.results) == 2

    until(are_there, "the other child runs what was given back, while the first call goes on")
    Path(f"{path}.go").touch()
    pids = producer.wait(pack)
    assert pids == [busy.process.pid, other.process.pid, other.process.pid]
    assert producer.wait(producer.submit(jobs.double, (2,))) == [4]


def test_a_slow_child_holds_one_message_and_no_more(start_child: StartChild, producer: Producer, parent: Session) -> None:
    """Ten calls of 0.1 s on two children: five each, whatever was measured before."""
    children = [start_child(), start_child()]
    for child in children:
        until(lambda child=child: child.notices() == READY, "it is ready")  # type: ignore[misc]
    calls = [producer.call(jobs.slow_pid, (0.1,)) for _ in range(10)]
    started = time.monotonic()
    producer.put(*calls)
    most = 0
    while len(producer.results) < 10:
        most = max(most, *(len(child.block.held()) for child in children))
        producer.collect()
        assert time.monotonic() - started < 20.0
        time.sleep(0.005)
    pids = [producer.results[call.id, 0] for call in calls]
    assert sorted(map(pids.count, set(pids))) == [5, 5]
    assert most == 1


def test_short_messages_are_prefetched(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    calls = [producer.call(jobs.spin, (0.0002,)) for _ in range(300)]
    producer.put(*calls)
    most = 0
    while len(producer.results) < 300:
        most = max(most, len(child.block.held()))
        producer.collect()
    assert 4 <= most <= 64, "about 4 ms of work"


def prefetching(start_child: StartChild, producer: Producer) -> ChildAtWork:
    """A child that has found calls to be short, so that it takes several at a time."""
    child = start_child()
    calls = [producer.call(jobs.spin, (0.0002,)) for _ in range(100)]
    producer.put(*calls)
    until(lambda: producer.collect() or len(producer.results) == 100, "all are done")
    return child


def test_of_a_worker_that_is_lost_without_a_word_only_what_it_had_begun_is_charged(
    start_child: StartChild, producer: Producer, parent: Session, tmp_path: Path
) -> None:
    child = prefetching(start_child, producer)
    long = producer.call(jobs.sleep_on, (str(tmp_path / "long"),), max_deliveries=1)
    others = [producer.call(jobs.double, (n,), max_deliveries=limit) for n, limit in enumerate([3, 1, 2, 1])]
    producer.put(long, *others)
    until((tmp_path / "long").exists, "the first runs")
    assert child.block.held(), "and others wait behind it"
    child.process.kill()
    child.wait()
    again: dict[str, int] = {}
    while len(again) < len(others):
        for delivery in parent.ask(Lease(parent.rid(), QUEUE, 10, 10)).deliveries:
            again[delivery.message.id] = delivery.attempt
    assert again == {each.id: 1 for each in others}
    (letter,) = producer.ask(DeadList(producer.rid(), QUEUE)).letters
    assert letter.message.id == long.id, "what may run once only had run"


def test_a_prefetched_call_that_runs_for_a_while_is_known_to_have_begun(
    start_child: StartChild, producer: Producer, parent: Session, tmp_path: Path
) -> None:
    child = prefetching(start_child, producer)
    short, long = producer.call(jobs.double, (1,)), producer.call(jobs.sleep_on, (str(tmp_path / "long"),))
    producer.put(short, long)
    until((tmp_path / "long").exists, "the second runs")

    def is_told() -> bool:
        (stats,) = producer.ask(Stats(producer.rid(), [QUEUE])).queues
        return bool(stats.leased == 1 and stats.unbegun == 0)

    until(is_told, "the engine knows")
    child.process.kill()
    child.wait()
    (delivery,) = parent.ask(Lease(parent.rid(), QUEUE)).deliveries
    assert (delivery.message.id, delivery.attempt) == (long.id, 2)


def test_what_may_run_once_only_waits_behind_no_call(start_child: StartChild, producer: Producer, tmp_path: Path) -> None:
    prefetching(start_child, producer)
    long = producer.call(jobs.sleep_on, (str(tmp_path / "long"),))
    once = [producer.call(jobs.pid, (), max_deliveries=1) for _ in range(3)]
    producer.put(long, *once)
    until((tmp_path / "long").exists, "the first runs")
    other = start_child()
    assert [producer.wait(each.id) for each in once] == [[other.process.pid]] * 3
    (tmp_path / "long.go").touch()
    assert producer.wait(long.id) == [str(tmp_path / "long")]


def test_a_network_blip_in_a_long_call_repeats_nothing(
    start_child: StartChild, producer: Producer, server: mh.Server, tmp_path: Path
) -> None:
    with CuttingProxy(server.address) as proxy:
        start_child(url=proxy.url)
        path = tmp_path / "long"
        call = producer.submit(jobs.sleep_on_counting, (str(path),))
        until(path.exists, "the call runs")
        accepted = proxy.accepted
        proxy.drop_all()
        until(lambda: proxy.accepted > accepted, "it connects again while the call runs")
        time.sleep(1.2)  # resume_s, after which the call would be another's
        Path(f"{path}.go").touch()
        assert producer.wait(call) == [1]
        assert producer.wait(producer.submit(jobs.double, (2,))) == [4]


def test_a_network_blip_among_the_short_calls_of_a_pack_repeats_nothing(
    start_child: StartChild, producer: Producer, server: mh.Server, tmp_path: Path
) -> None:
    with CuttingProxy(server.address) as proxy:
        start_child(url=proxy.url)
        log = tmp_path / "log"
        pack = producer.submit(jobs.log_and_sleep, *[(str(log), 0.01)] * 200)
        until(lambda: log.exists() and log.stat().st_size > 20, "it is in the middle of the pack")
        proxy.drop_all()
        assert producer.wait(pack) == [0.01] * 200
        assert log.stat().st_size == 200


def test_a_child_outlives_its_server(start_child: StartChild, tmp_path: Path) -> None:
    store = f"sqlite:///{tmp_path}/jobs.db"
    server = mh.serve("tcp://127.0.0.1:0", authkey=KEY, store=store)
    url = server.url
    producer = Producer(url)
    try:
        child = start_child(url=url)
        path = tmp_path / "long"
        call = producer.submit(jobs.sleep_on, (str(path),))
        until(path.exists, "the call runs")
        server.stop()
        server = mh.serve(url, authkey=KEY, store=store)
        Path(f"{path}.go").touch()
        assert producer.wait(call) == [str(path)]
        assert producer.wait(producer.submit(jobs.pid, ())) == [child.process.pid]
        child.tell(DRAIN)
        assert child.wait() == Exit.DRAINED
        assert child.errors == ""
    finally:
        producer.close()
        server.stop()


def test_a_child_whose_server_is_gone_can_still_be_told_to_leave(start_child: StartChild) -> None:
    server = mh.serve("tcp://127.0.0.1:0", authkey=KEY)
    child = start_child(url=server.url)
    until(lambda: child.notices() == READY, "it is ready")
    server.stop()
    child.tell(DRAIN)
    assert child.wait() == Exit.DRAINED
    assert child.errors == ""


@pytest.fixture
def tight_server() -> Iterator[mh.Server]:
    """One that takes bodies of 1 MB at most."""
    engine, keyring = MemoryEngine(Limits(max_body_bytes=2**20)), Keyring(KEY)
    server = mh.Server(engine, SocketServer(engine, host="127.0.0.1", port=0, keyring=keyring), keyring)
    yield server
    server.stop()


def test_a_child_that_leaves_as_its_connection_breaks_still_brings_its_result(
    start_child: StartChild, producer: Producer, server: mh.Server, tmp_path: Path
) -> None:
    with CuttingProxy(server.address) as proxy:
        child = start_child(url=proxy.url)
        path = tmp_path / "long"
        call = producer.submit(jobs.sleep_on_counting, (str(path),))
        until(path.exists, "the call runs")
        child.tell(DRAIN)
        proxy.cut_after(0, "up")  # at the next byte of the child's
        Path(f"{path}.go").touch()
        assert child.wait() == Exit.DRAINED
        assert producer.wait(call) == [1]


def test_a_result_over_the_limit_is_the_calls_error(start_child: StartChild, tight_server: mh.Server) -> None:
    producer = Producer(tight_server.url)
    child = start_child(url=tight_server.url)
    small, error, other = producer.wait(producer.submit(jobs.big, (10,), (2**20 + 1,), (20,)))
    assert (len(small), len(other)) == (10, 20)
    assert isinstance(error, PayloadTooLarge)
    (alone,) = producer.wait(producer.submit(jobs.big, (2**20 + 1,)))
    assert isinstance(alone, PayloadTooLarge)
    assert child.process.poll() is None
    producer.close()


def test_results_that_are_too_much_together_travel_in_portions(start_child: StartChild, tight_server: mh.Server) -> None:
    producer = Producer(tight_server.url)
    child = start_child(url=tight_server.url)
    sizes = [900_000, 5, 900_000, 900_000, 10, 400_000, 400_000, 400_000]
    assert list(map(len, producer.wait(producer.submit(jobs.big, *[(size,) for size in sizes])))) == sizes
    assert child.block.look().n_run == len(sizes), "no call was run twice"
    producer.close()


def test_a_call_of_a_pack_ends_by_its_limit_and_the_others_run(
    start_child: StartChild, producer: Producer, parent: Session
) -> None:
    child = start_child()
    pack = producer.submit(jobs.sleep, (0.0,), (30.0,), (0.001,), timeout_s=0.3)
    until(lambda: child.block.look().claimed_from == 2, "the second call runs")
    until(lambda: child.block.look().deadline_mono < time.monotonic(), "its limit is over")
    child.process.kill()
    child.wait()
    running = child.block.running()
    assert running is not None
    will = msgspec.msgpack.decode(child.block.will(), type=Settlement)
    parent.ask(ReportDead(parent.rid(), child.session, "too long", running[0].token, running[1], will))
    start_child()
    first, error, last = producer.wait(pack)
    assert (first, last) == (0.0, 0.001)
    assert isinstance(error, TaskTimedOut)


PARENT = """
import sys
sys.path[:0] = {path!r}
from worker.stage import ChildAtWork
child = ChildAtWork({url!r}, "", life_fd={life_fd})
print(child.process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere only a child that runs Python code hears of it")
def test_a_child_dies_with_its_parent_though_a_call_holds_the_interpreters_lock(
    server: mh.Server, producer: Producer, tmp_path: Path
) -> None:
    dies_with_its_parent(server, producer, tmp_path, jobs.hold_the_lock)


def test_a_child_dies_with_its_parent(server: mh.Server, producer: Producer, tmp_path: Path) -> None:
    dies_with_its_parent(server, producer, tmp_path, jobs.sleep_on)


def dies_with_its_parent(server: mh.Server, producer: Producer, tmp_path: Path, function: object) -> None:
    program = PARENT.format(path=sys.path, url=server.url, life_fd=-1 if function is jobs.sleep_on else "0 or life_fd")
    program = program.replace(", life_fd=0 or life_fd", "")
    parent = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid = int(parent.stdout.readline())
    path = tmp_path / "runs"
    producer.submit(function, (str(path),))  # type: ignore[arg-type]
    until(path.exists, "the call runs")
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    try:
        until(lambda: not is_alive(pid), "the child is gone", 10.0)
    finally:
        if is_alive(pid):
            os.kill(pid, signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_child_can_be_a_multiprocessing_process(
    method: str, server: mh.Server, producer: Producer, parent: Session
) -> None:
    if method not in multiprocessing.get_all_start_methods():
        return  # Windows has spawn only
    context = multiprocessing.get_context(method)
    block = ParentBlock()
    ours, theirs = context.Pipe()
    settings = ChildAtWork.make_settings(server.url, parent.id, block.path)
    process = context.Process(target=run_in_process, args=(as_bytes(settings), theirs), daemon=True)  # type: ignore[attr-defined]
    process.start()
    theirs.close()
    assert producer.wait(producer.submit(jobs.pid, ())) == [process.pid]
    assert ours.recv_bytes() == READY
    ours.send_bytes(DRAIN)
    process.join(20.0)
    assert process.exitcode == Exit.DRAINED
    process.close()
    ours.close()
    block.close()


def test_a_child_whose_parent_closed_the_pipe_ends_though_idle(start_child: StartChild, producer: Producer) -> None:
    child = start_child(life_fd=-1)
    producer.wait(producer.submit(jobs.double, (1,)))
    assert child.process.stdin is not None
    child.process.stdin.close()
    assert child.wait() == Exit.ORPHANED


def test_a_call_that_reads_its_standard_input_finds_it_empty(start_child: StartChild, producer: Producer) -> None:
    start_child()
    assert producer.wait(producer.submit(jobs.read_input, ())) == [""]


def test_signals_to_the_whole_group_do_not_end_a_child(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    producer.wait(producer.submit(jobs.double, (1,)))
    child.process.send_signal(signal.SIGINT)
    child.process.send_signal(signal.SIGTERM)
    assert producer.wait(producer.submit(jobs.pid, ())) == [child.process.pid]


def test_an_idle_child_asks_nothing(start_child: StartChild, producer: Producer) -> None:
    child = start_child()
    producer.wait(producer.submit(jobs.double, (1,)))
    before = producer.ask(Stats(producer.rid(), [QUEUE]))
    assert before.queues[0].waiting == 1
    assert child.block.look().phase is Phase.WAITING
