"""`manyhands bench`: what this machine, or a server and its workers, can do, measured in half a minute.

Beside it, in turn, the standard library's ProcessPoolExecutor does the same on this machine, so that the figures mean
something. Beside all the others, with charts: `make bench` in a checkout.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Annotated, Any, NamedTuple

import typer

from manyhands.cli.options import AuthkeyOption, JsonOption, read_key
from manyhands.cli.output import console, print_json, table
from manyhands.errors import ServerUnavailable
from manyhands.settings import KEY_VARIABLE

MB = 1024 * 1024
WINDOW = 8
"""How many megabytes are on their way at once."""
START_S = 20.0

# What is run must be importable by any worker, of whatever program: abs(n) is n, bytes(b) is b.
NOOP: Callable[[int], int] = abs
ECHO: Callable[[bytes], bytes] = bytes


class Figure(NamedTuple):
    """One line of the table."""

    key: str
    what: str
    value: float
    unit: str
    is_less_better: bool = False


def bench(
    url: Annotated[
        str | None,
        typer.Option(
            "--url", metavar="URL", help="Measure this server and its workers.", show_default="a server of its own"
        ),
    ] = None,
    queue: Annotated[
        str, typer.Option("--queue", "-q", metavar="NAME", help="The queue that the workers serve.")
    ] = "default",
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency", "-c", metavar="N", min=1, help="Children of its own worker.", show_default="all cores"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option("--seconds", metavar="S", min=0.1, help="How long each measure takes.")] = 2.0,
    alone: Annotated[bool, typer.Option("--alone", help="Leave the standard library's ProcessPoolExecutor out.")] = False,
    authkey: AuthkeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure calls a second, the time of one call, and megabytes a second, beside ProcessPoolExecutor on this machine.

    Without --url it starts a server and a worker as processes of their own and ends them afterwards. With --url the workers
    that are there do the work, beside what else they have to do.

    \b
    Example: manyhands bench
             manyhands bench --concurrency 4 --seconds 1 --json
             manyhands bench --alone --url tcp://10.0.0.5:5959 --authkey @cluster.key
    """
    import manyhands.executor  # here, so that the other commands start without it

    children = concurrency or os.cpu_count() or 1
    beside = {} if alone else measure_standard(children, seconds)
    with ExitStack() as stack:
        key: str | bytes | None = read_key(authkey)
        if url is None:
            key = secrets.token_urlsafe()
            url = stack.enter_context(own_cluster(key, queue, children))
        executor = manyhands.executor.Executor(url=url, authkey=key, queue=queue)
        stack.callback(executor.shutdown, cancel_futures=True)  # whatever happened, nothing is waited for that nobody runs
        figures = measure(executor, seconds)
    if as_json:
        document: dict[str, object] = {"url": url, **{each.key: each.value for each in figures}}
        if beside:
            document["process_pool_executor"] = beside
        print_json(document)
        return
    out = console()
    out.print(f"{url}, queue {queue!r}")
    columns = ("", "manyhands", *(("ProcessPoolExecutor", "times better") if beside else ()), "unit")
    out.print(table(columns, [row(each, beside) for each in figures], numbers=frozenset(columns[1:-1])))


def row(figure: Figure, beside: dict[str, float]) -> list[str]:
    """One line for people."""
    cells = [figure.what, number(figure.value)]
    if beside:
        other = beside[figure.key]
        better = other / figure.value if figure.is_less_better else figure.value / other
        cells += [number(other), f"{better:.1f}"]
    return [*cells, figure.unit]


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def measure_standard(children: int, seconds: float) -> dict[str, float]:
    """The same by the standard library's executor. It is over before ours begins: neither disturbs the other."""
    with ProcessPoolExecutor(children, multiprocessing.get_context("spawn")) as executor:
        return {figure.key: figure.value for figure in measure(executor, seconds)}


def measure(executor: Executor, seconds: float) -> list[Figure]:
    """Every measure, each for about so many seconds, on any executor.

    Raises:
        ServerUnavailable: nobody takes the calls.
    """
    started = time.perf_counter()
    try:
        executor.submit(NOOP, 1).result(START_S)
    except TimeoutError as error:
        raise ServerUnavailable(
            f"No worker took a call within {START_S:.0f} s; start one for this queue: manyhands worker URL --queues NAME."
        ) from error
    first_s = time.perf_counter() - started
    trips = sorted(one_call_each(executor, seconds))
    return [
        Figure("first_result_ms", "first result", first_s * 1e3, "ms", is_less_better=True),
        Figure("call_p50_us", "one call, median", trips[len(trips) // 2] * 1e6, "µs", is_less_better=True),
        Figure("call_p99_us", "one call, 99 of 100 below", trips[len(trips) * 99 // 100] * 1e6, "µs", is_less_better=True),
        Figure("submit_per_s", "submit → result", best_of(lambda n: submit_all(executor, n), seconds, first=500), "calls/s"),
        Figure("map_per_s", "map", best_of(lambda n: map_all(executor, n), seconds, first=5_000), "calls/s"),
        Figure("mb_per_s", "1 MB, in + out", best_of(lambda n: 2 * echo_all(executor, n), seconds, first=8), "MB/s"),
    ]


def one_call_each(executor: Executor, seconds: float) -> Iterator[float]:
    """How long each of the calls took, one after the other."""
    until = time.perf_counter() + seconds
    while True:
        started = time.perf_counter()
        executor.submit(NOOP, 1).result()
        ended = time.perf_counter()
        yield ended - started
        if ended > until:
            return


def best_of(job: Callable[[int], int], seconds: float, *, first: int) -> float:
    """The best rate of a job that is done again with twice the work until the time is over: warm, and not of one moment."""
    until, n, best = time.perf_counter() + seconds, first, 0.0
    while True:
        started = time.perf_counter()
        done = job(n)
        ended = time.perf_counter()
        best = max(best, done / (ended - started))
        if ended > until:
            return best
        if ended - started < seconds / 4:
            n *= 2


def submit_all(executor: Executor, n: int) -> int:
    futures = deque(executor.submit(NOOP, i) for i in range(n))
    while futures:
        futures.popleft().result()
    return n


def map_all(executor: Executor, n: int) -> int:
    return sum(1 for _ in executor.map(NOOP, range(n)))


def echo_all(executor: Executor, n: int) -> int:
    """n megabytes there and back; how many came."""
    payload, on_the_way, came = os.urandom(MB), deque[Any](), 0
    for _ in range(n):
        if len(on_the_way) == WINDOW:
            came += len(on_the_way.popleft().result())
        on_the_way.append(executor.submit(ECHO, payload))
    while on_the_way:
        came += len(on_the_way.popleft().result())
    return came // MB


@contextmanager
def own_cluster(key: str, queue: str, concurrency: int) -> Iterator[str]:
    """A server and a worker as programs of their own, as a cluster has them; its URL."""
    environ = {**os.environ, KEY_VARIABLE: key, "PYTHONUTF8": "1"}
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "manyhands", *arguments]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, env=environ)
        processes.append(process)
        return process

    try:
        server = start("serve", "tcp://127.0.0.1:0")
        assert server.stdout is not None
        said = server.stdout.readline().split()
        if not said:
            raise ServerUnavailable("The benchmark's server did not start; what it said is above.")
        url = said[-1]
        start("worker", url, "--queues", queue, "--concurrency", str(concurrency), "--quiet")
        yield url
    finally:
        for process in reversed(processes):
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
