"""The processes that the fault tests kill: a server on sqlite, producers, workers. Each writes down what it does.

python programs.py server PORT STORE LEASE_S
python programs.py producer URL NAME TOTAL JOURNAL
python programs.py worker URL JOURNAL
python programs.py collector URL JOURNAL
python programs.py slow_worker URL JOURNAL SECONDS

Whoever becomes the owner of a NATS space writes its process id into the file that MANYHANDS_TEST_OWNERS names.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import manyhands as mh
from manyhands.auth import Keyring
from manyhands.engines.sqlite import SqliteEngine
from manyhands.errors import LeaseLost, ServerGone, ServerUnavailable, ShutDown
from manyhands.model import Limits
from manyhands.server import SocketServer

KEY = "a key for fault tests"
CONNECT_S = 60.0
"""A cluster whose leader was killed has another only 4 to 9 s later; whoever is started meanwhile waits for it."""
BOUND = 500
"""Producers stay close ahead of the workers, so that kills hit both at work."""


class Journal:
    """Lines that survive this process's death, each written with one system call."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, line: str) -> None:
        os.write(self._file, f"{line}\n".encode())


def server(port: str, store: str, lease_s: str) -> None:
    engine = SqliteEngine(store, limits=Limits(lease_s=float(lease_s), heartbeat_s=float(lease_s) / 5))
    SocketServer(engine, port=int(port), keyring=Keyring(KEY)).start()
    threading.Event().wait()


def allowed(journal: str) -> int:
    """How many tasks a producer may have put by now: the test holds work back for faults that are still to come."""
    with suppress(FileNotFoundError, ValueError), open(f"{journal}.allowed", encoding="utf-8") as file:
        return int(file.read())
    return 0


def producer(url: str, name: str, total: str, journal: str) -> None:
    """Put numbers under ids of its own, going on where an earlier one of that name was killed."""
    first = 0
    if os.path.exists(journal):
        with open(journal, encoding="utf-8") as lines:
            first = sum(1 for _ in lines)
    notes = Journal(journal)
    with mh.connect(url, KEY, timeout_s=CONNECT_S) as client:
        tasks = client.queue("tasks", BOUND)
        for number in range(first, int(total)):
            while number >= allowed(journal):
                time.sleep(0.01)
            insist(tasks.put, (name, number), id=f"{name}:{number}")
            notes.write(str(number))


def insist(call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call it, again where it only says that an earlier put was refused (that task and its result are another's by now),
    or that nobody answers: a cluster elects a leader. All that is called here may be said twice."""
    while True:
        with suppress(LeaseLost, ServerUnavailable):
            return call(*arguments, **options)


def worker(url: str, journal: str) -> None:
    """The tutorial's worker: get, work, put the result; the next get acknowledges."""
    notes = Journal(journal)
    with mh.connect(url, KEY, timeout_s=CONNECT_S) as client:
        tasks, results = client.queue("tasks"), client.queue("results")
        try:
            while True:
                name, number = insist(tasks.get)
                notes.write(f"{name}:{number}")
                insist(results.put, (name, number, number * number))
        except (ShutDown, ServerGone):
            return


def collector(url: str, journal: str) -> None:
    """Note each result, and which time it came: told again, because the one that was told before has died, is not twice."""
    notes = Journal(journal)
    with mh.connect(url, KEY, timeout_s=CONNECT_S) as client:
        results = client.queue("results")
        try:
            while True:
                # An answer that was not there in time is no loss: what is not done comes again, and says so.
                with suppress(LeaseLost, ServerUnavailable), results.receive() as delivery:
                    name, number, square = delivery.value
                    notes.write(f"{name} {number} {square} {delivery.attempt}")
        except (ShutDown, ServerGone):
            return


def slow_worker(url: str, journal: str, seconds: str) -> None:
    """Take one task, work for long, then try to acknowledge it with a result."""
    notes = Journal(journal)
    with mh.connect(url, KEY, timeout_s=CONNECT_S) as client, client.queue("tasks").receive() as delivery:
        notes.write(f"began {delivery.value}")
        time.sleep(float(seconds))
        notes.write("woke")
        try:
            client.queue("results").put(("late", delivery.value))
            client.queue("tasks").qsize()  # the put's refusal has come by then
        except LeaseLost:
            notes.write("put refused")


class NoteOwner(logging.Handler):
    """Takes the NATS engine's word that this program is the owner now."""

    def emit(self, record: logging.LogRecord) -> None:
        if str(record.msg).startswith("this program is the owner of"):
            Journal(os.environ["MANYHANDS_TEST_OWNERS"]).write(str(os.getpid()))


if __name__ == "__main__":
    errors = logging.StreamHandler()
    errors.setLevel(logging.ERROR)
    logging.basicConfig(handlers=[errors], level=logging.ERROR)
    if "MANYHANDS_TEST_OWNERS" in os.environ:
        nats = logging.getLogger("manyhands.engines.nats")
        nats.addHandler(NoteOwner(logging.INFO))
        nats.setLevel(logging.INFO)
    globals()[sys.argv[1]](*sys.argv[2:])
