"""The commands put together, and the process's exit code."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from manyhands._version import __version__
from manyhands.cli import dead, queues
from manyhands.cli.bench import bench
from manyhands.cli.demo import demo
from manyhands.cli.exits import MEANINGS, report
from manyhands.cli.serve import serve
from manyhands.cli.status import status
from manyhands.cli.worker import worker
from manyhands.errors import ManyhandsError

HELP = "Named queues shared by many processes and machines, with nothing lost."
EXIT_CODES = "Exit codes: " + "; ".join(f"{int(code)} {meaning}" for code, meaning in MEANINGS.items()) + "."

app = typer.Typer(
    name="manyhands",
    help=HELP,
    epilog=EXIT_CODES,
    no_args_is_help=True,
    rich_markup_mode=None,  # help is plain text, the same in a terminal, a pipe and docs/cli.md
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)
app.command()(serve)
app.command()(worker)
app.command(short_help="Run the tutorial's program on this machine.")(demo)
app.command(short_help="Show the queues and who is connected.")(status)
app.command(short_help="Measure how fast calls are run here.")(bench)
app.add_typer(queues.app, name="queue")
app.add_typer(dead.app, name="dead")


def _say_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"manyhands {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Say which version.")
    ] = False,
) -> None:
    """Options of the command itself, before any subcommand; --version has acted by the time this runs."""


def run() -> int:
    """Run the command that was typed; the code to end the process with."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a Windows pipe may know a few hundred characters only
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="manyhands")
    except SystemExit as end:  # how the command-line library ends every command
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except ManyhandsError as error:
        return report(error)
    return 0
