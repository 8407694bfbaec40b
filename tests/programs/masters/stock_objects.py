"""A master of the standard library on any Python from 3.8 on: prints its port, serves until its standard input ends.

python stock_objects.py KEY PORT SERIALIZER
"""

import queue
import sys
import threading
from multiprocessing.managers import BaseManager, DictProxy, SyncManager

tasks = queue.Queue()
bounded = queue.Queue(maxsize=1)
settings = {}
plain_settings = {"depth": 3}
lock = threading.Lock()


class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self, n=1):
        self.n += n
        return self.n

    def fail(self):
        raise OSError("the disk is full")


class Manager(BaseManager):
    pass


Manager.register("get_tasks", callable=lambda: tasks)
Manager.register("get_bounded", callable=lambda: bounded)
Manager.register("get_settings", callable=lambda: settings, proxytype=DictProxy)
Manager.register("get_plain_settings", callable=lambda: plain_settings)
Manager.register("get_lock", callable=lambda: lock)
Manager.register("Counter", Counter)
Manager.register("Broken", callable=lambda: 1 / 0)
Manager._registry.update(SyncManager._registry)


def main():
    key, port, serializer = sys.argv[1:]
    server = Manager(("127.0.0.1", int(port)), key.encode(), serializer).get_server()
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    print(server.address[1], flush=True)
    serving.start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
