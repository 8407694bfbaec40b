"""docs/protocol.md says what the code does: its tables are compared with the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from wire_talk import TO_CLIENT_KINDS, TO_SERVER_KINDS

from manyhands import errors, model
from manyhands.wire import bodies, frames, handshake

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """The page's text from a heading to the next one."""
    return re.split(r"^#+ ", PAGE.split(title, 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without the heading rows."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [row for row in cells if not set(row[0]) <= {"-", ":"}]


def names(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


@pytest.mark.parametrize(
    ("title", "kinds"), [("### Requests", TO_SERVER_KINDS), ("### Replies", TO_CLIENT_KINDS)], ids=["requests", "replies"]
)
def test_the_table_of_events_is_the_codes(title: str, kinds: list[type]) -> None:
    told = {names(row[1])[0]: (int(row[0]), names(row[2])) for row in rows(section(title)) if row[0].isdigit()}
    assert told == {
        kind.__name__: (kind.__struct_config__.tag, list(kind.__struct_fields__))  # type: ignore[attr-defined]
        for kind in kinds
    }


def test_the_table_of_structures_is_the_codes() -> None:
    told = {names(row[0])[0]: names(row[1]) for row in rows(section("### Structures")) if names(row[0])}
    assert {name: list(getattr(model, name).__struct_fields__) for name in told} == told
    assert "Message" in told


def test_every_request_names_replies_that_exist() -> None:
    known = {kind.__name__ for kind in TO_CLIENT_KINDS}
    replies = {names(row[1])[0]: row[3] for row in rows(section("### Requests")) if row[0].isdigit()}
    assert all(names(cell) or cell == "none" for cell in replies.values())
    assert {name for cell in replies.values() for name in names(cell)} <= known
    for kind in TO_SERVER_KINDS:
        if "rid" not in kind.__struct_fields__ and kind.__name__ != "Attach":  # type: ignore[attr-defined]
            assert replies[kind.__name__] == "none"


def test_the_table_of_places_for_bodies_is_the_codes() -> None:
    told = {name for row in rows(section("## 2. Frames")) for name in names(row[0])}
    assert told == {kind.__name__ for kind in bodies._HOLDERS}


def test_the_table_of_frames_is_the_codes() -> None:
    told = {row[1]: int(row[0]) for row in rows(section("## 2. Frames")) if row[1] in ("BATCH", "BODY", "ERROR")}
    assert told == {"BATCH": frames.BATCH, "BODY": frames.BODY, "ERROR": frames.ERROR}
    assert set(told.values()) == set(frames._FLAGS)


def test_the_table_of_error_codes_is_the_codes() -> None:
    told = {names(row[0])[0]: row[1].split("`")[1] for row in rows(section("## 6. Error codes")) if names(row[0])}
    raised = {code: type(errors.from_code(code, "")).__name__ for code in told}
    assert raised == {code: name.removeprefix("queue.") for code, name in told.items()}


@pytest.mark.parametrize(
    "text",
    [
        "`#CHALLENGE#` `{sha256}`, 40 random bytes",
        "(45 in all)",
        "(42 in all)",
        "`manyhands key id 1`",
        "`manyhands key derivation 1`",
        "`manyhands client proof`",
        "`manyhands server proof`",
    ],
)
def test_the_page_has_the_bytes_of_the_handshake(text: str) -> None:
    assert text in PAGE


def test_the_numbers_of_the_page_are_the_codes() -> None:
    assert len(handshake.build_hello(bytes(32))) == 45
    assert len(handshake.build_auth(bytes(4), bytes(32))) == 42
    assert handshake.MAX_MESSAGE_BYTES == 256
    assert frames.HEADER.size == 8
    assert (frames.MAX_FRAME_BYTES, frames.CHUNK_BYTES, frames.INLINE_BODY_BYTES) == (16 << 20, 256 << 10, 64 << 10)
    assert (frames.MAX_ERROR_BYTES, frames.GROW_BYTES, frames.MAX_UNFINISHED_BODIES) == (1024, 4 << 20, 8)
    assert frames.BODY_OVERHEAD_BYTES == 1024
    assert handshake.VERSION == 1
