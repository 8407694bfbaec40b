"""CPython's own tests of executors with mh.Executor in place of ProcessPoolExecutor; run as a program.

    python suite.py spawn out.json [names of tests …]

The start method is spawn, forkserver, or fresh: children as mh.Executor starts them by itself. The class is replaced before
CPython's test modules are imported; programs that the tests start get it by a changed import. What ran, and how it went, is
written to out.json. 3.12 and later have a package of test modules, 3.11 one module.
"""

from __future__ import annotations

import concurrent.futures
import importlib
import json
import os
import sys
import unittest
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import adapter  # noqa: E402

MIXINS = {"spawn": "ProcessPoolSpawnMixin", "forkserver": "ProcessPoolForkserverMixin", "fresh": ""}
SUITES = {
    "test_wait": ["WaitTests"],
    "test_as_completed": ["AsCompletedTests"],
    "test_shutdown": ["ProcessPoolShutdownTest"],
    "test_deadlock": ["ExecutorDeadlockTest"],
    "executor": ["ExecutorTest"],
}


def their_modules() -> dict[str, ModuleType]:
    """The module that holds each suite."""
    concurrent.futures.ProcessPoolExecutor = adapter.ProcessPoolExecutor  # type: ignore[misc,assignment]
    package = importlib.import_module("test.test_concurrent_futures")
    if not hasattr(package, "__path__"):
        return dict.fromkeys([*SUITES, "util"], package)
    return {name: importlib.import_module(f"test.test_concurrent_futures.{name}") for name in [*SUITES, "util"]}


def with_our_class(plain: Any) -> Any:
    """assert_python_ok, for programs that import the standard library's class."""

    def assert_python_ok(*args: str, **env: Any) -> Any:
        changed = f"import sys; sys.path.insert(0, {str(HERE)!r}); from adapter import ProcessPoolExecutor"
        assert any("from concurrent.futures import ProcessPoolExecutor" in arg for arg in args)
        return plain(*(arg.replace("from concurrent.futures import ProcessPoolExecutor", changed) for arg in args), **env)

    return assert_python_ok


def classes(modules: dict[str, ModuleType], method: str) -> list[type]:
    """The test classes for a start method."""
    util = modules["util"]
    modules["test_shutdown"].assert_python_ok = with_our_class(modules["test_shutdown"].assert_python_ok)  # type: ignore[attr-defined]
    mixin = getattr(util, MIXINS[method]) if method != "fresh" else fresh_mixin(util)
    found = []
    for name, suites in SUITES.items():
        if method == "fresh" and name == "test_shutdown":
            continue  # its programs name a start method
        for suite in suites:
            theirs = getattr(modules[name], suite)
            found.append(type(suite, (theirs, mixin, util.BaseTestCase), {"__module__": "__main__"}))
    return found


def fresh_mixin(util: Any) -> type:
    class FreshMixin(util.ExecutorMixin):  # type: ignore[misc]
        executor_type = adapter.ProcessPoolExecutor

        def get_context(self) -> None:
            return None

    return FreshMixin


class Noted(unittest.TestResult):
    """How each test went: "ok", "skipped: why", or the text of what it failed with."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, str] = {}

    def _note(self, test: Any, outcome: str) -> None:
        self.outcomes[str(test.id()).removeprefix("__main__.")] = outcome

    def addSuccess(self, test: Any) -> None:  # noqa: N802
        self.outcomes.setdefault(str(test.id()).removeprefix("__main__."), "ok")

    def addSkip(self, test: Any, reason: str) -> None:  # noqa: N802
        self._note(test, f"skipped: {reason}")

    def addFailure(self, test: Any, err: Any) -> None:  # noqa: N802
        self._note(test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    addError = addFailure  # noqa: N815

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:  # noqa: N802
        if err is not None:
            self._note(test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def startTest(self, test: Any) -> None:  # noqa: N802
        super().startTest(test)
        print(test.id(), file=sys.stderr, flush=True)


def main() -> None:
    _, method, out, *names = sys.argv
    from test import support

    support.use_resources = None  # all: those that take some seconds too
    os.environ.pop("MANYHANDS_URL", None)
    loader = unittest.defaultTestLoader
    chosen = unittest.TestSuite(
        case
        for one in classes(their_modules(), method)
        for case in loader.loadTestsFromTestCase(one)
        if not names or any(name in case.id() for name in names)
    )
    result = Noted()
    chosen.run(result)
    with open(out, "w", encoding="utf-8") as file:
        json.dump(result.outcomes, file, indent=1)


if __name__ == "__main__":
    main()
