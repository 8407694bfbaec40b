"""`manyhands worker`: runs calls and tasks until it is told to stop."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from manyhands._version import __version__
from manyhands.address import DEFAULT_URL, without_password
from manyhands.cli.options import AuthkeyOption, JsonOption, read_key
from manyhands.cli.output import duration, print_json, size
from manyhands.worker.limits import size_bytes
from manyhands.worker.worker import GRACE_S, POOLS, Worker


def worker(
    url: Annotated[
        str | None,
        typer.Argument(help="The server to work for.", metavar="[URL]", envvar="MANYHANDS_URL", show_default=DEFAULT_URL),
    ] = None,
    queues: Annotated[
        str, typer.Option("--queues", "-q", metavar="NAMES", help="Queues to serve, by commas, the preferred first.")
    ] = "default",
    concurrency: Annotated[
        int | None,
        typer.Option("--concurrency", "-c", metavar="N", min=1, help="Calls at a time.", show_default="one for each core"),
    ] = None,
    imports: Annotated[
        list[str] | None,
        typer.Option(
            "--import",
            "-i",
            metavar="MODULE",
            help="A module to import first, for its tasks, from this folder or installed; may be repeated.",
        ),
    ] = None,
    pool: Annotated[str, typer.Option("--pool", metavar="KIND", help=f"What runs calls: {', '.join(POOLS)}.")] = "process",
    tasks_only: Annotated[
        bool, typer.Option("--tasks-only", help="Run registered tasks only; nothing that arrives is unpickled.")
    ] = False,
    max_memory: Annotated[
        str, typer.Option("--max-memory", metavar="SIZE", help="Replace a child that uses more, as in 500M.")
    ] = "",
    max_tasks_per_child: Annotated[
        int | None,
        typer.Option(
            "--max-tasks-per-child", metavar="N", min=1, help="Replace a child after so many calls.", show_default=False
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0, help="How long running calls have when it is stopped.")
    ] = GRACE_S,
    healthz: Annotated[
        str, typer.Option("--healthz", metavar="HOST:PORT", help="Answer GET /healthz there, for probes.")
    ] = "",
    reload: Annotated[
        bool, typer.Option("--reload", help="Replace the children when a file of the imported modules changes.")
    ] = False,
    authkey: AuthkeyOption = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="Say nothing but what is wrong.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the calls and tasks of queues, until Ctrl-C or SIGTERM.

    Stopped, it takes no more, lets running calls end for --grace seconds, and gives the rest back. Stopped twice, it ends
    them at once. It waits for a server that is away.

    \b
    Example: manyhands worker
             manyhands worker tcp://10.0.0.5:5959 --authkey @cluster.key --concurrency 8
             manyhands worker --queues mail,default --import myapp.tasks --tasks-only
             manyhands worker --max-memory 500M --max-tasks-per-child 1000 --healthz 127.0.0.1:8080
    """
    here = os.getcwd()
    if here not in sys.path:  # as `python -m manyhands` has it: modules of tasks lie where the worker is started
        sys.path.insert(0, here)
    log_to_streams(logging.WARNING if quiet or as_json else logging.INFO)
    working = Worker(
        url,
        [name.strip() for name in queues.split(",") if name.strip()],
        authkey=read_key(authkey),
        concurrency=concurrency,
        pool=pool,
        imports=imports or (),
        grace_s=grace,
        max_tasks_per_child=max_tasks_per_child,
        max_memory_bytes=size_bytes(max_memory) if max_memory else None,
        tasks_only=tasks_only,
        healthz=healthz or None,
        reload=reload,
    )
    is_silent = quiet and not as_json
    working.run(
        on_start=lambda: None if is_silent else announce(working, as_json=as_json),
        on_stop=lambda: None if is_silent else announce_stop(working, as_json=as_json),
    )
    if as_json:
        print_json({"event": "stopped"})
    elif not quiet:
        sys.stdout.write("stopped; nothing was left running\n")


def announce(working: Worker, *, as_json: bool) -> None:
    """Say what is served, once the server was reached and there are hands: programs that start a worker wait for this."""
    if as_json:
        print_json(
            {
                "event": "started",
                "version": __version__,
                "url": without_password(working.url),
                "queues": list(working.queues),
                "pool": working.pool,
                "concurrency": working.concurrency,
                "healthz": working.health_url or None,
                "pid": os.getpid(),
            }
        )
        return
    what = {"process": "process", "thread": "thread", "async": "call"}[working.pool]
    many = "" if working.concurrency == 1 else "es" if what == "process" else "s"
    lines = [
        f"manyhands {__version__} works for {without_password(working.url)}",
        f"  queues  {', '.join(working.queues)}",
        f"  hands   {working.concurrency} {what}{many}{limits(working)}",
    ]
    if working.health_url:
        lines.append(f"  health  {working.health_url}")
    lines.append(f"  stop    Ctrl-C; running calls then have {duration(working.grace_s)}")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def announce_stop(working: Worker, *, as_json: bool) -> None:
    """Say that it was told to stop, and what it waits for."""
    busy = sum(child.is_busy for child in working.children)
    if as_json:
        print_json({"event": "stopping", "running": busy})
    elif busy:
        calls = f"{busy} call{'s' if busy != 1 else ''}"
        sys.stdout.write(f"stopping; {calls} may run for {duration(working.grace_s)} more (stop again to end them now)\n")
        sys.stdout.flush()


def limits(working: Worker) -> str:
    """What a child may use, for the banner."""
    said = []
    if working.max_memory_bytes:
        said.append(f"up to {size(working.max_memory_bytes)} each")
    if working.max_tasks_per_child:
        said.append(f"replaced after {working.max_tasks_per_child} calls")
    return "".join(f", {text}" for text in said)


def log_to_streams(level: int) -> None:
    """Log lines for people: what is wrong to stderr, what happened to stdout, so that a good run leaves stderr empty."""
    formatter = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")
    root = logging.getLogger("manyhands")
    root.setLevel(level)
    root.propagate = False
    for stream, floor, ceiling in ((sys.stdout, level, logging.INFO), (sys.stderr, logging.WARNING, logging.CRITICAL)):
        handler = logging.StreamHandler(stream)
        handler.setFormatter(formatter)
        handler.setLevel(floor)
        handler.addFilter(lambda record, ceiling=ceiling: record.levelno <= ceiling)  # type: ignore[misc]
        root.addHandler(handler)
