"""A master of the standard library, told what to do line by line: put …, left, stop. argv: port."""

import queue
import sys
from multiprocessing.managers import BaseManager

task_queue, result_queue = queue.Queue(), queue.Queue()


def get_task_queue():
    return task_queue


def get_result_queue():
    return result_queue


class QueueManager(BaseManager):
    pass


QueueManager.register("task", callable=get_task_queue)
QueueManager.register("result", callable=get_result_queue)


def main():
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=b"abc")
    manager.start()
    task, result = manager.task(), manager.result()
    print("ready")
    for line in sys.stdin:
        verb, *items = line.split()
        if verb == "put":
            for item in items:
                task.put(item)
            print("put")
        elif verb == "left":
            print(f"left: {task.qsize()} tasks, {result.qsize()} results")
        else:
            break
    manager.shutdown()


if __name__ == "__main__":
    main()
