"""Traps 23 to 30: what travels between programs, and who may send it."""

from __future__ import annotations

import signal

import pytest

from programs.lab import Lab

from .programs import MASTER, WORKER, ours, stock
from .rows import shows, trap
from .test_running import needs_signals, serving, stop
from .test_starting import last_line

pytestmark = pytest.mark.programs

# -- 23 --------------------------------------------------------------------------------------------------------------

CLASS_OF_THE_MASTER = (
    ours(MASTER)
    .replace("def main():", "class Task:\n    n = 7\n\n\ndef main():")
    .replace("task.put(int(word))", "task.put(Task())")
)
CLASS_OF_BOTH = (
    ours(WORKER)
    .replace("connected", "knows")
    .replace("while True:", "class Task:\n    n = 7\n\n\nwhile True:")
    .replace("(n, n * n)", "(n.n, n.n * n.n)")
)


@trap(
    23,
    sees="`AttributeError: Can't get attribute 'Task' on <module '__main__' …>`, `PicklingError: Can't pickle <function "
    "<lambda>…`",
    when=(
        "the task is of a class that the master's own script defines, or is a lambda: the task is lost",
        "任务对象的类写在 master 自己的脚本里，或者任务是 lambda：任务丢了",
    ),
    answer=(
        "the worker says that the class must be in a module that both programs import; the task goes back for one that "
        "knows "
        "it, and after three tries to the dead letters. What cannot be pickled fails at `put`, which names its type",
        "worker 会说明：这个类要放进两边都 import 的模块；任务退回去，留给认识它的 worker，三次之后进入死信。"
        "没法 pickle 的东西在 `put` 时就报错，并说明是什么类型",
    ),
)
def test_trap_23_an_item_of_an_unknown_class_goes_back_and_says_what_to_share(lab: Lab) -> None:
    master = lab.start("master", CLASS_OF_THE_MASTER)
    master.prints("serving")
    master.say("put 7")
    stranger = lab.start("stranger", ours(WORKER))
    assert stranger.ends() == 1
    assert "UndecodableBody" in last_line(stranger.err)
    assert "move the class to a module that both programs import" in last_line(stranger.err)
    lab.start("friend", CLASS_OF_BOTH).ends_quietly()
    master.say("collect 1 5")
    master.prints("result 7 49")
    stop(master)


def test_trap_23_what_cannot_be_pickled_fails_at_put(lab: Lab) -> None:
    master = lab.start("master", ours(MASTER).replace("task.put(int(word))", "task.put(lambda: int(word))"))
    master.prints("serving")
    master.say("put 7")
    assert master.ends() == 1
    assert "PayloadNotEncodable" in last_line(master.err)
    assert "lambda" in last_line(master.err)


def test_trap_23_shown_on_the_standard_library(lab: Lab) -> None:
    master = lab.start(
        "master",
        stock(MASTER)
        .replace("def main():", "class Task:\n    n = 7\n\n\ndef main():")
        .replace("task.put(int(word))", "task.put(Task())"),
    )
    master.prints("serving")
    master.say("put 7")
    master.prints("put 7")
    stranger = lab.start("stranger", stock(WORKER))
    assert stranger.ends() == 1
    assert shows(23, stranger.err), stranger.report()
    master.say("left")
    master.prints("left: 0")


# -- 24 --------------------------------------------------------------------------------------------------------------

ASKS = (
    ours(WORKER).split("while True:")[0] + "result.put((1, task))\nprint('asked')\nprint('answer', task.get(timeout=20))\n"
)
ANSWERS = (
    ours(WORKER).split("while True:")[0] + "_, reply_to = result.get(timeout=20)\nreply_to.put('hello')\nprint('answered')\n"
)


@trap(
    24,
    sees="`AuthenticationError: digest sent was rejected`, `TypeError: AutoProxy() got an unexpected keyword argument "
    "'manager_owned'`",
    when=(
        "a proxy is put into a queue, or pickled: its receiver dials with the key of its own process, and `0.0.0.0`",
        "把代理放进队列，或者自己 pickle：收到的一方用自己进程的密钥去连，地址还是 `0.0.0.0`",
    ),
    answer=(
        "works: a queue in a message is its name and where its server is; the receiver uses the connection that it has",
        "直接能用：消息里的队列只是名字和服务器的位置；收到的一方用自己已有的连接",
    ),
)
def test_trap_24_a_queue_in_a_message_leads_to_the_same_queue(lab: Lab) -> None:
    at_any = ours(MASTER).replace('"127.0.0.1", 5000', '"", 5000')
    master = lab.start("master", at_any)
    master.prints("serving")
    asks, answers = lab.start("asks", ASKS), lab.start("answers", ANSWERS)
    asks.ends_quietly()
    answers.ends_quietly()
    assert "answer hello" in asks.out
    stop(master)


def test_trap_24_shown_on_the_standard_library(lab: Lab) -> None:
    serving(lab, is_ours=False)
    asks = lab.start("asks", ASKS.replace("manyhands.managers", "multiprocessing.managers"))
    asks.prints("asked")
    answers = lab.start("answers", ANSWERS.replace("manyhands.managers", "multiprocessing.managers"))
    assert answers.ends() == 1
    assert shows(24, answers.err), answers.report()


# -- 28 --------------------------------------------------------------------------------------------------------------

