"""Many clients of one master, in one process. argv: port, `at-once N` or `connected N`, pid of the master. Prints JSON.

at-once: N threads, each with a manager of its own, begin at the same moment; those that are not served within 20 s are
counted as not served. connected: ten at a time, and all stay; what they cost the processes of the master in memory
and threads.
"""

import json
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Client
from multiprocessing.managers import BaseManager, dispatch

LIMIT_S = 20


class QueueManager(BaseManager):
    pass


QueueManager.register("get_queue")


def at_once(port, n):
    served, barrier = [], threading.Barrier(n)

    def client():
        barrier.wait()
        started = time.perf_counter()
        manager = QueueManager(address=("127.0.0.1", port), authkey=b"benchmark")
        manager.connect()
        manager.get_queue().qsize()
        served.append(time.perf_counter() - started)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(n)]
    for thread in threads:
        thread.start()
    until = time.monotonic() + LIMIT_S
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    print(json.dumps({"served": len(served), "slowest": max(served)}), flush=True)
    os._exit(0)  # those that hang still hang


def family(pid):
    """The master and the processes that it has started."""
    found = [pid]
    for parent in found:
        for task in os.listdir(f"/proc/{parent}/task"):
            with open(f"/proc/{parent}/task/{task}/children") as children:
                found += map(int, children.read().split())
    return found


def cost(pid):
    """(resident bytes, threads) of the master's processes."""
    pids = family(pid)
    resident = 0
    for each in pids:
        with open(f"/proc/{each}/statm") as statm:
            resident += int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, sum(len(os.listdir(f"/proc/{each}/task")) for each in pids)


def connected(port, n, pid):
    before, _ = cost(pid)
    control = Client(("127.0.0.1", port), authkey=b"benchmark")
    ident = dispatch(control, None, "create", ("get_queue",))[0]

    def connect(_):
        connection = Client(("127.0.0.1", port), authkey=b"benchmark")
        dispatch(connection, None, "accept_connection", ("MainProcess",))
        dispatch(connection, ident, "qsize")
        return connection

    started = time.perf_counter()
    with ThreadPoolExecutor(10) as few:  # more at once would meet the standard library's backlog of 16
        connections = list(few.map(connect, range(n)))
    seconds = time.perf_counter() - started
    resident, threads = cost(pid)
    for connection in connections:
        dispatch(connection, ident, "qsize")
    print(json.dumps({"seconds": seconds, "bytes_each": (resident - before) / n, "threads": threads}))


def main():
    port, mode, n, pid = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if mode == "at-once":
        at_once(port, n)
    else:
        connected(port, n, pid)


if __name__ == "__main__":
    main()
