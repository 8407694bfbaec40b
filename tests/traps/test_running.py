"""Traps 11 to 22: what goes wrong while masters and workers run, end, die and come back."""

from __future__ import annotations

import re
import signal
import sys
import time
from pathlib import Path

import pytest

from programs.lab import Lab, Program, until

from .beside import Labs, beside_the_others, need_networks
from .programs import ITERATING_WORKER, MASTER, WORKER, ours, stock
from .rows import shows, trap
from .test_starting import last_line

pytestmark = pytest.mark.programs

needs_signals = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL, SIGSTOP or SIGALRM")


def serving(lab: Lab, name: str = "master", *, is_ours: bool = True) -> Program:
    master = lab.start(name, ours(MASTER) if is_ours else stock(MASTER))
    master.prints("serving")
    return master


def stop(master: Program) -> None:
    master.say("stop")
    master.ends_quietly()


def results(master: Program) -> list[int]:
    return [int(n) for n in re.findall(r"^result (\d+) \d+$", master.out, re.MULTILINE)]


# -- 11 --------------------------------------------------------------------------------------------------------------


@trap(
    11,
    sees=(
        "the worker prints `task queue is empty.` a few times and is gone",
        "worker 打印几行 `task queue is empty.`，然后就自己退出了",
    ),
    when=(
        "`for i in range(10): task.get(timeout=1)`: ten tasks at most, and ten seconds without any",
        "`for i in range(10): task.get(timeout=1)`：最多做十个任务，或者空等十秒",
    ),
    answer=(
        "that loop does what it says here too. Write `for n in task:`, which runs until the master calls "
        "`task.shutdown()` or "
        "has shut down",
        "这种循环在这里还是照它写的执行。请写成 `for n in task:`：一直运行到 master 调用 `task.shutdown()`，或者 master "
        "已经关闭",
    ),
)
@beside_the_others
def test_trap_11_a_worker_that_iterates_runs_until_it_is_told_to_stop(lab: Lab) -> None:
    master = serving(lab)
    worker = lab.start("worker", ours(ITERATING_WORKER))
    master.say("put " + " ".join(map(str, range(15))))
    master.say("collect 15 10")
    master.prints("collected")
    time.sleep(2)  # nothing to do for longer than the tutorial's get waits
    master.say("put " + " ".join(map(str, range(15, 25))))
    master.say("collect 10 10")
    master.prints("collected", 2)
    assert sorted(results(master)) == list(range(25))
    master.say("last")
    worker.ends_quietly()
    assert last_line(worker.out) == "no more tasks"
    stop(master)


def test_trap_11_shown_on_the_standard_library(lab: Lab) -> None:
    master = serving(lab, is_ours=False)
    worker = lab.start("worker", stock(WORKER).replace("while True:", "for _ in range(10):"))
    master.say("put " + " ".join(map(str, range(12))))
    worker.ends_quietly()
    master.say("left")
    master.prints("left: 2")


# -- 12 --------------------------------------------------------------------------------------------------------------


