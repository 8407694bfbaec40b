"""`manyhands queue move`: queues go to another engine while programs use both."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from manyhands.address import scheme_of, without_password
from manyhands.cli.asking import CONNECT_S
from manyhands.cli.options import AuthkeyOption, JsonOption, read_key
from manyhands.cli.output import print_json, size
from manyhands.cli.signals import stopped_by_signals
from manyhands.errors import PayloadTooLarge, UsageError

if TYPE_CHECKING:
    from manyhands.client.connecting import Place
    from manyhands.moving import Progress

Show = Callable[["Progress"], None]
SAY_S = 5.0
"""How often progress is said where there is no terminal to draw a bar on."""


def move(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Where the queues are: a server, or a store.")],
    target: Annotated[str, typer.Argument(metavar="TARGET", help="Where they go.")],
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="NAME", help="A queue to move; may be repeated.", show_default="all of them"),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on moving what producers still put at SOURCE, until Ctrl-C.")
    ] = False,
    authkey: AuthkeyOption = None,
    to_authkey: Annotated[
        str | None,
        typer.Option(
            "--to-authkey", metavar="@FILE", help="The key of TARGET, if it has another: what is moved is signed anew."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Move queues to another server or store, in use.

    Items, calls of tasks, delayed ones and dead letters, while programs go on using both. Loses nothing; killed and
    started again, it moves nothing twice.

    \b
    Example: manyhands queue move tcp://127.0.0.1:5959 redis://10.0.0.7:6379
             manyhands queue move tcp://127.0.0.1:5959 redis://10.0.0.7:6379 --follow
             manyhands queue move sqlite:///jobs.db redis://10.0.0.7:6379 --queue mail --queue reports
    """
    check_source(source)
    from manyhands.client.connecting import open_place  # not at the top: a worker's parent is small without a client
    from manyhands.moving import Mover

    key = read_key(authkey)
    first = open_place(source, key, timeout_s=CONNECT_S)
    try:
        second = open_place(target, key if to_authkey is None else read_key(to_authkey), timeout_s=CONNECT_S)
        try:
            mover = Mover(
                first.engine,
                second.engine,
                source_keys=first.keyring,
                target_keys=second.keyring,
                place=shown(second, target),
                queues=queue or (),
                is_following=follow,
            )
            with (
                stopped_by_signals(mover.stop),
                shower(f"{shown(first, source)} → {shown(second, target)}", as_json) as show,
            ):
                done = mover.run(show)
        finally:
            second.engine.close()
    finally:
        first.engine.close()
    if as_json:
        print_json({name: value for name, value in done._asdict().items() if name != "is_idle"})
    else:
        sys.stdout.write("\n".join(said(done)) + "\n")
    if done.too_large:
        raise PayloadTooLarge(
            f"{done.too_large} messages are over max_body_bytes at {shown(second, target)} and stay at the source, "
            "for its workers to run."
        )


def check_source(source: str) -> None:
    """Refuse to move out of what is not there; opening a file that is missing would make it.

    Raises:
        UsageError: it is memory, which is another process's, or a file that does not exist.
    """
    scheme = scheme_of(source)
    if scheme == "memory":
        raise UsageError(
            "memory:// is empty in a new process; give the address of the server that has the queues (tcp://…)."
        )
    if scheme == "sqlite" and not Path(source[len("sqlite:///") :]).is_file():
        raise UsageError(f"{source} does not exist, so there is nothing to move; three slashes are a path in this folder.")


def shown(place: Place, url: str) -> str:
    """Its URL as it may be printed."""
    return place.url or without_password(url)


@contextmanager
def shower(what: str, as_json: bool) -> Iterator[Show]:
    """What shows how far it is: a bar on a terminal, else now and then a line on standard error."""
    if as_json:
        yield lambda _: None
    elif sys.stdout.isatty():
        with bar(what) as show:
            yield show
    else:
        yield lines(what)


def lines(what: str, now: Callable[[], float] = time.monotonic) -> Show:
    """Says a line every SAY_S seconds."""
    said_at, said_n = now(), 0

    def show(progress: Progress) -> None:
        nonlocal said_at, said_n
        passed_s = now() - said_at
        if passed_s >= SAY_S:
            rate = (progress.moved - said_n) / passed_s
            said_at, said_n = now(), progress.moved
            sys.stderr.write(
                f"{what}: {progress.moved:,} moved, {progress.left:,} left, {rate:,.0f}/s{standing(progress)}\n"
            )

    return show


@contextmanager
def bar(what: str) -> Iterator[Show]:
    """A bar with rate and the time that is left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    from manyhands.executor.progress import RateColumn

    columns = (BarColumn(), MofNCompleteColumn(), RateColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Bar(TextColumn("{task.description}"), *columns) as drawn:
        task = drawn.add_task(what, total=None)

        def show(progress: Progress) -> None:
            moved = progress.moved + progress.dead
            total = moved + progress.left or None
            drawn.update(task, completed=moved, total=total, description=what + standing(progress))

        yield show


def standing(progress: Progress) -> str:
    """What is worth saying beside the numbers."""
    if not progress.is_idle:
        return ""
    if progress.working:
        return f"; waits for {progress.working:,} in the hands of workers there"
    if progress.left:
        return f"; waits for {progress.left:,} that failed there and are tried again later"
    users = len(progress.users)
    return "; nothing left" + (f", {users} other programs are still connected there" if users else ", nobody else is there")


def said(done: Progress) -> list[str]:
    """What was done, and what is to be known about it, in sentences."""
    found = [f"Moved {done.moved:,} messages of {done.queues} queues ({size(done.size_bytes)})."]
    if done.dead:
        found.append(f"Moved {done.dead:,} dead letters.")
    if done.left:
        found.append(f"{done.left:,} are left at the source; run the same command again to go on.")
    if done.staying:
        found.append(
            f"{done.staying:,} calls stay at the source, because a program waits there for their results: keep a worker "
            "there until they are done."
        )
    if done.dead_staying:
        found.append(
            f"{done.dead_staying:,} dead letters stay at the source, because they cannot be taken over: manyhands dead list."
        )
    if done.refused:
        found.append(
            f"{done.refused:,} were signed with another key and are dead letters of the source now: manyhands dead list."
        )
    if done.overtaken:
        found.append(f"{done.overtaken:,} were given to workers of the source meanwhile and may run twice.")
    if done.users:
        found.append(f"Still connected to the source: {', '.join(done.users[:5])}{' …' if len(done.users) > 5 else ''}.")
    return found
