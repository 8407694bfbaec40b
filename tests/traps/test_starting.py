"""Traps 1 to 10: what keeps a master or a worker from starting, or from finding the other."""

from __future__ import annotations

import sys
import time

import pytest

from conftest import Start
from programs.lab import Lab, Program

from .beside import Labs, beside_the_others
from .conftest import METHODS
from .programs import MASTER, WORKER, ours, stock
from .rows import shows, trap

pytestmark = pytest.mark.programs


def last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def one_sentence(program: Program, *words: str) -> None:
    """It ended with an error whose last line is a sentence with these words."""
    assert program.ends() == 1, program.report()
    said = last_line(program.err)
    missing = [word for word in words if word not in said]
    assert not missing, f"{missing} are missing\n{program.report()}"


# -- 1 ---------------------------------------------------------------------------------------------------------------

LAMBDAS = """
    import functools
    import queue
    from multiprocessing.managers import BaseManager

    task_queue = queue.Queue()


    class QueueManager(BaseManager):
        pass


    def same(made):
        return made


    of_the_module = lambda: task_queue


    def main(kind):
        local_queue = queue.Queue()
        made = {
            "module": of_the_module,
            "local": lambda: local_queue,
            "partial": functools.partial(same, queue.Queue()),
        }
        for name in made if kind == "all" else [kind]:
            QueueManager.register("get_" + name, callable=made[name])
        manager = QueueManager(address=("127.0.0.1", 0), authkey=b"abc")
        manager.start()
        for name in made if kind == "all" else [kind]:
            proxy = getattr(manager, "get_" + name)()
            proxy.put(name)
            print("got", proxy.get(timeout=5))
        manager.shutdown()


    if __name__ == "__main__":
        main("KIND")
"""


@trap(
    1,
    sees="`PicklingError: Can't pickle <function <lambda> at …>: attribute lookup <lambda> on __main__ failed`, "
    "`AttributeError: Can't … local object 'main.<locals>.<lambda>'`, `TypeError: cannot pickle '_thread.lock' object`",
    when=(
        "`register(…, callable=lambda: task_queue)` and `start()` on Windows, macOS, or Python 3.14",
        "在 Windows、macOS 或 Python 3.14 上写 `register(…, callable=lambda: task_queue)`，然后 `start()`",
    ),
    answer=(
        "works: the server is a thread of the master, so nothing is pickled to start it; lambdas, local functions and "
        "`functools.partial` are all fine",
        "直接能用：服务就是 master 里的一个线程，启动时什么都不用 pickle；lambda、局部函数、`functools.partial` 都可以",
    ),
)
def test_trap_01_any_callable_may_be_registered_under_every_start_method(labs: Labs) -> None:
    programs = [labs(method).start("master", ours(LAMBDAS.replace("KIND", "all"))) for method in METHODS]
    for program in programs:
        program.ends_quietly()
        assert program.out.splitlines() == ["got module", "got local", "got partial"]


def test_trap_01_shown_on_the_standard_library(labs: Labs) -> None:
    lab = labs("spawn")
    programs = [lab.start(kind, stock(LAMBDAS.replace("KIND", kind))) for kind in ("module", "local", "partial")]
    for nth, program in enumerate(programs):
        assert program.ends() == 1
        assert shows(1, program.err, nth=nth), program.report()


# -- 2 ---------------------------------------------------------------------------------------------------------------

UNGUARDED = """
    import multiprocessing
    import queue
    from multiprocessing.managers import BaseManager

    task_queue = queue.Queue()


    class QueueManager(BaseManager):
        pass


    multiprocessing.set_start_method("METHOD", force=True)
    QueueManager.register("get_task_queue", callable=lambda: task_queue)
    manager = QueueManager(address=("127.0.0.1", 0), authkey=b"abc")
    manager.start()
    manager.get_task_queue().put("hello")
    print(manager.get_task_queue().get(timeout=5))
    manager.shutdown()
"""
GUARD_FREE_STOCK = UNGUARDED.replace("lambda: task_queue", "queue.Queue")


