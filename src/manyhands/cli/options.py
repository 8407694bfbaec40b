"""The options that many commands share, and how they become a connection."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from manyhands.address import DEFAULT_URL
from manyhands.errors import UsageError
from manyhands.settings import KEY_VARIABLE

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="MANYHANDS_URL", help="The server to ask.", show_default=DEFAULT_URL, metavar="URL"),
]
AuthkeyOption = Annotated[
    str | None,
    typer.Option(
        "--authkey",
        help=f"@FILE reads the key from a file, - from standard input. Otherwise {KEY_VARIABLE}, or this user's kept key.",
        metavar="@FILE",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text for people.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def read_key(given: str | None) -> bytes | None:
    """The key that `--authkey` names, or None to look for it in the usual places.

    Raises:
        UsageError: the file cannot be read, or there is nothing in it.
    """
    if given is None:
        return None
    if given == "-":
        key = sys.stdin.readline().encode().strip()
        if not key:
            raise UsageError("--authkey - found no key on standard input; pipe one line into it.")
        return key
    if given.startswith("@"):
        try:
            key = Path(given[1:]).expanduser().read_bytes().strip()
        except OSError as error:
            raise UsageError(f"The key file {given[1:]} cannot be read ({error.strerror}); check the path.") from error
        if not key:
            raise UsageError(f"The key file {given[1:]} is empty; put the key into it.")
        return key
    sys.stderr.write(
        f"manyhands: every user of this machine can see a key on the command line; use --authkey @FILE or {KEY_VARIABLE}.\n"
    )
    return given.encode()


def confirm(question: str, *, yes: bool) -> None:
    """Go on only if the user agrees.

    Raises:
        UsageError: nobody is there to be asked.
        typer.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("This cannot be undone and nobody is here to confirm it; add --yes.")
    typer.confirm(question, abort=True)
