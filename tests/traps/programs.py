"""What the traps' programs have in common. Each is shown as a reader has it: with the standard library's import."""

from __future__ import annotations

import textwrap

from programs.lab import OUR_IMPORT, STDLIB_IMPORT


def stock(text: str) -> str:
    """The program as it is."""
    text = textwrap.dedent(text).lstrip("\n")
    assert text.count(STDLIB_IMPORT) == 1, f"the program must have the line {STDLIB_IMPORT!r} exactly once"
    return text


def ours(text: str) -> str:
    """The same with its one import line changed."""
    return stock(text).replace(STDLIB_IMPORT, OUR_IMPORT)


WORKER = """
    import queue
    from multiprocessing.managers import BaseManager


    class QueueManager(BaseManager):
        pass


    QueueManager.register("get_task_queue")
    QueueManager.register("get_result_queue")
    manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.connect()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    print("connected")
    while True:
        try:
            n = task.get(timeout=1)
            print("run", n)
            result.put((n, n * n))
        except queue.Empty:
            print("nothing to do")
            break  # or stay
"""
"""Works until nothing comes for a second."""

MASTER = """
    import queue
    import sys
    from multiprocessing.managers import BaseManager

    task_queue = queue.Queue()
    result_queue = queue.Queue()


    class QueueManager(BaseManager):
        pass


    def get_task_queue():
        return task_queue


    def get_result_queue():
        return result_queue


    def main():
        QueueManager.register("get_task_queue", callable=get_task_queue)
        QueueManager.register("get_result_queue", callable=get_result_queue)
        manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
        manager.start()
        task = manager.get_task_queue()
        result = manager.get_result_queue()
        print("serving")
        for line in sys.stdin:
            command, *words = line.split()
            if command == "put":
                for word in words:
                    task.put(int(word))
                print("put", *words)
            elif command == "collect":
                for _ in range(int(words[0])):
                    print("result", *result.get(timeout=float(words[1])))
                print("collected")
            elif command == "last":
                task.shutdown()
                print("no more tasks")
            elif command == "left":
                print("left:", task.qsize())
            elif command == "stop":
                break
        manager.shutdown()
        print("over")


    if __name__ == "__main__":
        main()
"""
"""Serves, and does what it is told on its standard input."""

ITERATING_WORKER = """
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
    print("connected")
    for n in task:
        print("run", n)
        time.sleep(0.01)
        result.put((n, n * n))
    print("no more tasks")
"""
"""Works until the queue is shut down."""