@trap(
    2,
    sees="`RuntimeError: … An attempt has been made to start a new process before the current process has finished its "
    "bootstrapping phase`, then `EOFError`",
    when=(
        "no `if __name__ == '__main__':`, a frozen program without `freeze_support()`, or a program typed into a console",
        "没写 `if __name__ == '__main__':`，打包成 exe 却没有 `freeze_support()`，或者直接在交互式窗口里运行",
    ),
    answer=(
        "works: no second process is started, so there is nothing to guard",
        "直接能用：根本不启动第二个进程，也就没有什么要保护的",
    ),
)
def test_trap_02_no_main_guard_is_needed_nor_a_file(labs: Labs, start: Start) -> None:
    programs = [labs(method).start("master", ours(UNGUARDED.replace("METHOD", method))) for method in METHODS]
    typed = start("typed", "-")
    assert typed.process.stdin is not None
    typed.process.stdin.write(ours(UNGUARDED.replace("METHOD", "spawn")).encode())
    typed.process.stdin.close()
    for program in (*programs, typed):
        program.ends_quietly()
        assert program.out == "hello\n"


def test_trap_02_shown_on_the_standard_library(lab: Lab) -> None:
    program = lab.start("master", stock(GUARD_FREE_STOCK.replace("METHOD", "spawn")))
    assert program.ends() == 1
    assert shows(2, program.err), program.report()
    assert "EOFError" in last_line(program.err)


# -- 3 ---------------------------------------------------------------------------------------------------------------


@trap(
    3,
    sees="`NameError: name 'Queue' is not defined`; with `from multiprocessing import Queue`: "
    "`AttributeError: 'function' object has no attribute 'Empty'`",
    when=(
        "`import queue` above, `except Queue.Empty:` below (most copies of the tutorial's worker): it breaks the first "
        "time the "
        "queue is empty, and hides the real error",
        "上面写的是 `import queue`，下面却写 `except Queue.Empty:`（大多数抄来的 worker 都这样）：队列第一次变空时就报错，"
        "还把真正的错误盖住了",
    ),
    answer=(
        "the name is supplied when it is needed, and the loop goes on. Better: `for n in task:`, which needs no `except`",
        "缺的名字会在需要时补上，循环照常继续。更好的写法是 `for n in task:`，根本不需要 `except`",
    ),
)
@pytest.mark.parametrize("imports", ["import queue", "import queue\nfrom multiprocessing import Queue"])
def test_trap_03_the_misspelt_except_catches_the_empty_queue(lab: Lab, imports: str) -> None:
    master, worker = run_misspelt(lab, imports, is_ours=True)
    worker.ends_quietly()
    assert worker.out.splitlines() == ["connected", "nothing to do"]
    master.say("stop")
    master.ends_quietly()


@pytest.mark.parametrize(("imports", "nth"), [("import queue", 0), ("import queue\nfrom multiprocessing import Queue", 2)])
def test_trap_03_shown_on_the_standard_library(lab: Lab, imports: str, nth: int) -> None:
    _, worker = run_misspelt(lab, imports, is_ours=False)
    assert worker.ends() == 1
    assert shows(3, worker.err, nth=nth), worker.report()


def run_misspelt(lab: Lab, imports: str, *, is_ours: bool) -> tuple[Program, Program]:
    make = ours if is_ours else stock
    master = lab.start("master", make(MASTER))
    master.prints("serving")
    text = make(WORKER)
    assert text.count("import queue\n") == 1
    assert text.count("queue.Empty") == 1
    return master, lab.start("worker", text.replace("import queue", imports).replace("queue.Empty", "Queue.Empty"))


# -- 4 ---------------------------------------------------------------------------------------------------------------

