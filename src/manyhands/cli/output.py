"""How commands show what they found: tables for people, one JSON document on a line for programs, and nothing executed.

Bodies are never decoded here: a command line that unpickled what it looks at would run what a stranger put there.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:  # 8 MB that a command only needs once it shows something
    from rich.console import Console
    from rich.table import Table

ID = "id"
"""The column of what commands take as an ID."""
PREVIEW_BYTES = 48
PLAIN_WIDTH = 200
"""Columns of a table that goes to a file or a pipe, where cutting text at 80 would lose it."""


def console() -> Console:
    """Standard output for people; plain text, wide enough, when it is not a terminal."""
    from rich.console import Console

    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=PLAIN_WIDTH)


def print_json(document: Any) -> None:
    """One line of JSON on standard output."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def plain(value: Any) -> Any:
    """A value as JSON can say it: dates and sets as texts and lists, what it has no word for as Python writes it."""
    try:
        return msgspec.json.decode(msgspec.json.encode(value))
    except (TypeError, ValueError, OverflowError):
        return {key: plain(each) for key, each in value.items()} if _has_texts_as_keys(value) else repr(value)


def _has_texts_as_keys(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: frozenset[str] = frozenset()) -> Table:
    """A plain table; the named columns hold numbers and are set to the right. Cells are text, never markup.

    An id stands whole on its line, however narrow the terminal is: it is there to be copied.
    """
    from rich.table import Table
    from rich.text import Text

    rows = list(rows)
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        if column in numbers:
            made.add_column(column, justify="right", no_wrap=True)
        elif column == ID:
            made.add_column(
                column, no_wrap=True, min_width=max((len(str(row[columns.index(ID)])) for row in rows), default=0)
            )
        else:
            made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(str(cell))) for cell in row))
    return made


def visible(text: str) -> str:
    """The text with control characters made visible: names come from strangers and must not move the cursor."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)


def preview(body: bytes) -> str:
    """The beginning of a body: its printable ASCII, dots for the rest."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in body[:PREVIEW_BYTES])
    return text + ("…" if len(body) > PREVIEW_BYTES else "")


def count(n: int, what: str) -> str:
    """So many of what a regular noun means."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def size(n: int) -> str:
    """Bytes for people."""
    value = float(n)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units."""
    seconds = max(seconds, 0.0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit_s, unit, smaller_s, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= unit_s:
            return f"{whole // unit_s} {unit} {whole % unit_s // smaller_s} {smaller}"
    return f"{whole} s"


def ago(wall: float) -> str:
    """How long before now a moment in UTC seconds was."""
    return f"{duration(time.time() - wall)} ago"
