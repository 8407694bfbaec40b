"""docs/cli.md, written from the commands themselves.

python tests/cli/reference.py --write      after a command has changed; a test fails until then
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer.main

from manyhands.cli.app import HELP, app
from manyhands.cli.exits import MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

HEAD = f"""# The command line

{HELP} `manyhands` and `python -m manyhands` are the same. This page is written from the commands' own help by
`python tests/cli/reference.py --write`; a test fails when it is stale.

Every command takes `--help`. With `--json` it prints one JSON document a line on standard output and nothing else there;
errors are one sentence on standard error. `manyhands --install-completion` makes the shell complete commands and options.

## Exit codes

| Code | Meaning |
|---|---|
"""


def commands(group: Any, path: str) -> list[tuple[str, Any]]:
    """Every command below a group, with the words that call it."""
    found = []
    for name, each in group.commands.items():
        words = f"{path} {name}"
        found += commands(each, words) if hasattr(each, "commands") else [(words, each)]
    return found


def section(words: str, command: Any) -> str:
    """One command: what it does, its example, its arguments and options."""
    text, _, example = inspect.cleandoc(command.help).partition("\b\n")
    lines = [line.removeprefix("Example:").strip() for line in example.splitlines()]
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name != "help"]
    usage = " ".join(
        [words, *(each.make_metavar_text() for each in map(Parameter, arguments)), "[OPTIONS]" if options else ""]
    ).strip()
    rows = [f"| `{Parameter(each).names}` | {Parameter(each).help} |" for each in (*arguments, *options)]
    table = "\n".join(["| | |", "|---|---|", *rows])
    return (
        f"## {words}\n\n{' '.join(text.split())}\n\n```text\n{usage}\n```\n\nFor example:\n\n```sh\n"
        + "\n".join(lines)
        + f"\n```\n\n{table}\n"
    )


class Parameter:
    """One argument or option as the page shows it, whatever the command-line library's version."""

    def __init__(self, parameter: Any) -> None:
        self._parameter = parameter

    @property
    def is_flag(self) -> bool:
        return bool(getattr(self._parameter, "is_flag", False))

    @property
    def names(self) -> str:
        if self._parameter.param_type_name == "argument":
            return self.make_metavar_text()
        metavar = "" if self.is_flag else " " + str(self._parameter.metavar)
        return ", ".join(sorted(self._parameter.opts, key=len, reverse=True)) + metavar

    @property
    def help(self) -> str:
        default = self._parameter.default
        shown = self._parameter.show_default
        if isinstance(shown, str):
            return f"{self._parameter.help} Default: `{shown}`."
        if self.is_flag or default in (None, "") or not shown:
            return str(self._parameter.help)
        return f"{self._parameter.help} Default: `{default}`."

    def make_metavar_text(self) -> str:
        return str(self._parameter.metavar or self._parameter.name.upper())


def render() -> str:
    """The page."""
    rows = "".join(f"| {int(code)} | {meaning} |\n" for code, meaning in MEANINGS.items())
    sections = [section(words, command) for words, command in commands(typer.main.get_command(app), "manyhands")]
    return HEAD + rows + "\n" + "\n".join(sections)


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(render(), encoding="utf-8")
    else:
        sys.stdout.write(render())