STATE_IN_MAIN = """
    import queue
    import sys
    from multiprocessing.managers import BaseManager

    task_queue = None


    class QueueManager(BaseManager):
        pass


    def get_task_queue():
        return task_queue


    def get_result_queue():
        return result_queue


    if __name__ == "__main__":
        task_queue = queue.Queue()  # a global that only the main program assigns
        result_queue = queue.Queue()  # and one that only it has
        QueueManager.register("get_task_queue", callable=get_task_queue)
        QueueManager.register("get_result_queue", callable=get_result_queue)
        manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
        manager.start()
        if sys.argv[1:] == ["stock"]:
            manager.get_result_queue()
        task_queue.put(3)  # the queue itself, not its proxy
        print("serving")
        print("result", *result_queue.get(timeout=20))
        manager.shutdown()
"""


@trap(
    4,
    sees=(
        "`RemoteError: … NameError: name 'result_queue' is not defined`, or workers get `None`, or what was put is never "
        "seen",
        "`RemoteError: … NameError: name 'result_queue' is not defined`，或者 worker 拿到的是 `None`，"
        "或者放进去的东西谁也看不见",
    ),
    when=(
        "the queue is made in `main()`, or the master puts into the queue itself instead of its proxy",
        "队列是在 `main()` 里创建的，或者 master 没有用代理，直接往原来的队列里放",
    ),
    answer=(
        "works: there is one process and one queue; the object and its proxies are the same queue",
        "直接能用：只有一个进程、一个队列；原来的对象和它的代理就是同一个队列",
    ),
)
@pytest.mark.parametrize("method", METHODS)
def test_trap_04_what_main_made_is_what_is_served_and_the_queue_itself_may_be_used(labs: Labs, method: str) -> None:
    lab = labs(method)
    master = lab.start("master", ours(STATE_IN_MAIN))
    master.prints("serving")
    worker = lab.start("worker", ours(WORKER))
    master.ends_quietly()
    worker.ends_quietly()
    assert "result 3 9" in master.out


def test_trap_04_shown_on_the_standard_library(lab: Lab) -> None:
    text = stock(STATE_IN_MAIN).replace('sys.argv[1:] == ["stock"]', "True")
    master = lab.start("master", text)
    assert master.ends() == 1
    assert shows(4, master.err), master.report()


# -- 5 ---------------------------------------------------------------------------------------------------------------


@trap(
    5,
    sees="`TypeError: string argument without an encoding`",
    when=("`authkey='abc'`, a str and not bytes", "`authkey='abc'`，写成了 str 而不是 bytes"),
    answer=(
        "works: `'abc'` and `b'abc'` are the same key. A number or an empty key is refused by name (the standard library "
        "takes "
        "`authkey=123` for 123 NUL bytes)",
        "直接能用：`'abc'` 和 `b'abc'` 是同一个密钥。数字或空密钥会被明确拒绝（标准库把 `authkey=123` 当成 123 个零字节）",
    ),
)
def test_trap_05_the_key_may_be_str_on_either_side_and_must_be_a_key(lab: Lab) -> None:
    master = lab.start("master", with_key(ours(MASTER), "'abc'"))
    master.prints("serving")
    master.say("put 1 2")
    of_bytes, of_str = lab.start("of_bytes", ours(WORKER)), lab.start("of_str", with_key(ours(WORKER), "'abc'"))
    number, empty = (lab.start(f"key{n}", with_key(ours(WORKER), key)) for n, key in enumerate(("123", "b''")))
    of_bytes.ends_quietly()
    of_str.ends_quietly()
    one_sentence(number, "UsageError", "authkey", "int")
    one_sentence(empty, "UsageError", "authkey", "empty")
    master.say("collect 2 5")
    master.say("stop")
    master.ends_quietly()


def test_trap_05_shown_on_the_standard_library(lab: Lab) -> None:
    master = lab.start("master", with_key(stock(MASTER), "'abc'"))
    assert master.ends() == 1
    assert shows(5, master.err), master.report()


def with_key(text: str, key: str) -> str:
    assert text.count('authkey=b"abc"') == 1
    return text.replace('authkey=b"abc"', f"authkey={key}")


# -- 6 ---------------------------------------------------------------------------------------------------------------


