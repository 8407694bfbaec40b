"""The tutorial's master, commanded line by line on its standard input, so that a test decides when each thing happens.

put N …            put these numbers as tasks
collect N SECONDS  print N results, or "missing" where none came for that many seconds
waiting            print how many tasks nobody has taken
stop               shut down and end
"""

import queue
import sys
from multiprocessing.managers import BaseManager

task_queue: queue.Queue[int] = queue.Queue()
result_queue: queue.Queue[str] = queue.Queue()


class QueueManager(BaseManager):
    pass


def return_task_queue():
    return task_queue


def return_result_queue():
    return result_queue


def main() -> None:
    QueueManager.register("get_task_queue", callable=return_task_queue)
    QueueManager.register("get_result_queue", callable=return_result_queue)
    manager = QueueManager(address=("127.0.0.1", 5000), authkey=b"abc")
    manager.start()
    task = manager.get_task_queue()
    result = manager.get_result_queue()
    print("ready")
    for line in sys.stdin:
        match line.split():
            case ["put", *numbers]:
                for number in numbers:
                    task.put(int(number))
                print("put", *numbers)
            case ["collect", count, seconds]:
                for _ in range(int(count)):
                    try:
                        print("Result:", result.get(timeout=float(seconds)))
                    except queue.Empty:
                        print("missing")
                print("collected")
            case ["waiting"]:
                print("waiting:", task.qsize())
            case ["stop"]:
                break
    manager.shutdown()
    print("master exit.")


if __name__ == "__main__":
    main()
