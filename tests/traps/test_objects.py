"""Traps 25, 26, 27 and 29: objects that are no plain queue, and peers of other versions."""

from __future__ import annotations

import pytest

from programs.interpreters import Absent, bare_python, python_with_the_package
from programs.lab import Lab, Program

from .beside import beside_the_others
from .programs import WORKER, ours, stock
from .rows import shows, trap
from .test_running import needs_signals, results, serving, stop
from .test_starting import last_line

pytestmark = pytest.mark.programs

OFFERS = """
    import queue
    import sys
    import threading
    from multiprocessing.managers import BaseManager

    settings = {"retries": 3, "mail": {"host": "localhost"}}
    count = 41
    lock = threading.Lock()
    urgent = queue.PriorityQueue()
    small = queue.Queue(2)


    class Manager(BaseManager):
        pass


    def get_settings():
        return settings


    def get_count():
        return count


    def get_lock():
        return lock


    def get_urgent():
        return urgent


    def get_small():
        return small


    def main():
        for function in (get_settings, get_count, get_lock, get_urgent, get_small):
            Manager.register(function.__name__, callable=function)
        manager = Manager(address=("127.0.0.1", 5000), authkey=b"abc")
        manager.start()
        print("serving")
        for line in sys.stdin:
            exec(line, {**globals(), **locals()})
        manager.shutdown()


    if __name__ == "__main__":
        main()
"""
USES = """
    import queue
    import sys
    import time
    from multiprocessing.managers import BaseManager


    class Manager(BaseManager):
        pass


    for name in ("get_settings", "get_count", "get_lock", "get_urgent", "get_small"):
        Manager.register(name)
    manager = Manager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.connect()


    def tell(what, call):
        try:
            print(what, call())
        except Exception as error:
            print(what, f"{type(error).__name__}: {error}")


"""


def offering(lab: Lab, *, is_ours: bool = True) -> Program:
    master = lab.start("master", ours(OFFERS) if is_ours else stock(OFFERS))
    master.prints("serving")
    return master


def using(lab: Lab, name: str, *lines: str, is_ours: bool = True) -> Program:
    return lab.start(name, (ours(USES) if is_ours else stock(USES)) + "\n".join(lines) + "\n")


def end(master: Program) -> None:
    assert master.process.stdin is not None
    master.process.stdin.close()
    master.ends_quietly()


# -- 25 --------------------------------------------------------------------------------------------------------------

AS_A_DICT = (
    "settings = manager.get_settings()",
    "tell('item', lambda: settings['retries'])",
    "tell('len', lambda: len(settings))",
    "tell('list', lambda: sorted(settings))",
    "tell('sum', lambda: manager.get_count() + 1)",
    "def nested():",
    "    settings['mail']['host'] = 'mx'",
    "    return settings['mail']['host']",
    "tell('nested', nested)",
)


@trap(
    25,
    sees="`TypeError: 'AutoProxy[get_settings]' object is not subscriptable`, `object of type 'AutoProxy[get_settings]' "
    "has no len()`",
    when=(
        "a callable returns a dict, a list or a number: what comes is a proxy that prints like it and cannot be used "
        "like it",
        "注册的函数返回 dict、list 或数字：拿到的是一个代理，打印出来一模一样，用起来却不行",
    ),
    answer=(
        "it is still one object in the master, and its proxy can be used like it: `settings['retries']`, `len`, loops, "
        "`+`. What "
        "an item gives is a copy, as always: write `mail = settings['mail']; mail['host'] = …; settings['mail'] = mail`",
        "它仍然是 master 里的那一个对象，代理可以像它本身一样用：`settings['retries']`、`len`、循环、`+`。"
        "取出来的元素和以前一样是副本：要写成 `mail = settings['mail']; mail['host'] = …; settings['mail'] = mail`",
    ),
)
def test_trap_25_a_proxy_of_a_dict_or_number_is_used_like_it(lab: Lab) -> None:
    master = offering(lab)
    worker = using(lab, "worker", *AS_A_DICT)
    worker.ends_quietly()
    assert worker.out.splitlines() == ["item 3", "len 2", "list ['mail', 'retries']", "sum 42", "nested localhost"]
    end(master)


def test_trap_25_shown_on_the_standard_library(lab: Lab) -> None:
    offering(lab, is_ours=False)
    worker = using(lab, "worker", *AS_A_DICT, is_ours=False)
    worker.ends_quietly()
    assert shows(25, worker.out), worker.report()
    assert shows(25, worker.out, nth=1), worker.report()


# -- 26 --------------------------------------------------------------------------------------------------------------

HOLDS = ("lock = manager.get_lock()", "lock.acquire()", "print('has it')", "time.sleep(600)")
WANTS = ("lock = manager.get_lock()", "tell('obtained', lambda: lock.acquire(True, WAIT))")