@trap(
    6,
    sees=(
        "`OSError: [WinError 10049] The requested address is not valid in its context`",
        "`OSError: [WinError 10049] 在其上下文中，该请求的地址无效。`",
    ),
    when=(
        "`address=('', 5000)` or `('0.0.0.0', 5000)` on Windows: the master's own proxies dial that",
        "在 Windows 上写 `address=('', 5000)` 或 `('0.0.0.0', 5000)`：master 自己的代理要去连这个地址",
    ),
    answer=(
        "works: it means every interface; the master uses its queues without dialling, and a worker on the same machine "
        "dials 127.0.0.1. The log says at INFO which addresses workers elsewhere can use",
        "直接能用：意思是所有网卡；master 用自己的队列不需要连接，同一台机器上的 worker 连 127.0.0.1。"
        "日志（INFO）里写明其他机器上的 worker 该连哪个地址",
    ),
)
@pytest.mark.parametrize("host", ["", "0.0.0.0"])
def test_trap_06_every_interface_is_an_address_that_programs_here_can_use(lab: Lab, host: str) -> None:
    def at_any(text: str) -> str:
        assert text.count('"127.0.0.1", 5000') == 1
        return ours(text).replace('"127.0.0.1", 5000', f"{host!r}, 5000")

    text = at_any(MASTER).replace("import sys\n", "import logging, sys\nlogging.basicConfig(level='INFO')\n", 1)
    master = lab.start("master", text)
    master.prints("serving")
    master.say("put 5")
    worker = lab.start("worker", at_any(WORKER))
    worker.ends_quietly()
    master.say("collect 1 5")
    master.say("stop")
    assert master.ends() == 0, master.report()
    assert "result 5 25" in master.out
    assert "listens on every interface; others dial tcp://" in master.err
    assert "ERROR" not in master.err


# -- 7 ---------------------------------------------------------------------------------------------------------------


@trap(
    7,
    sees="`ConnectionRefusedError: [Errno 111] Connection refused`, `[WinError 10061]`, after minutes "
    "`TimeoutError: [WinError 10060]`, `socket.gaierror: [Errno -9] Address family for hostname not supported`",
    when=(
        "the worker is started before the master, the master is gone, the address is wrong, a firewall is in between",
        "worker 比 master 先启动，master 不在了，地址写错了，或者中间有防火墙",
    ),
    answer=(
        "`connect()` tries for 10 s, and from the third second on says in the log every few seconds where it tries, why "
        "that "
        "fails and what to check; then `ServerUnavailable` (a `ConnectionRefusedError`) with the same. IPv6 addresses work",
        "`connect()` 会重试 10 秒；从第 3 秒起，每隔几秒在日志里写一行：正在连哪里、为什么连不上、该检查什么；"
        "最后抛出 `ServerUnavailable`（它也是 `ConnectionRefusedError`），说明同样的内容。IPv6 地址也能用",
    ),
)
@beside_the_others
def test_trap_07_a_worker_waits_for_its_master_and_says_what_for(lab: Lab, lab_with_a_hole: Lab, labs: Labs) -> None:
    early = lab.start("early", ours(WORKER))
    alone = labs("fork").start("alone", ours(WORKER))
    walled = lab_with_a_hole.start("walled", ours(WORKER).replace('"127.0.0.1"', '"192.0.2.9"'))
    until_it_said(early, "127.0.0.1:5000", "Connection refused", "master is started")
    until_it_said(walled, "192.0.2.9:5000", "firewall")
    master = lab.start("master", ours(MASTER))
    master.prints("serving")
    early.prints("connected")
    assert early.ends() == 0
    master.say("stop")
    master.ends_quietly()
    assert len(early.err.splitlines()) <= 3, early.report()
    one_sentence(alone, "ServerUnavailable", "127.0.0.1:5000", "Connection refused", "started")
    one_sentence(walled, "ServerUnavailable", "192.0.2.9:5000", "firewall")


