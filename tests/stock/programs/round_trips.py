"""Everything that an unmodified standard-library client does with queues. Runs on Python 3.6 and later. argv: port."""

import datetime
import queue
import sys
from multiprocessing import AuthenticationError
from multiprocessing.managers import BaseManager, RemoteError


class QueueManager(BaseManager):
    pass


for name in ("task", "result", "small", "missing"):
    QueueManager.register(name)


def raises(kind, function, *args, **kwds):
    try:
        function(*args, **kwds)
    except kind as error:
        if type(error) is kind:
            return str(error)
        raise
    raise AssertionError(f"{kind} was not raised")


def connected(key=b"abc"):
    manager = QueueManager(address=("127.0.0.1", int(sys.argv[1])), authkey=key)
    manager.connect()
    return manager


def main():
    manager = connected()
    task, small = manager.task(), manager.small()
    for item in (1, "two", [3.0, None], {"a": (1,)}, b"raw", datetime.date(2026, 11, 24), ValueError("x").args):
        task.put(item)
        assert task.get() == item
    raises(queue.Empty, task.get, timeout=0.01)
    raises(queue.Empty, task.get_nowait)
    small.put(1)
    small.put(2)
    assert (small.qsize(), small.full(), small.empty()) == (2, True, False)
    raises(queue.Full, small.put, 3, timeout=0.01)
    raises(queue.Full, small.put_nowait, 3)
    assert [small.get(), small.get()] == [1, 2]
    small.task_done()
    small.task_done()
    small.join()
    raises(ValueError, small.task_done)
    raises(ValueError, task.get, True, -1)
    big = b"0123456789" * 300000
    task.put(big)
    assert task.get() == big
    assert "missing" in raises(RemoteError, manager.missing)
    raises(AuthenticationError, connected, b"another key")

    # what the master's own program put, of each kind of body
    result = manager.result()
    result.put("ready")
    assert [small.get(timeout=20), small.get(timeout=20)] == [b"raw", {"from": "the master"}]
    assert len(small.get(timeout=20)) == 3000000

    result.put("stop")
    until_shut_down = [task.get, small.get]
    for get in until_shut_down:
        try:
            print(get(timeout=20))
        except getattr(queue, "ShutDown", queue.Empty):
            pass
    print("all is well")


if __name__ == "__main__":
    main()
