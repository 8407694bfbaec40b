"""CPython's own tests of executors pass with mh.Executor in place of ProcessPoolExecutor.

The interpreters here that have the tests run them, with children as they are started by default, those of shutdown under one
start method; all under all with MANYHANDS_TEST_PROFILE=nightly. What fails must be in EXCEPTIONS, what is there must fail.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from programs.cpythons_tests import Run, Verdict, judge
from programs.interpreters import Absent, python_with_the_package

SUITE = Path(__file__).with_name("suite.py")
DEADLINE_S = 280.0
IS_NIGHTLY = os.environ.get("MANYHANDS_TEST_PROFILE") == "nightly"
OWN = "{}.{}".format(*sys.version_info)
METHODS = [one for one in multiprocessing.get_all_start_methods() if one != "fork"]
TESTS = "import test.support, test.test_concurrent_futures"

_AT_SUBMIT = "What cannot be pickled fails at submit, where its cause is seen; the standard library's fails at result()."
EXCEPTIONS: dict[str, tuple[str, str]] = {
    "ExecutorDeadlockTest.test_error_at_task_pickle": ("res = executor.submit(func, *args)", _AT_SUBMIT),
    "ExecutorDeadlockTest.test_shutdown_deadlock_pickle": ("f = executor.submit(id, ErrorAtPickle())", _AT_SUBMIT),
    "ProcessPoolShutdownTest.test_processes_terminate": ("self.executor.submit(acquire_lock, sem)", _AT_SUBMIT),
}
"""By the test's name: the line that does not hold here, and why it cannot. At most three."""
SUITES = {
    ("fresh", "WaitTests", "AsCompletedTests", "ExecutorTest"): 20,
    ("fresh", "ExecutorDeadlockTest"): 12,
    (METHODS[-1], "ProcessPoolShutdownTest"): 8,
}
"""(start method, names of suites) that one program runs, and how many tests at least pass there."""
if IS_NIGHTLY:
    SUITES |= {(method, "Test"): 43 for method in METHODS}


def cases() -> list[tuple[str, tuple[str, ...]]]:
    """(version, suites)"""
    versions = dict.fromkeys([OWN, "3.11", "3.12", "3.13", "3.14"])
    return [(version, suites) for version in versions for suites in SUITES]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, tuple[str, ...]], Run]]:
    """One for each case that this machine can run, started at once."""
    made: dict[tuple[str, tuple[str, ...]], Run] = {}
    for version, suites in cases():
        with contextlib.suppress(Absent):
            python = python_with_the_package(version)
            if has_the_tests(python):
                made[version, suites] = Run(
                    python, SUITE, suites[0], suites[1:], tmp_path_factory.mktemp("-".join([version, *suites])), DEADLINE_S
                )
    yield made
    for run in made.values():
        run.end()


def has_the_tests(python: Path) -> bool:
    return subprocess.run([python, "-c", TESTS], capture_output=True, check=False).returncode == 0


def test_there_are_few_exceptions_and_each_has_its_assertion_and_reason() -> None:
    assert len(EXCEPTIONS) <= 3
    assert all(assertion and reason for assertion, reason in EXCEPTIONS.values())


@pytest.mark.programs
@pytest.mark.parametrize(("version", "suites"), cases(), ids=lambda one: one if isinstance(one, str) else "-".join(one))
def test_cpythons_own_executor_tests_pass_with_our_class(
    runs: dict[tuple[str, tuple[str, ...]], Run], version: str, suites: tuple[str, ...]
) -> None:
    run = runs.get((version, suites))
    if run is None:
        try:
            python_with_the_package(version)
        except Absent as error:
            pytest.skip(str(error))
        pytest.skip(f"python{version} here has no test.test_concurrent_futures: install it to run this case")
    outcomes = run.outcomes()
    verdict = judge(outcomes, {name: known for name, known in EXCEPTIONS.items() if name in outcomes})
    assert not verdict.failed, "\n\n".join(f"{name}: {text}" for name, text in verdict.failed.items())
    assert verdict == Verdict({}, [], [])
    assert sum(text == "ok" for text in outcomes.values()) >= SUITES[suites]
