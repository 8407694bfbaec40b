"""What the documents show is run, and what they point at exists. See docs/adr/0009.

Comments that stand directly above a ```python block say how it is run:

    <!-- file: master.py -->    one of several programs: those of a page run together, in this order, each in a process
    <!-- not run: reason -->    it cannot be run, for the reason given

A block without one is a program by itself. Ports 5959 and 5000 are replaced by free ones. A program must end by itself, with
exit code 0 and nothing on standard error. In ```sh blocks, calls of `manyhands` are checked against the commands that there
are, and calls of `make` against the Makefile.
"""

from __future__ import annotations

import re
import shlex
import socket
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from cli.reference import PAGE, render
from conftest import Start
from manyhands.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
BLOCK = re.compile(
    r"^(?:<!-- (?P<how>file|not run): (?P<what>.+?) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)(?:#[^)]*)?\)")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: Path
    line: int
    language: str
    text: str
    file: str
    """The program's name where it is one of several, else ""."""
    why_not: str
    """Why it is not run, else ""."""

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks_of(page: Path, text: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        how, what = match["how"], match["what"]
        line = text.count("\n", 0, match.start("text"))
        file, why_not = (what if how == "file" else ""), (what if how == "not run" else "")
        found.append(Block(page, line, match["language"], match["text"], file, why_not))
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page, page.read_text(encoding="utf-8"))]
ALONE = [b for b in BLOCKS if b.language == "python" and not b.file and not b.why_not]
TOGETHER = {
    page: found for page in PAGES if (found := [b for b in BLOCKS if b.page == page and b.language == "python" and b.file])
}


def runnable(text: str, port: int) -> str:
    return re.sub(r"\b(5959|5000)\b", str(port), text)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.programs
@pytest.mark.parametrize("block", ALONE, ids=lambda block: block.name)
def test_a_program_in_the_documents_runs(block: Block, start: Start, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(runnable(block.text, free_port()), encoding="utf-8")
    start("program", "program.py").ends_quietly()


@pytest.mark.programs
@pytest.mark.parametrize("page", TOGETHER, ids=lambda page: page.name)
def test_the_programs_of_a_page_run_together(page: Path, start: Start, tmp_path: Path) -> None:
    port = free_port()
    programs = []
    for block in TOGETHER[page]:
        (tmp_path / block.file).write_text(runnable(block.text, port), encoding="utf-8")
        programs.append(start(Path(block.file).stem, block.file))
    for program in programs:
        program.ends_quietly()


def test_the_readme_s_programs_are_twelve_lines_and_the_same_in_both_languages() -> None:
    english, chinese = (TOGETHER[ROOT / name] for name in ("README.md", "README.zh-CN.md"))
    assert [b.file for b in english] == [b.file for b in chinese] == ["master.py", "worker.py"]
    lines = [line for block in english for line in block.text.splitlines() if line]
    assert len(lines) <= 12

    def code(blocks: list[Block]) -> list[str]:
        return [line.partition("  #")[0].rstrip() for block in blocks for line in block.text.splitlines()]

    assert code(english) == code(chinese)


def calls_in(text: str) -> list[list[str]]:
    """The simple commands of a shell block as words, without their comments and environment."""
    calls = []
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words.pop(0)
        if words:
            calls.append(words)
    return calls


def complaint(words: list[str]) -> str | None:
    """What is wrong with a call of `manyhands`."""
    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while hasattr(command, "commands"):
        if not rest or rest[0].startswith("-"):
            break
        if rest[0] not in command.commands:
            return f"there is no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    return next((f"there is no option {word!r}" for word in rest if word.startswith("-") and word not in known), None)


SHELL_CALLS = [(block, words) for block in BLOCKS if block.language == "sh" for words in calls_in(block.text)]


def test_every_command_in_the_documents_exists() -> None:
    wrong = [
        f"{block.name}: {shlex.join(words)}: {said}"
        for block, words in SHELL_CALLS
        if (
            said := complaint(words[2:] if words[1:3] == ["-m", "manyhands"] else words)
            if "manyhands" in words[:3]
            else None
        )
    ]
    assert not wrong, "\n".join(wrong)


def test_every_make_target_in_the_documents_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for _, words in SHELL_CALLS if words[0] == "make" for word in words[1:] if "=" not in word}
    assert named <= targets
    assert {"demo", "test", "check", "bench"} <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = LINK.findall(re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    missing = [link for link in links if not (page.parent / link).exists()]
    assert not missing


def test_the_command_line_s_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run: python tests/cli/reference.py --write"


def test_every_decision_is_reachable_by_its_number() -> None:
    pages = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    numbers = [name[:4] for name in pages]
    assert len(numbers) == len(set(numbers)), "two decisions have one number"
    index = (ROOT / "docs" / "adr" / "README.md").read_text(encoding="utf-8")
    assert [name for name in pages if f"({name})" not in index] == [], "add them to docs/adr/README.md"


# -- the checks themselves can fail ----------------------------------------------------------------------------------


def test_a_planted_wrong_command_or_option_is_noticed() -> None:
    assert complaint(["manyhands", "stat"]) == "there is no command 'stat'"
    assert complaint(["manyhands", "status", "--wach"]) == "there is no option '--wach'"
    assert complaint(["manyhands", "queue", "peek", "tasks", "-n", "5"]) is None


def test_blocks_are_read_with_what_is_said_about_them() -> None:
    text = "a\n\n<!-- file: b.py -->\n```python\nx = 5959\n```\n\n<!-- not run: c -->\n```python\ny\n```\n"
    text += "\n```sh\nmake z  # w\n```\n"
    first, second, third = blocks_of(ROOT / "README.md", text)
    assert (first.file, first.text, second.why_not, third.file) == ("b.py", "x = 5959\n", "c", "")
    assert runnable(first.text, 7) == "x = 7\n"
    assert calls_in(third.text) == [["make", "z"]]


@pytest.mark.programs
def test_a_planted_program_that_fails_is_noticed(start: Start, tmp_path: Path) -> None:
    block = Block(ROOT / "README.md", 1, "python", "raise SystemExit(3)\n", "", "")
    with pytest.raises(AssertionError, match="ended with 3"):
        test_a_program_in_the_documents_runs(block, start, tmp_path)
