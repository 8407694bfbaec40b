"""A master and many workers, each in a network namespace of its own, joined by cables: prints a report as JSON.

    unshare --net --mount python many_machines.py MACHINES TASKS

        m1 192.0.2.2 ──── 192.0.2.1 ┐
        m2 192.0.2.6 ──── 192.0.2.5 ┤ master
        …                           ┘

All of it happens in a network and mount namespace that ends with this program. The last machine joins when a quarter of the
tasks are done, the first leaves (SIGTERM) when half are, and at the end all are told to stop.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from concurrent.futures import as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

PORT = 5959
SHORTEST_S, LONGEST_S = 0.005, 0.050
WAIT_S = 40.0


def task(number: int, seconds: float) -> tuple[int, str, float, float]:
    """Take that long; say where and when."""
    began = time.time()
    time.sleep(seconds)
    return number, os.environ["MACHINE"], began, time.time()


class Machine:
    """One worker in its namespace."""

    def __init__(self, n: int, folder: Path) -> None:
        self.name = f"m{n}"
        self.master_address, self.address = f"192.0.2.{4 * n + 1}", f"192.0.2.{4 * n + 2}"
        self.out, self.err = folder / f"{self.name}.out", folder / f"{self.name}.err"

    def connect(self) -> None:
        """Make the namespace and its cable to the master's."""
        for command in (
            f"netns add {self.name}",
            f"-n {self.name} link set lo up",
            f"link add to-{self.name} type veth peer name eth0 netns {self.name}",
            f"address add {self.master_address}/30 dev to-{self.name}",
            f"-n {self.name} address add {self.address}/30 dev eth0",
            f"link set to-{self.name} up",
            f"-n {self.name} link set eth0 up",
        ):
            subprocess.run(["ip", *command.split()], check=True)

    def start(self) -> None:
        url = f"tcp://{self.master_address}:{PORT}"
        command = ["ip", "netns", "exec", self.name, sys.executable, "-m", "manyhands", "worker", url, "--concurrency", "1"]
        self.started_at = time.time()
        with self.out.open("wb") as out, self.err.open("wb") as err:
            environ = {**os.environ, "MACHINE": self.name}
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environ)

    def is_ready(self) -> bool:
        """Whether it has said that it works for the master."""
        if self.process.poll() is not None:
            raise SystemExit(f"{self.name} ended with {self.process.returncode}: {self.err.read_text()}")
        return "works for" in self.out.read_text()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def ended(self, deadline_mono: float) -> dict[str, Any]:
        try:
            code = self.process.wait(max(deadline_mono - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        return {"code": code, "stderr": self.err.read_text()}


def until(condition: Any, what: str) -> float:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited {WAIT_S} s in vain: {what}")
        time.sleep(0.005)
    return time.time()


def main(machines: int, tasks: int) -> None:
    import manyhands as mh

    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)  # ip notes its namespaces there
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.environ["MANYHANDS_AUTHKEY"] = "a key for many machines that are none"
    rng = random.Random(9)
    report: dict[str, Any] = {"machines": machines, "tasks": tasks}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        hands = [Machine(n, folder) for n in range(machines)]
        for hand in hands:
            hand.connect()
        stack.enter_context(mh.serve(f"tcp://0.0.0.0:{PORT}", insecure=True))
        early, late, leaver = hands[:-1], hands[-1], hands[0]
        for hand in early:
            hand.start()
            stack.callback(hand.process.kill)
        for hand in early:
            until(hand.is_ready, f"{hand.name} is there")
        runs: dict[str, list[tuple[float, float]]] = defaultdict(list)
        wrong, left_at = 0, 0.0
        said_at: list[float] = []
        watcher = threading.Thread(target=lambda: said_at.append(until(late.is_ready, f"{late.name} is there")))
        seen: set[int] = set()
        with mh.Executor(url=f"tcp://127.0.0.1:{PORT}") as executor:
            futures = {executor.submit(task, number, rng.uniform(SHORTEST_S, LONGEST_S)): number for number in range(tasks)}
            for n, future in enumerate(as_completed(futures), start=1):
                number, machine, began, ended = future.result()
                wrong += number != futures[future] or number in seen
                seen.add(number)
                runs[machine].append((began, ended))
                if n == tasks // 4:
                    late.start()
                    stack.callback(late.process.kill)
                    watcher.start()
                elif n == tasks // 2:
                    left_at = time.time()
                    leaver.stop()
        watcher.join()
        for hand in hands:
            if hand is not leaver:
                hand.stop()
        deadline_mono = time.monotonic() + WAIT_S
        report["ends"] = {hand.name: hand.ended(deadline_mono) for hand in hands}
    busy_at = min(began for began, _ in runs[late.name])
    report |= {"wrong": wrong, "seen": len(seen), "late_busy_after_start_s": busy_at - late.started_at}
    report["late_busy_after_ready_s"] = busy_at - said_at[0]
    report["ran_after_leaving_s"] = max(ended for _, ended in runs[leaver.name]) - left_at
    stayed = [hand.name for hand in early if hand is not leaver]
    report["shares"] = {name: sum(ended - began for began, ended in runs[name]) for name in stayed}
    report["counts"] = {name: len(each) for name, each in runs.items()}
    begun, done = min(b for each in runs.values() for b, _ in each), max(e for each in runs.values() for _, e in each)
    report["seconds"] = done - begun
    report["busy"] = sum(report["shares"].values()) / (len(stayed) * report["seconds"])
    print(json.dumps(report))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