@trap(
    26,
    sees=("`lock.acquire(True, 5)` is `False`, for ever", "`lock.acquire(True, 5)` 永远是 `False`"),
    when=("a worker was killed while it held a lock", "worker 拿着锁的时候被杀掉了"),
    answer=(
        "the lock is released a second after its holder's connection ended (so that a blip of the network releases nothing)",
        "持有者的连接断开一秒之后，锁就释放（等一秒，是为了网络抖一下不会误放）",
    ),
)
@needs_signals
@beside_the_others
def test_trap_26_a_lock_of_a_killed_worker_is_released(lab: Lab) -> None:
    master = offering(lab)
    holder = using(lab, "holder", *HOLDS)
    holder.prints("has it")
    holder.kill()
    other = using(lab, "other", *(line.replace("WAIT", "20") for line in WANTS))
    other.ends_quietly()
    assert other.out == "obtained True\n"
    end(master)


@needs_signals
@beside_the_others
def test_trap_26_shown_on_the_standard_library(lab: Lab) -> None:
    offering(lab, is_ours=False)
    holder = using(lab, "holder", *HOLDS, is_ours=False)
    holder.prints("has it")
    holder.kill()
    other = using(lab, "other", *(line.replace("WAIT", "2") for line in WANTS), is_ours=False)
    other.ends_quietly()
    assert other.out == "obtained False\n"


# -- 27 --------------------------------------------------------------------------------------------------------------


@trap(
    27,
    sees="`ValueError: unsupported pickle protocol: 4`, `multiprocessing.context.AuthenticationError: digest received "
    "was wrong`",
    when=(
        "master and workers run different Pythons (2 and 3, or builds whose digests differ)",
        "master 和 worker 的 Python 版本不同（2 和 3，或者摘要算法不一样的发行版）",
    ),
    answer=(
        "manyhands on 3.11 to 3.14 in any mixture, and programs that still run the standard library of 3.8 to 3.14 on "
        "the same "
        "port. Python 2 and versions below 3.8 are not served",
        "3.11 到 3.14 上的 manyhands 可以任意混用；还在用标准库（3.8 到 3.14）的程序也能连到同一个端口。不支持 Python 2 "
        "和 3.8 以下的版本",
    ),
)
@pytest.mark.parametrize("kind", ["stock 3.8", "stock 3.13", "ours 3.12", "ours 3.13"])
def test_trap_27_workers_of_other_versions_do_the_same_work(lab: Lab, kind: str) -> None:
    library, version = kind.split()
    try:
        python = bare_python(version) if library == "stock" else python_with_the_package(version)
    except Absent as absence:
        pytest.skip(str(absence))
    master = serving(lab)
    master.say("put 1 2 3")
    worker = lab.start("worker", stock(WORKER) if library == "stock" else ours(WORKER), python=python)
    master.say("collect 3 30")
    master.prints("collected")
    assert sorted(results(master)) == [1, 2, 3]
    worker.ends_quietly()
    stop(master)


# -- 29 --------------------------------------------------------------------------------------------------------------

IN_ORDER = (
    "urgent = manager.get_urgent()",
    "for each in ((2, {'to': 'c'}), (1, {'to': 'a'}), (1, {'to': 'b'})): urgent.put(each)",
    "print(sorted([urgent.get(timeout=5)[1]['to'] for _ in range(2)]), urgent.get(timeout=5))",
)


@trap(
    29,
    sees="`TypeError: '<' not supported between instances of 'dict' and 'dict'`",
    when=(
        "two items of one priority in a PriorityQueue; a bounded queue is full, no worker is there, and `put` waits "
        "without a word",
        "PriorityQueue 里有两个优先级相同的元素；有界队列满了、又没有 worker，`put` 就一声不响地等下去",
    ),
    answer=(
        "equal priorities work, and which of them comes first is open; or use a plain queue and `put(item, priority=5)`, "
        "which "
        "keeps their order. A master whose `put` has waited for 5 s says in the log that nobody is connected",
        "优先级相同也没问题，只是谁先谁后不一定；也可以用普通队列加 `put(item, priority=5)`，同级的保持先后顺序。"
        "master 的 `put` 等了 5 秒，日志里会说明还没有 worker 连上",
    ),
)
@beside_the_others
def test_trap_29_equal_priorities_work_and_a_full_queue_says_that_nobody_is_there(lab: Lab) -> None:
    master = offering(lab)
    worker = using(lab, "worker", *IN_ORDER)
    worker.ends_quietly()
    assert worker.out == "['a', 'b'] (2, {'to': 'c'})\n"
    master.say("proxy = manager.get_small(); [proxy.put(n) for n in range(2)]; proxy.put(2); print('all put')")
    master.says("put() on 'get_small' has waited for 5 s: no worker is connected (waiting for one: 2 in 'get_small')")
    using(lab, "taker", "print(manager.get_small().get())").ends_quietly()
    master.prints("all put")
    assert master.process.stdin is not None
    master.process.stdin.close()
    assert master.ends() == 0
    assert master.err.count("\n") == 1, master.report()


def test_trap_29_shown_on_the_standard_library(lab: Lab) -> None:
    offering(lab, is_ours=False)
    worker = using(lab, "worker", *IN_ORDER, is_ours=False)
    assert worker.ends() == 1
    assert shows(29, worker.err), worker.report()
    assert "TypeError" in last_line(worker.err)