FAILING = """
    import queue
    from multiprocessing.managers import BaseManager

    task_queue = queue.Queue()


    class QueueManager(BaseManager):
        pass


    def broken():
        raise ValueError("no such table: jobs")


    QueueManager.register("get_task_queue", callable=lambda: task_queue)
    QueueManager.register("get_broken", callable=broken)
    server = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc").get_server()
    print("serving")
    server.serve_forever()
    print("served")
"""
LEAVING = """
    from multiprocessing.managers import BaseManager


    class QueueManager(BaseManager):
        pass


    QueueManager.register("get_task_queue")
    QueueManager.register("get_broken")
    manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.connect()
    manager.get_task_queue().put(1)
    try:
        manager.get_broken()
    except Exception as error:
        print(type(error).__name__, error)
    manager.shutdown()
    print("left")
"""


@trap(
    28,
    sees="`AttributeError: 'QueueManager' object has no attribute 'shutdown'`, `SystemExit`",
    when=(
        "`shutdown()` of a manager that was connected; `serve_forever()` returns; an error on the other side without its "
        "traceback",
        "对已经连上 master 的 manager 调用 `shutdown()`；`serve_forever()` 返回时；另一边出的错看不到 traceback",
    ),
    answer=(
        "`shutdown()` in a worker leaves the master, and nobody else notices; `serve_forever()` returns after Ctrl-C, "
        "SIGTERM or "
        "`shutdown()`; an error of the master's callable comes with its text, function, file and line",
        "worker 里的 `shutdown()` 只是自己离开，别人不受影响；按 Ctrl-C、收到 SIGTERM 或者调用 `shutdown()` 之后，"
        "`serve_forever()` 正常返回；"
        "master 那边的函数出错时，会带上错误内容、函数名、文件和行号",
    ),
)
@needs_signals
def test_trap_28_leaving_serving_and_failing_end_as_one_expects(lab: Lab) -> None:
    master = lab.start("master", ours(FAILING))
    master.prints("serving")
    for n in range(2):  # the second finds that the first has only left
        worker = lab.start(f"worker{n}", ours(LEAVING))
        worker.ends_quietly()
        said, left = worker.out.splitlines()
        assert left == "left"
        assert [word for word in ("no such table: jobs", "broken", "master.py") if word not in said] == [], said
    master.process.send_signal(signal.SIGINT)
    assert master.ends() == 0, master.report()
    assert last_line(master.out) == "served"


@needs_signals
def test_trap_28_shown_on_the_standard_library(lab: Lab) -> None:
    master = lab.start("master", stock(FAILING))
    master.prints("serving")
    worker = lab.start("worker", stock(LEAVING))
    assert worker.ends() == 1
    assert shows(28, worker.err), worker.report()


# -- 30 --------------------------------------------------------------------------------------------------------------

ATTACK = """
    import os
    import pickle
    import socket
    import struct
    from multiprocessing.managers import BaseManager  # only for its wire format


    class Attack:
        def __reduce__(self):
            return os.system, ("touch broken-into",)


    def frame(body):
        return struct.pack("!i", len(body)) + body


    for hello in (b"", frame(b"x" * 16), frame(b"#CHALLENGE#" + b"x" * 20)):
        with socket.create_connection(("127.0.0.1", 5000)) as master:
            master.sendall(hello + frame(pickle.dumps((None, "dummy", (Attack(),), {}))))
            master.settimeout(10)
            while master.recv(4096):
                pass
    print("refused")
"""


@trap(
    30,
    sees=(
        "nothing: whoever knows `b'abc'` runs code in the master by sending a pickle, and whoever listens reads everything",
        "什么也看不出来：谁知道 `b'abc'`，发一个 pickle 就能在 master 里运行代码；谁在监听，谁就能看到全部内容",
    ),
    when=("a key out of a tutorial, and a port that others can reach", "密钥是从教程里抄的，端口别人又连得上"),
    answer=(
        "the key still means code: choose a long one. Nothing is decoded before it was shown, every body is signed, and "
        "a queue's "
        "items are never unpickled by the server. A short key on a network is said at INFO and in `manyhands status`; "
        "[SECURITY](../SECURITY.md) has the rest",
        "有密钥仍然等于能运行代码：请用长的密钥。没有出示密钥之前什么都不解码，每条消息都有签名，服务端从不 unpickle "
        "队列里的内容。"
        "在网络上用短密钥，日志（INFO）和 `manyhands status` 里都会提醒；其余见 [SECURITY](../SECURITY.md)",
    ),
)
def test_trap_30_nobody_without_the_key_gets_anything_decoded(lab: Lab) -> None:
    text = ours(MASTER).replace('"127.0.0.1", 5000', '"", 5000')
    text = text.replace("import sys\n", "import logging, sys\nlogging.basicConfig(level='INFO')\n", 1)
    master = lab.start("master", text)
    master.prints("serving")
    attack = lab.start("attack", ours(ATTACK))
    attack.ends_quietly()
    assert attack.out == "refused\n"
    assert not (lab.folder / "broken-into").exists()
    worker = lab.start("worker", ours(WORKER))
    worker.ends_quietly()
    master.say("stop")
    assert master.ends() == 0
    assert "The authkey has only 3 bytes and the master listens on the network" in master.err