@trap(
    12,
    sees=(
        "`_queue.Empty`, without a word, ten seconds after the start",
        "启动十秒后，光秃秃的一个 `_queue.Empty`，什么说明都没有",
    ),
    when=(
        "`result.get(timeout=10)` in the master, and the worker comes late or not at all",
        "master 里写 `result.get(timeout=10)`，而 worker 来晚了，或者根本没来",
    ),
    answer=(
        "`Empty` says what is missing: how many workers are connected, what they have in hand, what waits. A longer wait "
        "says "
        "after 5 s in the log that nobody is connected. `result.get()` without a timeout is safe: a dead worker's task "
        "goes to "
        "another",
        "`Empty` 会说明缺什么：有几个 worker 连着、它们手里有几个任务、还排着几个。等得久时，5 秒后日志里会说明还没有 "
        "worker 连上。"
        "不带超时的 `result.get()` 是安全的：worker 死了，任务会交给别的 worker",
    ),
)
@beside_the_others
def test_trap_12_a_master_that_waits_says_what_is_missing(lab: Lab, labs: Labs) -> None:
    need_networks()
    hasty, patient = serving(labs("spawn")), serving(lab)
    for master in (hasty, patient):
        master.say("put 3 4")
    patient.say("collect 2 30")
    hasty.say("collect 1 2")
    assert hasty.ends() == 1
    said = last_line(hasty.err)
    assert "Empty: nothing came on 'get_result_queue' within 2.0 s: no worker is connected" in said, hasty.report()
    assert "2 in 'get_task_queue'" in said
    assert "port 5000" in said
    until(lambda: patient.err.endswith("\n"), "the master says what it waits for", 10)
    assert "get() on 'get_result_queue' has waited for 5 s: no worker is connected" in patient.err
    assert "2 in 'get_task_queue'" in patient.err
    lab.start("worker", ours(WORKER)).ends_quietly()
    patient.prints("collected")
    assert sorted(results(patient)) == [3, 4]
    patient.say("stop")
    assert patient.ends() == 0
    assert patient.err.count("\n") == 1, patient.report()


def test_trap_12_with_workers_it_says_how_many_and_what_they_have(lab: Lab) -> None:
    master = serving(lab)
    worker = lab.start("worker", ours(WORKER).replace('print("run", n)', 'print("run", n); import time; time.sleep(600)'))
    master.say("put 3 4 5")
    worker.prints("run 3")
    master.say("collect 1 1")
    assert master.ends() == 1
    assert "1 worker is connected, with 1 items in hand (waiting for one: 2 in 'get_task_queue')" in last_line(master.err)


# -- 13 --------------------------------------------------------------------------------------------------------------

CATCHES_EOF = ours(WORKER).replace(
    "except queue.Empty:\n", "except EOFError:\n        print('master is gone')\n        break\n    except queue.Empty:\n"
)


@trap(
    13,
    sees="`EOFError`, then `BrokenPipeError: [Errno 32] Broken pipe` for ever, or `ConnectionResetError: [WinError 10054]`",
    when=(
        "the master calls `shutdown()`: every worker ends in a traceback",
        "master 调用 `shutdown()`：每个 worker 都以一串 traceback 结束",
    ),
    answer=(
        "workers are told. Their `get` waits out its timeout (60 s without one, since a master may come back) and raises "
        "`ServerGone`, which is a `queue.Empty` and an `EOFError`: the tutorial's loop ends with exit code 0 and nothing on "
        "stderr. `task.shutdown()` first ends `for n in task:` at once",
        "worker 会得到通知。它的 `get` 等完自己的超时（没写超时就等 60 秒，因为 master 可能会回来），然后抛出 `ServerGone`，"
        "它既是 `queue.Empty` 也是 `EOFError`：教程里的循环正常结束，退出码 0，stderr 上什么都没有。"
        "先调用 `task.shutdown()`，`for n in task:` 会立刻结束",
    ),
)
@beside_the_others
def test_trap_13_the_workers_of_a_master_that_shuts_down_end_without_a_traceback(lab: Lab) -> None:
    master = serving(lab)
    waiting, catching = lab.start("waiting", ours(WORKER)), lab.start("catching", CATCHES_EOF)
    slow = lab.start("slow", ours(WORKER).replace('print("run", n)', 'print("run", n); import time; time.sleep(2)'))
    for worker in (waiting, catching, slow):
        worker.prints("connected")
    master.say("put 1 2 3 4 5 6")
    slow.prints("run")
    stop(master)
    for worker in (waiting, catching, slow):
        worker.ends_quietly()
    assert last_line(catching.out) == "master is gone"


@needs_signals
def test_trap_13_shown_on_the_standard_library(lab: Lab) -> None:
    master = serving(lab, is_ours=False)
    workers = [lab.start(f"worker{n}", stock(WORKER).replace("timeout=1", "timeout=60")) for n in range(2)]
    for worker in workers:
        worker.prints("connected")
    time.sleep(0.3)  # until both are in get; there is nothing to see of that
    stop(master)
    for worker in workers:
        assert worker.ends() == 1
        assert shows(13, worker.err), worker.report()


