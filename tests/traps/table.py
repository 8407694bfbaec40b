"""The tables of traps in both pages, written from the tests that hold them.

python tests/traps/table.py --write        after a row has changed; a test fails until then
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does, so that the tests can be imported

from traps.rows import Row, all_rows

DOCS = Path(__file__).parents[2] / "docs"
PAGES = {"english": DOCS / "coming-from-managers.md", "chinese": DOCS / "coming-from-managers.zh-CN.md"}
BEGIN = "<!-- written by tests/traps/table.py --write -->"
END = "<!-- end of what table.py writes -->"
HEADS = {
    "english": "| | What you see with the standard library | When | With manyhands |",
    "chinese": "| | 用标准库时看到的 | 什么时候 | 换成 manyhands 之后 |",
}


def render(language: str, rows: list[Row]) -> str:
    """The table in one language."""
    lines = [HEADS[language], "|---|---|---|---|"]
    for row in rows:
        sees, when, answer = (getattr(cell, language) for cell in (row.sees, row.when, row.answer))
        lines.append(f"| {row.number} | {_cell(sees)} | {_cell(when)} | {_cell(answer)} |")
    return "\n".join(lines)


def with_table(page: str, table: str) -> str:
    """The page with that table between its markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"the page has no line {BEGIN}"
    assert end, f"the page has no line {END}"
    return f"{before}{BEGIN}\n\n{table}\n\n{END}{after}"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    rows = all_rows()
    for language, path in PAGES.items():
        page = with_table(path.read_text(encoding="utf-8"), render(language, rows))
        if sys.argv[1:] == ["--write"]:
            path.write_text(page, encoding="utf-8")
        else:
            sys.stdout.write(page)
