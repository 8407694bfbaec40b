"""The tables of traps in both pages are what the tests say, and no trap is missing."""

from __future__ import annotations

import re

import pytest

from .rows import NUMBERS, Both, Row, all_rows
from .table import BEGIN, END, PAGES, render, with_table


def test_every_trap_has_a_test_named_after_it() -> None:
    assert [row.number for row in all_rows()] == list(NUMBERS)


@pytest.mark.parametrize("language", PAGES)
def test_the_pages_tables_are_what_the_tests_say(language: str) -> None:
    page = PAGES[language].read_text(encoding="utf-8")
    assert page == with_table(page, render(language, all_rows())), "run: python tests/traps/table.py --write"


@pytest.mark.parametrize("row", all_rows(), ids=lambda row: str(row.number))
def test_a_row_is_told_in_both_languages(row: Row) -> None:
    for cell in (row.when, row.answer):
        assert re.search(r"[\u4e00-\u9fff]", cell.chinese), cell
        assert not re.search(r"[\u4e00-\u9fff]", cell.english), cell
    quoted = [set(re.findall(r"`[^`]+`", text)) for text in row.when]
    assert quoted[0] == quoted[1], "the code in both languages is the same"


def test_a_planted_difference_is_noticed() -> None:
    row = Row(1, Both("`E`", "`E`"), Both("a | b", "甲"), Both("c", "乙"), "test_trap_01_x")
    page = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert "| 1 | `E` | a \\| b | c |" in with_table(page, render("english", [row]))
    assert with_table(page, render("chinese", [row])) != page
    with pytest.raises(AssertionError, match="has no line"):
        with_table("no markers", "")
