"""Many standard-library clients in one process; prints how many were served. argv: port, and one of

at-once N: N threads, each with a manager of its own, all begin at the same moment.
connected N: one after another, and all stay; says when they are there, and goes on after a line on standard input.
"""

import sys
import threading
import time
from multiprocessing.connection import Client
from multiprocessing.managers import BaseManager, dispatch


class QueueManager(BaseManager):
    pass


QueueManager.register("task")


def at_once(port, n):
    served, barrier = [], threading.Barrier(n)

    def client(number):
        barrier.wait()
        manager = QueueManager(address=("127.0.0.1", port), authkey=b"abc")
        manager.connect()
        task = manager.task()
        task.put(number)
        task.get(timeout=60)
        served.append(number)

    threads = [threading.Thread(target=client, args=(number,), daemon=True) for number in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return len(served)


def connected(port, n):
    connections = []
    for _ in range(n):
        connection = Client(("127.0.0.1", port), authkey=b"abc")
        dispatch(connection, None, "accept_connection", ("MainProcess",))
        dispatch(connection, "q:task", "qsize")
        connections.append(connection)
    print("connected", flush=True)
    sys.stdin.readline()
    for connection in connections:  # every one is still served
        assert dispatch(connection, "q:task", "qsize") == 0
    return len(connections)


def main():
    port, mode, n = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    started = time.perf_counter()
    served = (at_once if mode == "at-once" else connected)(port, n)
    print(f"served {served} in {time.perf_counter() - started:.2f} s")


if __name__ == "__main__":
    main()