def until_it_said(program: Program, *words: str) -> None:
    """Wait for the line that a worker says while it tries; it must not have given up by then."""
    deadline = time.monotonic() + 9
    while not program.err.endswith("\n"):
        assert time.monotonic() < deadline, program.report()
        time.sleep(0.05)
    assert "Traceback" not in program.err, program.report()
    assert [word for word in words if word not in program.err] == [], program.report()


@beside_the_others
def test_trap_07_a_name_that_nobody_knows_is_said_at_once_and_ipv6_works(lab: Lab) -> None:
    unknown = lab.start("unknown", ours(WORKER).replace('"127.0.0.1"', '"no-such-host.invalid"'))
    master = lab.start("master", ours(MASTER).replace('"127.0.0.1"', '"::1"'))
    master.prints("serving")
    worker = lab.start("worker", ours(WORKER).replace('"127.0.0.1"', '"::1"'))
    worker.ends_quietly()
    master.say("stop")
    master.ends_quietly()
    one_sentence(unknown, "ServerUnavailable", "no-such-host.invalid")


def test_trap_07_shown_on_the_standard_library(lab: Lab) -> None:
    worker = lab.start("worker", stock(WORKER))
    assert worker.ends() == 1
    assert shows(7, worker.err), worker.report()


# -- 8 ---------------------------------------------------------------------------------------------------------------


@trap(
    8,
    sees=(
        "`OSError: [Errno 98] Address already in use`, then `EOFError`; a worker's `connect()` hangs for ever",
        "`OSError: [Errno 98] Address already in use`，接着 `EOFError`；worker 的 `connect()` 永远卡住",
    ),
    when=(
        "another program has the port: on macOS, the AirPlay receiver has 5000",
        "端口被别的程序占用了：在 macOS 上，5000 端口属于“隔空播放接收器”（AirPlay）",
    ),
    answer=(
        "the master says which program has the port (where the system tells) and ends; the worker says within 5 s that what "
        "answers there is no manyhands server",
        "master 会说出是哪个程序占了端口（系统允许的话），然后结束；worker 在 5 秒内说明：那里有东西在应答，但不是 "
        "manyhands 的服务",
    ),
)
@beside_the_others
def test_trap_08_a_taken_port_is_said_on_both_sides(lab: Lab) -> None:
    web = lab.start("web", "import http.server\nhttp.server.test(port=5000, bind='127.0.0.1')\n")
    web.prints("Serving HTTP")
    master, worker = lab.start("master", ours(MASTER)), lab.start("worker", ours(WORKER))
    one_sentence(master, "AddressInUse", "5000", "choose another port", *["by pid"] * (sys.platform == "linux"))
    began = time.monotonic()
    one_sentence(worker, "ProtocolError", "127.0.0.1:5000", "did not answer as a manyhands server")
    assert time.monotonic() - began < 9


@beside_the_others
def test_trap_08_shown_on_the_standard_library(lab: Lab) -> None:
    web = lab.start("web", "import http.server\nhttp.server.test(port=5000, bind='127.0.0.1')\n")
    web.prints("Serving HTTP")
    master, worker = lab.start("master", stock(MASTER)), lab.start("worker", stock(WORKER))
    assert master.ends() == 1
    assert shows(8, master.err), master.report()
    assert "EOFError" in last_line(master.err)
    web.prints("Serving HTTP")
    time.sleep(2)  # for ever cannot be shown; ours has no such wait without a word
    assert worker.process.poll() is None
    assert worker.err == ""


# -- 9 ---------------------------------------------------------------------------------------------------------------


@trap(
    9,
    sees="`multiprocessing.context.AuthenticationError: digest sent was rejected`",
    when=("the keys of master and worker differ", "master 和 worker 的密钥不一样"),
    answer=(
        "`AuthenticationFailed` (an `AuthenticationError`) says that the authkeys differ, at once; the master logs from "
        "where "
        "somebody tried",
        "立刻抛出 `AuthenticationFailed`（也是 `AuthenticationError`），说明两边的 authkey 不同；master "
        "的日志里写着是哪个地址在试",
    ),
)
def test_trap_09_a_wrong_key_is_one_sentence_on_both_sides(lab: Lab) -> None:
    master = lab.start("master", ours(MASTER))
    master.prints("serving")
    worker = lab.start("worker", with_key(ours(WORKER), "b'another'"))
    one_sentence(worker, "AuthenticationFailed", "another authkey", "use the same on both sides")
    master.say("stop")
    assert master.ends() == 0
    assert len(master.err.splitlines()) == 1, master.report()
    assert "Refused 127.0.0.1" in master.err
    assert "another authkey" in master.err