# -- 14 --------------------------------------------------------------------------------------------------------------

STUCK = ours(WORKER).replace('print("run", n)', 'print("run", n); import time; time.sleep(600)')
FAILING = ours(WORKER).replace('print("run", n)', 'raise ValueError("cannot do", n)')


@trap(
    14,
    sees=(
        "one result is missing, then `_queue.Empty`; `task.join()` never returns",
        "少了一个结果，然后是 `_queue.Empty`；`task.join()` 永远不返回",
    ),
    when=(
        "a worker is killed, or its task raises, in the middle of a task",
        "worker 做到一半被杀掉，或者任务抛出了异常",
    ),
    answer=(
        "the task goes back to the head of the queue for another worker; after three tries it is a dead letter with the "
        "reason "
        "of each (`manyhands dead list`)",
        "任务回到队列最前面，交给别的 worker；试过三次还不行，就进入死信，并记下每次的原因（`manyhands dead list`）",
    ),
)
@needs_signals
@beside_the_others
def test_trap_14_the_task_of_a_worker_that_dies_or_fails_is_done_by_another(lab: Lab) -> None:
    master = serving(lab)
    doomed = lab.start("doomed", STUCK)
    master.say("put 1 2")
    doomed.prints("run 1")
    failing = lab.start("failing", FAILING)
    assert failing.ends() == 1
    assert "ValueError" in last_line(failing.err)
    doomed.kill()
    healthy = lab.start("healthy", ours(WORKER))
    master.say("collect 2 20")
    master.prints("collected")
    assert sorted(results(master)) == [1, 2]
    healthy.ends_quietly()
    stop(master)


@needs_signals
@beside_the_others
def test_trap_14_shown_on_the_standard_library(lab: Lab) -> None:
    master = serving(lab, is_ours=False)
    doomed = lab.start("doomed", STUCK.replace("manyhands.managers", "multiprocessing.managers"))
    master.say("put 1 2")
    doomed.prints("run 1")
    doomed.kill()
    lab.start("healthy", stock(WORKER)).ends_quietly()
    master.say("collect 2 1")
    assert master.ends() == 1
    assert results(master) == [2]
    assert shows(14, master.err), master.report()


# -- 15 --------------------------------------------------------------------------------------------------------------


def put_after_a_waiting_worker_was_killed(lab: Lab, *, is_ours: bool) -> Program:
    make = ours if is_ours else stock
    master = serving(lab, is_ours=is_ours)
    ghost = lab.start("ghost", make(WORKER).replace("timeout=1", "timeout=600"))
    ghost.prints("connected")
    time.sleep(0.5)  # until it is in get; there is nothing to see of that
    ghost.kill()
    master.say("put 1 2 3 4")
    worker = lab.start("worker", make(WORKER))
    worker.ends_quietly()
    return master


@trap(
    15,
    sees=("four tasks were put, three are done, and nobody has the fourth", "放进去四个任务，做完三个，第四个谁手里都没有"),
    when=(
        "a worker was killed while it *waited* in `get()`: the next task is handed to its dead connection",
        "worker 在 `get()` 里*等待*时被杀掉：下一个任务交给了它已经断开的连接",
    ),
    answer=(
        "nothing is handed to who is not there: the server watches the connection while its client waits",
        "不会把任务交给已经不在的 worker：客户端等待时，服务端一直看着它的连接",
    ),
)
@needs_signals
@beside_the_others
def test_trap_15_a_worker_killed_while_it_waited_takes_nothing_with_it(lab: Lab) -> None:
    master = put_after_a_waiting_worker_was_killed(lab, is_ours=True)
    master.say("collect 4 5")
    master.prints("collected")
    assert sorted(results(master)) == [1, 2, 3, 4]
    stop(master)


