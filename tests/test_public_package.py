"""What `import manyhands` gives and costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import manyhands as mh

HEAVY = {"uvloop", "typer", "rich", "cryptography", "cloudpickle", "asyncio", "multiprocessing", "msgspec", "sqlite3"}


@pytest.mark.programs
def test_importing_the_package_imports_nothing_heavy() -> None:
    program = (
        f"import sys; before = set(sys.modules); import manyhands; print(sorted((set(sys.modules) - before) & {HEAVY!r}))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).strip() == "[]"


@pytest.mark.programs
def test_serving_and_connecting_import_neither_the_command_line_nor_a_store_nobody_uses() -> None:
    program = (
        "import sys, manyhands as mh\n"
        "with mh.serve('tcp://127.0.0.1:0') as server, mh.connect(server.url) as client: client.queue('q').put(1)\n"
        "print(sorted({'typer', 'rich', 'sqlite3', 'cryptography'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60).strip() == "[]"


@pytest.mark.parametrize("name", mh.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(mh, name) is getattr(mh, name)


def test_a_name_that_is_not_there_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'connnect'"):
        _ = mh.connnect


def test_dir_lists_the_public_names_before_any_is_used() -> None:
    assert set(mh.__all__) <= set(dir(mh))
