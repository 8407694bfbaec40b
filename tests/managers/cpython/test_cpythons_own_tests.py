"""CPython's own tests of managers pass with our classes in place of the standard library's.

The interpreter that runs this suite does so under every start method, the other supported ones under one each; all under all
with MANYHANDS_TEST_PROFILE=nightly. What fails must be in EXCEPTIONS, and what is there must fail.
"""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from programs.cpythons_tests import Run, Verdict, judge
from programs.interpreters import Absent, python_with_the_package

SUITE = Path(__file__).with_name("suite.py")
DEADLINE_S = 240.0
METHODS = multiprocessing.get_all_start_methods()
OWN = "{}.{}".format(*sys.version_info)
ONE_EACH = {"3.11": "fork", "3.12": "fork", "3.13": "spawn", "3.14": "fork"}
IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"

EXCEPTIONS: dict[str, tuple[str, str]] = {}
"""By the test's name: the assertion that does not hold here, and why it cannot. At most four."""

CLASSES = {
    "TestSyncManagerTypes",
    *(
        f"WithManagerTest{name}"
        for name in (
            *("Barrier", "Condition", "Containers", "Event", "Lock", "ManagerRestart", "MyManager", "Pool", "Queue"),
            *("RemoteManager", "Semaphore"),
        )
    ),
}


def cases() -> list[tuple[str, str]]:
    """(version, start method)"""
    own = [(OWN, method) for method in METHODS]
    others = [(version, method) for version in ONE_EACH for method in METHODS if version != OWN]
    return own + [case for case in others if IS_NIGHTLY or ONE_EACH[case[0]] == case[1]]


def test_the_judgement_sees_what_fails_what_passes_unexpectedly_and_what_fails_otherwise() -> None:
    known = {"A.known": ("assert 1 == 2", "why"), "A.healed": ("assert x", "why"), "A.other": ("assert y", "why")}
    outcomes = {"A.good": "ok", "A.known": "… assert 1 == 2", "A.new": "boom", "A.healed": "ok", "A.other": "assert z"}
    assert judge({**outcomes, "A.not_here": "skipped: no"}, known) == Verdict({"A.new": "boom"}, ["A.healed"], ["A.other"])
    assert judge({"A.good": "ok"}, {}) == Verdict({}, [], [])


def test_there_are_few_exceptions_and_each_has_its_assertion_and_reason() -> None:
    assert len(EXCEPTIONS) <= 4
    assert all(assertion and reason for assertion, reason in EXCEPTIONS.values())


# -- running them ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Run]]:
    """One for each case that this machine can run, started at once."""
    made: dict[tuple[str, str], Run] = {}
    for version, method in cases():
        with contextlib.suppress(Absent):
            python = python_with_the_package(version)
            if has_the_test_package(python):
                made[version, method] = Run(
                    python, SUITE, method, (), tmp_path_factory.mktemp(f"{version}-{method}"), DEADLINE_S
                )
    yield made
    for run in made.values():
        run.end()


def has_the_test_package(python: Path) -> bool:
    if python == Path(sys.executable):
        return importlib.util.find_spec("test._test_multiprocessing") is not None
    return (
        subprocess.run([python, "-c", "import test._test_multiprocessing"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.programs
@pytest.mark.parametrize(("version", "method"), cases())
def test_cpythons_own_manager_tests_pass_with_our_classes(
    runs: dict[tuple[str, str], Run], version: str, method: str
) -> None:
    run: Any = runs.get((version, method))
    if run is None:
        try:
            python_with_the_package(version)
        except Absent as error:
            pytest.skip(str(error))
        pytest.skip(f"python{version} here has no package test._test_multiprocessing: install it to run this case")
    outcomes = run.outcomes()
    verdict = judge(outcomes, EXCEPTIONS)
    assert not verdict.failed, "\n\n".join(f"{name}: {text}" for name, text in verdict.failed.items())
    assert verdict == Verdict({}, [], [])
    assert {name.partition(".")[0] for name in outcomes} >= CLASSES
    assert sum(text == "ok" for text in outcomes.values()) >= 75