@needs_signals
@beside_the_others
def test_trap_15_shown_on_the_standard_library(lab: Lab) -> None:
    master = put_after_a_waiting_worker_was_killed(lab, is_ours=False)
    master.say("left")
    master.prints("left: 0")
    master.say("collect 4 1")
    assert master.ends() == 1
    assert sorted(results(master)) == [2, 3, 4]


# -- 16 --------------------------------------------------------------------------------------------------------------


@trap(
    16,
    sees="`BrokenPipeError: [Errno 32] Broken pipe` for ever, also after a new `connect()`",
    when=("the master was restarted on the same port", "master 在同一个端口上重新启动了"),
    answer=(
        "clients reconnect by themselves, send again what was not confirmed and go on with the proxies they have. With "
        '`store="sqlite:///jobs.db"` the tasks are still there',
        '客户端会自动重连，没有确认的内容会重发，原来的代理接着用。配合 `store="sqlite:///jobs.db"`，任务也都还在',
    ),
)
@needs_signals
def test_trap_16_a_worker_goes_on_after_its_master_was_restarted(lab: Lab) -> None:
    first = serving(lab, "first")
    worker = lab.start("worker", ours(WORKER).replace("break  # or stay", "if n == 6: break"))
    first.say("put 1 2 3")
    first.say("collect 3 10")
    first.prints("collected")
    first.kill()
    second = serving(lab, "second")
    second.say("put 4 5 6")
    second.say("collect 3 10")
    second.prints("collected")
    assert sorted(results(second)) == [4, 5, 6]
    assert worker.ends() == 0, worker.report()
    # What it had in hand went with the first master's memory; it says so, and goes on.
    assert all(line.startswith("lease lost:") for line in worker.err.splitlines()), worker.report()
    stop(second)


# -- 17 --------------------------------------------------------------------------------------------------------------


@trap(
    17,
    sees="`OSError: [Errno 98] Address already in use`, `EOFError`",
    when=(
        "the master was killed (SIGKILL, SIGTERM) and is started again: its manager process lives on, and the workers go "
        "on with "
        "the old queue",
        "master 被杀掉（SIGKILL、SIGTERM）后重新启动：它的 manager 子进程还活着，worker 还在用旧的队列",
    ),
    answer=(
        "there is no second process: the port is free at once, and the workers come to the new master",
        "根本没有第二个进程：端口立刻空出来，worker 会连到新的 master",
    ),
)
@pytest.mark.parametrize("number", [pytest.param("SIGKILL", marks=needs_signals), "SIGTERM"])
def test_trap_17_a_killed_master_leaves_nothing_behind(lab: Lab, number: str) -> None:
    first = serving(lab, "first")
    first.process.send_signal(getattr(signal, number))
    assert first.ends() != 0
    stop(serving(lab, "second"))


@needs_signals
def test_trap_17_shown_on_the_standard_library(lab: Lab) -> None:
    first = serving(lab, "first", is_ours=False)
    first.kill()
    second = lab.start("second", stock(MASTER))
    assert second.ends() == 1
    assert shows(17, second.err), second.report()


# -- 18 --------------------------------------------------------------------------------------------------------------


@trap(
    18,
    sees=("`task.get(timeout=1)` never returns", "`task.get(timeout=1)` 永远不返回"),
    when=(
        "the master hangs, its machine sleeps, or a cable is pulled: the timeout is the server's to keep",
        "master 卡死了、那台机器休眠了，或者网线被拔了：超时要靠服务端来兑现",
    ),
    answer=(
        "the timeout is kept by the client as well: `Empty` comes at most 0.5 s late. A connection that is silent for three "
        "heartbeats (15 s) is made anew",
        "超时由客户端自己保证：`Empty` 最多晚 0.5 秒。连接如果连续三次心跳（15 秒）没有声音，就重新建立",
    ),
)
@needs_signals
@beside_the_others
def test_trap_18_a_gets_timeout_is_kept_although_the_master_is_frozen(labs: Labs) -> None:
    need_networks()
    texts = {"spawn": ours(WORKER), "fork": stock(WORKER)}
    masters, workers = [], []
    for method, text in texts.items():
        lab = labs(method)
        masters.append(serving(lab, is_ours=method == "spawn"))
        # The standard library's queue is in a process of its own: freeze it all.
        workers.append(lab.start("worker", text.replace("break  # or stay", "continue")))
        workers[-1].prints("nothing to do")
    before = [worker.out.count("nothing to do") for worker in workers]
    signal_group(masters, signal.SIGSTOP)
    try:
        began = time.monotonic()
        workers[0].prints("nothing to do", before[0] + 3)
        assert time.monotonic() - began < 3 * 1.5 + 1.5
        assert workers[1].out.count("nothing to do") <= before[1] + 1  # one that was under way
    finally:
        signal_group(masters, signal.SIGCONT)
    masters[0].say("put 9")
    masters[0].say("collect 1 10")
    masters[0].prints("collected")
    assert results(masters[0]) == [9]


