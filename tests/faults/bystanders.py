"""What the clients of a master in trouble do: each operation by a client of its own, timed.

    python bystanders.py HOST PORT

Every client connects, makes one round trip and waits for a line on standard input, so that all begin while the trouble
lasts. Then each prints one line when its operation is over, as JSON: what, outcome, how many seconds it took, text. A
second line on standard input makes each go on with a put and a get of its own, as programs do afterwards.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from manyhands.managers import BaseManager, DictProxy

ADDRESS = (sys.argv[1], int(sys.argv[2]))
HAS_OBJECTS = True
"""Whether the master serves a dict besides its queues; one with a durable store cannot."""
trouble, over = threading.Event(), threading.Event()
ready: queue.SimpleQueue[str] = queue.SimpleQueue()


class QueueManager(BaseManager):
    pass


for name in ("get_nothing", "get_answers", "get_stored", "get_echo"):
    QueueManager.register(name)
QueueManager.register("get_settings", proxytype=DictProxy)


def connected() -> Any:
    manager = QueueManager(address=ADDRESS, authkey=b"abc")
    manager.connect()
    return manager


def say(what: str, outcome: str, took_s: float, text: str = "") -> None:
    sys.stdout.write(json.dumps({"what": what, "outcome": outcome, "took_s": round(took_s, 2), "text": text}) + "\n")
    sys.stdout.flush()


def timed(what: str, operation: Callable[[], Any]) -> None:
    began = time.monotonic()
    try:
        outcome, text = "done", repr(operation())
    except Exception as error:
        outcome, text = type(error).__name__, str(error)
    say(what, outcome, time.monotonic() - began, text)


class Seat:
    """One bystander's connection and proxies."""

    def __init__(self) -> None:
        self.manager = connected()
        self.nothing, self.answers = self.manager.get_nothing(), self.manager.get_answers()
        self.stored, self.echo = self.manager.get_stored(), self.manager.get_echo()
        self.settings: Any = self.manager.get_settings() if HAS_OBJECTS else {}
        self.nothing.qsize()


def bystander(what: str, operation: Callable[[Seat], Any]) -> None:
    seat = Seat()
    ready.put(what)
    trouble.wait()
    timed(what, lambda: operation(seat))
    over.wait()
    began = time.monotonic()
    seat.echo.put(what)
    say(f"{what} afterwards", "done", time.monotonic() - began, repr(seat.echo.get(timeout=20)))


OPERATIONS: dict[str, Callable[[Seat], Any]] = {
    "get(timeout=3)": lambda seat: seat.nothing.get(timeout=3),
    "get()": lambda seat: seat.answers.get(),
    "put()": lambda seat: seat.stored.put("waits"),
    "put(timeout=3)": lambda seat: seat.stored.put("hurries", timeout=3),
    "qsize()": lambda seat: seat.stored.qsize(),
    "a new proxy": lambda seat: seat.manager.get_echo(),
    "connect()": lambda seat: connected() and None,
}
if HAS_OBJECTS:
    OPERATIONS["settings[…]"] = lambda seat: seat.settings["retries"]


def main() -> None:
    threads = [threading.Thread(target=bystander, args=each) for each in OPERATIONS.items()]
    for thread in threads:
        thread.start()
    for _ in threads:
        ready.get()
    print("ready", flush=True)
    sys.stdin.readline()
    trouble.set()
    sys.stdin.readline()
    over.set()
    for thread in threads:
        thread.join()
    print("over", flush=True)


if __name__ == "__main__":
    main()