def test_trap_09_shown_on_the_standard_library(lab: Lab) -> None:
    master = lab.start("master", stock(MASTER))
    master.prints("serving")
    worker = lab.start("worker", with_key(stock(WORKER), "b'another'"))
    assert worker.ends() == 1
    assert shows(9, worker.err), worker.report()
    master.say("stop")
    master.ends_quietly()  # it logs nothing at all


# -- 10 --------------------------------------------------------------------------------------------------------------

NAMES = """
    import queue
    import sys
    from multiprocessing.managers import BaseManager

    task_queue = queue.Queue()


    class Master(BaseManager):
        pass


    class Worker(BaseManager):
        pass


    def tell(what, call):
        try:
            call()
            print(what, "works")
        except Exception as error:
            print(what, type(error).__name__, error)


    Master.register("get_task_queue", callable=lambda: task_queue)
    Master.register("get_named_only")
    Worker.register("get_tasks")
    Worker.register("get_named_only")
    Worker.register("get_late")
    tell("object", lambda: Master.register("get_object", callable=task_queue))
    tell("early", lambda: Worker(address=("127.0.0.1", 5000), authkey=b"abc").get_tasks())
    master = Master(address=("127.0.0.1", 5000), authkey=b"abc")
    master.start()
    Master.register("get_late", callable=lambda: task_queue)
    worker = Worker(address=("127.0.0.1", 5000), authkey=b"abc")
    worker.connect()
    tell("unregistered", lambda: worker.get_task_queue())
    tell("unknown", lambda: worker.get_tasks())
    tell("named only", lambda: worker.get_named_only())
    tell("late", lambda: worker.get_late())
    worker.shutdown()
    master.shutdown()
"""


@trap(
    10,
    sees="`AttributeError: 'QueueManager' object has no attribute 'get_task_queue'`, `RemoteError: … KeyError: "
    "'get_tasks'`, "
    "`TypeError: 'Queue' object is not callable`, `ValueError: Without callable, must have one non-keyword argument`, "
    "`AssertionError: server not yet started`",
    when=(
        "a name that is not registered, or another one on the master; registered after `start()`; `callable=task_queue` "
        "instead "
        "of something that returns it; a call before `connect()`",
        "名字没有注册，或者两边写得不一样；`start()` 之后才注册；写成 `callable=task_queue`（应该是返回它的函数）；还没 "
        "`connect()` 就调用",
    ),
    answer=(
        "each is one sentence with what to write, and with the names that the master offers; what is registered after "
        "`start()` "
        "works",
        "每种情况都有一句话，告诉你该怎么写，以及 master 提供了哪些名字；`start()` 之后再注册也能用",
    ),
)
def test_trap_10_a_wrong_name_is_answered_with_the_right_ones(lab: Lab) -> None:
    program = lab.start("names", ours(NAMES))
    program.ends_quietly()
    said = dict(line.split(" ", 1) for line in program.out.replace("named only", "named_only").splitlines())
    for what, words in {
        "object": ("UsageError", "callable=lambda: the_queue"),
        "early": ("UsageError", "connect()"),
        "unregistered": ("AttributeError", "get_late", "get_named_only", "get_tasks", "register('get_task_queue')"),
        "unknown": ("UsageError", "get_tasks", "get_task_queue", "get_late"),
        "named_only": ("UsageError", "get_named_only", "get_task_queue"),
        "late": ("works",),
    }.items():
        assert [word for word in words if word not in said[what]] == [], f"{what}: {said[what]}"