def signal_group(programs: list[Program], number: int) -> None:
    import os

    for program in programs:
        os.killpg(program.process.pid, number)


# -- 19 --------------------------------------------------------------------------------------------------------------

INTERRUPTED = """
    import queue
    import signal
    import time
    from multiprocessing.managers import BaseManager


    class Interrupted(Exception):
        pass


    def interrupt(*_):
        raise Interrupted


    class QueueManager(BaseManager):
        pass


    QueueManager.register("get_task_queue")
    QueueManager.register("get_result_queue")
    manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.connect()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    result.put((1, 1))
    signal.signal(signal.SIGALRM, interrupt)
    for _ in range(1):
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        try:
            task.get(timeout=0.5)
        except Interrupted:
            print("interrupted")
        try:
            print("size", result.qsize())
        except queue.Empty:
            print("the other call's Empty")
"""


@trap(
    19,
    sees=(
        "`r.qsize()` raises the `Empty` of another call, or returns `None`",
        "`r.qsize()` 抛出的是另一次调用的 `Empty`，或者返回 `None`",
    ),
    when=(
        "Ctrl-C or an alarm broke off `t.get()`, and a proxy is used again: it reads the answer to the call before",
        "`t.get()` 被 Ctrl-C 或闹钟信号打断，之后接着用代理：读到的是上一次调用的回答",
    ),
    answer=(
        "each answer belongs to its own call; what an interrupted `get` might have been given goes back",
        "每个回答只属于自己的那次调用；被打断的 `get` 如果已经分到了任务，任务会退回去",
    ),
)
@needs_signals
def test_trap_19_an_interrupted_call_does_not_disturb_the_next(lab: Lab) -> None:
    master = serving(lab)
    worker = lab.start("worker", ours(INTERRUPTED))
    worker.ends_quietly()
    assert worker.out.splitlines() == ["interrupted", "size 1"]
    stop(master)


@needs_signals
def test_trap_19_shown_on_the_standard_library(lab: Lab) -> None:
    serving(lab, is_ours=False)
    worker = lab.start("worker", stock(INTERRUPTED))
    worker.ends_quietly()
    assert "the other call's Empty" in worker.out


# -- 20 --------------------------------------------------------------------------------------------------------------


@trap(
    20,
    sees=("three workers, one stop sign: one ends, two go on", "三个 worker，一个结束标记：只有一个退出，另外两个还在跑"),
    when=("`task.put('end')`, or `if not q.empty(): q.get()`", "`task.put('end')`，或者 `if not q.empty(): q.get()`"),
    answer=(
        "`task.shutdown()` is broadcast: what is left is still done, then every `for n in task:` ends and every `get` "
        "raises "
        "`ShutDown`",
        "`task.shutdown()` 是广播：剩下的任务照样做完，然后所有的 `for n in task:` 结束，所有的 `get` 抛出 `ShutDown`",
    ),
)
def test_trap_20_shutdown_of_a_queue_stops_all_of_its_workers(lab: Lab) -> None:
    master = serving(lab)
    workers = [lab.start(f"worker{n}", ours(ITERATING_WORKER)) for n in range(3)]
    for worker in workers:
        worker.prints("connected")
    master.say("put " + " ".join(map(str, range(9))))
    master.say("last")
    for worker in workers:
        worker.ends_quietly()
        assert last_line(worker.out) == "no more tasks"
    master.say("collect 9 1")
    master.prints("collected")
    assert sorted(results(master)) == list(range(9))
    stop(master)


# -- 21 --------------------------------------------------------------------------------------------------------------

WITH_IDS = """
    import random
    import sys
    import time
    from multiprocessing.managers import BaseManager


    class QueueManager(BaseManager):
        pass


    QueueManager.register("get_task_queue")
    QueueManager.register("get_result_queue")
    manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.connect()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    if sys.argv[0].endswith("producer.py"):
        expected = {}
        for n in range(12):
            task.put(n, id=f"order {n}")
            expected[f"order {n}"] = n * n
        while expected:
            name, value = result.get(timeout=20)
            assert expected.pop(name) == value
            print("matched", name)
        task.shutdown()
    else:
        try:
            while True:
                with task.receive() as order:
                    time.sleep(random.random() / 50)
                    result.put((order.id, order.value**2))
        except Exception as error:
            print(type(error).__name__)
"""


@trap(
    21,
    sees=(
        "results come as `0, 2, 1, 3, 5, 4`, and nothing says which is whose",
        "结果的顺序是 `0, 2, 1, 3, 5, 4`，也看不出哪个结果属于哪个任务",
    ),
    when=("two workers or more", "有两个或更多的 worker"),
    answer=(
        'results still come as they are finished. `task.put(n, id="order 7")` names a task, `receive()` in the worker gives '
        "`.id` and `.value`, and the result carries the id back: each exactly once, also when a worker dies",
        '结果仍然是谁先做完谁先到。`task.put(n, id="order 7")` 给任务起名，worker 用 `receive()` 取得 `.id` 和 `.value`，'
        "把 id 放进结果里带回来：每个任务恰好对应一个结果，worker 死了也一样",
    ),
)
def test_trap_21_results_are_matched_to_their_tasks_by_id(lab: Lab) -> None:
    master = serving(lab)
    workers = [lab.start(f"worker{n}", ours(WITH_IDS)) for n in range(3)]
    producer = lab.start("producer", ours(WITH_IDS))
    producer.ends_quietly()
    assert producer.out.count("matched") == 12
    for worker in workers:
        worker.ends_quietly()
        assert worker.out == "ShutDown\n"
    stop(master)


# -- 22 --------------------------------------------------------------------------------------------------------------

MANY = """
    import threading
    from multiprocessing.managers import BaseManager

    N = 150
    together = threading.Barrier(N)
    works = []


    class QueueManager(BaseManager):
        pass


    def work():
        manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
        together.wait()
        manager.connect()
        works.append(manager.get_task_queue().qsize())
        together.wait()
        manager.shutdown()


    QueueManager.register("get_task_queue")
    threads = [threading.Thread(target=work) for _ in range(N)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(len(works), "of", N, "work")
"""


@trap(
    22,
    sees=(
        "some workers hang in `connect()`, without an error and without an end (35 of 150 on Python 3.11)",
        "一部分 worker 卡在 `connect()` 里，没有报错，也没有尽头（Python 3.11 上 150 个里有 35 个）",
    ),
    when=("more than about a hundred workers start at once", "一百多个 worker 同时启动"),
    answer=(
        "all are served; the master has one thread for all connections, not one for each",
        "全都能连上；master 用一个线程处理所有连接，而不是每个连接一个线程",
    ),
)
def test_trap_22_a_hundred_and_fifty_workers_may_start_at_once(lab: Lab) -> None:
    master = serving(lab)
    many = lab.start("many", ours(MANY))
    most = 0
    while many.process.poll() is None:
        if sys.platform == "linux":
            most = max(most, len(list(Path(f"/proc/{master.process.pid}/task").iterdir())))
        time.sleep(0.05)
    many.ends_quietly()
    assert many.out == "150 of 150 work\n"
    assert most < 20, "the master has a thread for each worker"
    stop(master)
